"""The example docs/examples/embed_selectors.py as a member of a cluster with ordinary `Server`s and `Client`s.

test_pages.py checks that the page shows this code, and that the program's own output is as shown.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docs.examples.embed_selectors import SelectorNode, add, clock, doubled_slowly
from mpreg_transports import Client, ExecutionFailed, Server

ROOT = Path(__file__).resolve().parents[2]


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def embedded() -> Iterator[SelectorNode]:
    """A node on `selectors` in its own thread, which has left at the end."""
    functions: dict[str, Callable[..., object]] = {"add": add, "doubled_slowly": doubled_slowly, "fail": fail}
    node = SelectorNode("embedded", functions, resources=["here"], threaded=["doubled_slowly"])
    thread = threading.Thread(target=node.run)
    thread.start()
    yield node
    node.call_from_thread(lambda: node.node.leave(now=clock()))
    thread.join(10)
    assert not thread.is_alive()
    node.release()


@pytest.mark.anyio
async def test_embedded_node_serves_a_client(embedded: SelectorNode) -> None:
    async with Client(embedded.url) as client:
        assert await client.call("add", 1, 2) == 3
        assert await client.call("doubled_slowly", 21) == 42
        with pytest.raises(ExecutionFailed, match="ValueError: no"):
            await client.call("fail", "no")
        value = b"x" * 5_000_000  # more than a socket takes in one write
        assert await client.call("echo", value) == value


@pytest.mark.anyio
async def test_embedded_node_is_a_member_beside_a_server(embedded: SelectorNode) -> None:
    async with Server(name="ordinary", port=0, peers=[embedded.url]) as server:

        @server.function
        async def upper(text: str) -> str:
            return text.upper()

        async with Client(embedded.url) as client:
            assert await client.call("upper", "over there", wait=10) == "OVER THERE"
        async with Client(server.url) as client:
            graph = client.graph()
            total = graph.call("add", 1, 2, resources={"here"})
            both = graph.call("echos", graph.call("upper", "and back"), graph.call("doubled_slowly", total))
            assert await graph.run(both, wait=10) == ["AND BACK", 6]


@pytest.mark.anyio
async def test_embedded_node_dials_its_seed(anyio_backend: str) -> None:
    async with Server(name="seed", port=0) as server:
        node = SelectorNode("dialler", {"add": add}, seeds=[server.url])
        thread = threading.Thread(target=node.run)
        thread.start()
        async with Client(server.url) as client:
            assert await client.call("add", 2, 2, wait=10) == 4
            node.call_from_thread(lambda: node.node.leave(now=clock()))
            thread.join(10)
            assert not thread.is_alive()
            node.release()
            assert [row.standing for row in (await client.view()).members if row.name == "dialler"] == ["left"]


def test_embedded_node_imports_no_event_loop() -> None:
    loops = "('asyncio', 'anyio', 'trio')"
    code = f"import sys, docs.examples.embed_selectors; print([loop for loop in {loops} if loop in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
