"""Functions registered from any thread, before and while a server runs: one wins, and invalid names change nothing."""

import threading
from concurrent.futures import Executor, Future
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mpreg_proto.limits import Limits
from mpreg_transports import Client, CommandNotFound, Server
from tests.helpers.blocking_functions import PATIENCE

pytestmark = pytest.mark.anyio

THREADS = 4
LONG = "x" * 300


def together(act: Any) -> list[str]:
    """Call `act(number)` in each of `THREADS` threads at the same time; return the names of the exceptions."""
    errors: list[str] = []
    barrier = threading.Barrier(THREADS)

    def one(number: int) -> None:
        barrier.wait(PATIENCE)
        try:
            act(number)
        except Exception as error:
            errors.append(type(error).__name__)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return errors


# -- from several threads ----------------------------------------------------------------------------------------------


async def test_one_of_concurrent_registrations_succeeds() -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server, Client(server.url) as client:
            for _ in range(10):
                won: list[int] = []

                def register(number: int, won: list[int] = won) -> None:
                    server.register("same", lambda: number, inline=True)
                    won.append(number)

                assert await anyio.to_thread.run_sync(together, register) == ["ValueError"] * (THREADS - 1)
                assert [await client.call("same")] == won
                unregister = lambda _: server.unregister("same")  # noqa: E731
                assert await anyio.to_thread.run_sync(together, unregister) == ["KeyError"] * (THREADS - 1)
                assert server.functions == ("echo", "echos")


async def test_all_registrations_with_replace_succeed() -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server, Client(server.url) as client:

            def register(number: int) -> None:
                server.register("same", lambda: number, inline=True, replace=True)

            assert await anyio.to_thread.run_sync(together, register) == []
            assert await client.call("same") in range(THREADS)


async def test_register_and_unregister_from_within_a_call() -> None:
    server = Server(port=0)
    server.register("offer", lambda name: server.register(name, lambda: name, inline=True), inline=True)
    server.register("withdraw", server.unregister, inline=True)
    names = [f"f{number}" for number in range(20)]
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            for function in ("offer", "withdraw"):
                graph = client.graph()
                for name in names:
                    graph.call(function, name)
                assert len(await client.run(graph)) == 20
                if function == "offer":
                    assert [await client.call(name) for name in names] == names
            assert set(server.functions) == {"echo", "echos", "offer", "withdraw"}
            with pytest.raises(CommandNotFound):
                await client.call("f0")


# -- names -------------------------------------------------------------------------------------------------------------


async def test_names_that_peers_refuse_change_nothing() -> None:
    server = Server(port=0)
    for running in (False, True):
        before = server.functions
        with pytest.raises(ValueError, match="a function's name has at most 256 characters, not 300: xxx"):
            server.register(LONG, lambda: 1)
        with pytest.raises(ValueError, match="a resource has at most 256 characters, not 300: xxx"):
            server.register("f", lambda: 1, resources=[LONG])
        with pytest.raises(KeyError):
            server.unregister(LONG)
        assert server.functions == before
        if not running:
            with anyio.fail_after(PATIENCE):
                async with server, Client(server.url) as client:
                    with pytest.raises(ValueError, match="at most 256"):
                        server.register(LONG, lambda: 1)
                    server.register("f", lambda: 1, inline=True)
                    assert await client.call("f") == 1


async def test_refused_replacement_keeps_the_old_function() -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server, Client(server.url) as client:
            server.register("f", lambda: "old", inline=True)
            for name in ("g", "f"):
                with pytest.raises(Exception, match="at most"):
                    server.register(name, lambda: "new", version="9" * 300, replace=True)
            assert server.functions == ("echo", "echos", "f")
            assert await client.call("f") == "old"


def test_node_names() -> None:
    with pytest.raises(ValueError, match="the node's name has at most 256 characters, not 300"):
        Server(name=LONG)
    with pytest.raises(ValueError, match="a resource has at most 256 characters, not 300"):
        Server(resources=["good", LONG])
    with pytest.raises(ValueError, match="the node's name has at most 3 characters, not 4: four"):
        Server(name="four", limits=Limits(name_length=3))
    assert Server(name="x" * 256).name == "x" * 256


@pytest.mark.parametrize("host", ["127.example.org", "127.0.0.1.example.org", "10.0.0.1", "0.0.0.0", "::", ""])
async def test_host_name_that_only_looks_like_loopback(host: str) -> None:
    with pytest.raises(ValueError, match="refusing to listen on"):
        await Server(host=host, port=0).serve()


async def test_any_loopback_address_is_accepted() -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(host="127.0.0.9", port=0) as server, Client(server.url) as client:
            assert server.url.startswith("ws://127.0.0.9:")
            assert await client.call("echo", 1) == 1


@pytest.mark.parametrize("host", ["LOCALHOST", "localhost.", "[::1]", "127.1", "0x7f.1", "::ffff:127.0.0.1"])
async def test_loopback_spellings_are_served_without_insecure(host: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(host=host, port=0) as server, Client(server.url) as client:
            assert await client.call("echo", 1) == 1


@pytest.mark.parametrize("host", ["::", "0.0.0.0", ""])
async def test_url_of_a_wildcard_host_answers(host: str, caplog: pytest.LogCaptureFixture) -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(host=host, port=0, insecure=True) as server, Client(server.url) as client:
            assert await client.call("echo", 1) == 1
            (row,) = (await client.view()).members
            async with Client(row.addresses[0]) as other:
                assert await other.call("echo", 1) == 1
    (line,) = [one for one in caplog.messages if "open to everybody" in one]
    assert "other machines use ws://" in line or "--advertise" in line


async def test_ipv6_wildcard_accepts_ipv4_and_advertises_its_address() -> None:
    with anyio.fail_after(PATIENCE):
        async with (
            Server(port=0) as seed,
            Server(host="::", port=0, insecure=True, peers=[seed.url]) as server,
            Client(seed.url) as client,
        ):
            while not any(row.addresses for row in (await client.view()).members if not row.me):
                await anyio.lowlevel.checkpoint()
            (row,) = [row for row in (await client.view()).members if not row.me]
            async with Client(row.addresses[0]) as other:
                assert (await other.view()).shown == server.view().shown


# -- notation ----------------------------------------------------------------------------------------------------------


def test_register_takes_keywords() -> None:
    server = Server(port=0)
    server.register(name="f", function=lambda: 1)
    server.register(None, together)
    assert server.functions == ("echo", "echos", "f", "together")


def test_one_decorator_is_reusable() -> None:
    server = Server(port=0)
    offer = server.function(name="one", inline=True)
    offer(lambda: 1)
    with pytest.raises(ValueError, match="a function 'one' is registered already"):
        offer(together)
    assert server.functions == ("echo", "echos", "one")


# -- executors ---------------------------------------------------------------------------------------------------------


class Queue(Executor):
    """An executor that stores the bodies and starts none."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.given = anyio.Event()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        self.given.set()
        return self.futures[-1]


async def test_cancelled_call_leaves_the_queue_of_its_executor() -> None:
    server, queue = Server(port=0), Queue()
    server.register("job", lambda: 1, executor=queue)
    cancelled = threading.Event()
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call, "job")
                await queue.given.wait()
                queue.futures[0].add_done_callback(lambda _: cancelled.set())
                tasks.cancel_scope.cancel()
            assert await anyio.to_thread.run_sync(cancelled.wait, PATIENCE)
            assert queue.futures[0].cancelled()
            assert await client.call("echo", 1) == 1
