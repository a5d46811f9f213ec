"""Wrong arguments of Server, register, Client and calls are told at once, with what was meant."""

from typing import Any

import pytest

from mpreg_transports import Client, Graph, Server


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ({"port": "9"}, TypeError, "port='9' is of type str"),
        ({"port": 99999}, ValueError, "port=99999: a whole number from 0 to 65535"),
        ({"port": True}, TypeError, "port=True"),
        ({"name": ""}, ValueError, "the node's name is empty"),
        ({"name": 3}, TypeError, "name=3 is of type int"),
        ({"host": 3}, TypeError, "host=3"),
        ({"cluster_id": None}, TypeError, "cluster_id=None"),
    ],
)
def test_a_server(arguments: dict[str, Any], kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        Server(**arguments)


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ({"executor": 3}, TypeError, "executor=3 is of type int, and no concurrent.futures Executor"),
        ({"version": 2}, TypeError, "version=2 is of type int"),
        ({"concurrency": "x"}, TypeError, "concurrency='x' is of type str"),
        ({"name": ""}, ValueError, "a function's name is empty"),
        ({"name": 3}, TypeError, "name=3"),
    ],
)
def test_a_function(arguments: dict[str, Any], kind: type[Exception], told: str) -> None:
    server = Server()
    before = server.functions
    with pytest.raises(kind, match=told):
        server.function(**arguments)(len)
    assert server.functions == before


def test_an_event_loop_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match='backend=\'curio\': "asyncio" or "trio"'):
        Server(port=0).run(backend="curio")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_client() -> None:
    wrong: Any = ["ws://h:1"]
    with pytest.raises(TypeError, match="an address is a text"):
        Client(wrong)
    client: Any = Client()
    with pytest.raises(TypeError, match="write 'len', the name under which a node offers it"):
        await client.call(len)
    with pytest.raises(TypeError, match="version=2"):
        await client.call("f", version=2)
    for word in ("wait", "timeout"):
        with pytest.raises(TypeError, match=f"{word}='a' is of type str; write seconds"):
            await client.call("f", **{word: "a"})
    for ask in (client.run, client.answer, client.explain):
        with pytest.raises(TypeError, match="a graph is wanted, not str"):
            await ask("foo")
    with pytest.raises(TypeError, match="a graph is wanted"):
        client.stream("foo")
    graph: Any = Graph()
    with pytest.raises(TypeError, match="version=2"):
        graph.call("f", version=2)
