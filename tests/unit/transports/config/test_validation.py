"""Wrong arguments of Server, register, Client and calls raise at once, with the expected form."""

import inspect
from typing import Any

import pytest

from mpreg_transports import Client, Graph, Server, SyncClient
from mpreg_transports.config.validation import CALL_KEYWORDS


class Odd(str):
    """A text that cannot be shown."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"port": "9"}, TypeError, "port='9' is of type str"),
        ({"port": 99999}, ValueError, "port=99999: a whole number from 0 to 65535"),
        ({"port": True}, TypeError, "port=True"),
        ({"name": ""}, ValueError, "the node's name is empty"),
        ({"name": 3}, TypeError, "name=3 is of type int"),
        ({"host": 3}, TypeError, "host=3"),
        ({"cluster_id": None}, TypeError, "cluster_id=None"),
        ({"name": Odd("worker")}, TypeError, "name=... is of type Odd"),
        ({"cluster_id": Odd("shop")}, TypeError, "cluster_id=... is of type Odd"),
    ],
)
def test_wrong_arguments_of_a_server(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Server(**arguments)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"executor": 3}, TypeError, "executor=3 is of type int, and no concurrent.futures Executor"),
        ({"version": 2}, TypeError, "version=2 is of type int"),
        ({"concurrency": "x"}, TypeError, "concurrency='x' is of type str"),
        ({"name": ""}, ValueError, "a function's name is empty"),
        ({"name": 3}, TypeError, "name=3"),
        ({"name": Odd("f")}, TypeError, "name=... is of type Odd"),
        ({"version": Odd("2")}, TypeError, "version=... is of type Odd"),
        ({"version": "2" * 257}, ValueError, "a version has at most 256 characters, not 257"),
    ],
)
def test_wrong_arguments_of_a_function(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    server = Server()
    before = server.functions
    with pytest.raises(kind, match=message):
        server.function(**arguments)(len)
    assert server.functions == before


def test_unknown_event_loop() -> None:
    with pytest.raises(ValueError, match='backend=\'curio\': "asyncio" or "trio"'):
        Server(port=0).run(backend="curio")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_wrong_arguments_of_a_client() -> None:
    wrong: Any = ["ws://h:1"]
    with pytest.raises(TypeError, match="an address is a text"):
        Client(wrong)
    word: Any = "a"
    for make in (Client, SyncClient):
        with pytest.raises(TypeError, match="wait='a' is of type str; write seconds"):
            make(wait=word)
        with pytest.raises(ValueError, match="wait=-1"):
            make(wait=-1)
    client: Any = Client()
    with pytest.raises(TypeError, match="write 'len', the name under which a node offers it"):
        await client.call(len)
    with pytest.raises(TypeError, match="version=2"):
        await client.call("f", version=2)
    for word in ("wait", "timeout"):
        with pytest.raises(TypeError, match=f"{word}='a' is of type str; write seconds"):
            await client.call("f", **{word: "a"})
    for ask in (client.run, client.answer, client.explain):
        with pytest.raises(TypeError, match="expected a Graph, got str"):
            await ask("foo")
    with pytest.raises(TypeError, match="expected a Graph"):
        client.stream("foo")
    graph: Any = Graph()
    with pytest.raises(TypeError, match="version=2"):
        graph.call("f", version=2)


# -- parameters that callers cannot name -------------------------------------------------------------------------------


def test_call_keywords_are_those_of_the_client() -> None:
    own = [one.name for one in inspect.signature(Client.call).parameters.values() if one.kind is one.KEYWORD_ONLY]
    assert set(CALL_KEYWORDS) == set(own)


@pytest.mark.parametrize("taken", CALL_KEYWORDS)
@pytest.mark.parametrize("kind", ["{0}", "{0}=None", "*, {0}=None", "a, {0}=1, **more"])
def test_warning_about_a_parameter_name_of_call(taken: str, kind: str) -> None:
    function = eval(f"lambda {kind.format(taken)}: 1")
    server = Server()
    with pytest.warns(
        UserWarning, match=rf'f: call\(\) has {taken}= of its own; .* kwargs=\{{"{taken}": \.\.\.\}}'
    ) as warned:
        server.register("f", function)
    assert [one.filename for one in warned] == [__file__]
    assert "f" in server.functions


def test_warning_has_the_line_of_the_decorator() -> None:
    server = Server()
    with pytest.warns(UserWarning, match=r"poll(-2)?: call") as warned:

        @server.function
        def poll(timeout: float, wait: float) -> None: ...

        @server.function(name="poll-2")
        async def other(version: str) -> None: ...

    assert [one.filename for one in warned] == [__file__, __file__]


@pytest.mark.parametrize("parameters", ["timeout, /", "*timeout", "**kwargs", "name, after, timeouts", ""])
def test_no_warning_about_parameters_that_callers_can_pass(parameters: str) -> None:
    Server().register("f", eval(f"lambda {parameters}: 1"))
