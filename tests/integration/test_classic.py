"""`mpreg_transports.classic`: the programs of the seed project as separate processes, and each name of its API."""

import asyncio
import json
import logging
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from mpreg_transports import Client, NotConnected, Server, SyncClient, classic
from mpreg_transports.classic import (
    CommandNotFoundException,
    MPREGClientAPI,
    MPREGException,
    MPREGServer,
    MPREGSettings,
    RPCCommand,
    RPCError,
    rpc_command,
)

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds until a test that hangs fails. No test waits this long otherwise."""


class Program:
    """One of the programs, running."""

    def __init__(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-W", "error", "-m", f"tests.helpers.classic_programs.{name}", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self, pattern: str) -> re.Match[str]:
        """Return the next line of its output that matches completely."""
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            if match := re.fullmatch(pattern, line.rstrip("\n")):
                return match
            seen.append(line)
        raise AssertionError(f"no {pattern} in {seen}; {self.process.communicate()[1]}")

    def url(self) -> str:
        return self.line(r".+ listens on (ws://127\.0\.0\.1:\d+)")[1]

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


@contextmanager
def program(name: str, *arguments: str) -> Iterator[Program]:
    started = Program(name, *arguments)
    with started.process:
        try:
            yield started
        finally:
            started.process.kill()


@asynccontextmanager
async def serving(*servers: MPREGServer) -> AsyncIterator[list[str]]:
    """The servers' addresses, while they run in this event loop."""
    tasks = [asyncio.create_task(server.server()) for server in servers]
    try:
        async with asyncio.timeout(PATIENCE):
            while not all(server.url for server in servers):
                done, _ = await asyncio.wait(tasks, timeout=0)
                for task in done:
                    task.result()
            yield [server.url for server in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.shutdown()  # without grace
        await asyncio.gather(*tasks)


def server(**settings: object) -> MPREGServer:
    return MPREGServer(MPREGSettings(port=0, **settings))


async def known(url: str, function: str, *resources: str) -> None:
    """Wait, by a call, until the node at `url` has learned of an offer of `function` with these resources."""
    async with Client(url) as client:
        await client.call(function, wait=PATIENCE, resources=resources)


@pytest.fixture
def commands() -> Iterator[None]:
    """Remove the functions that the test decorates after the test."""
    before = dict(classic._commands)
    yield
    classic._commands.clear()
    classic._commands.update(before)


# -- the programs -----------------------------------------------------------------------------------------------------


def test_programs_of_three_terminals() -> None:
    with program("primary", "0") as primary:
        url = primary.url()
        with program("secondary", "0", url) as secondary:
            secondary.url()
            with program("client", url) as client:
                out, err = client.process.communicate(timeout=PATIENCE)
            assert [json.loads(line) for line in out.splitlines()] == ["Hello MPREG!", {"step2": "first step"}], err
            assert (client.process.returncode, err) == (0, "")
            with SyncClient(url) as native:
                assert native.call("echo", 1, resources=["model-b", "dataset-2"], wait=PATIENCE) == 1
                assert {member.name for member in native.view().members} == {"Primary Server", "Secondary Server"}


def test_register_at_runtime_and_shutdown_of_one_server() -> None:
    with program("primary", "0") as primary:
        first = primary.url()
        with program("registering", "0", "second", first) as registering:
            second = registering.url()

            async def use() -> None:
                async with MPREGClientAPI(first) as client, MPREGClientAPI(second) as there:
                    with pytest.raises(CommandNotFoundException) as caught:
                        await client.call("my_function", 1, locs=frozenset(["my-dataset"]))
                    assert caught.value.command_name == "my_function"
                    registering.say("register yes")
                    registering.line("registered")
                    assert await there.call("my_function", [1], locs=frozenset(["my-dataset"])) == ["yes", [1]]
                    async with Client(first) as native:
                        await native.call("my_function", 0, resources=["my-dataset"], wait=PATIENCE)
                    assert await client.call("my_function", 2, locs=frozenset(["my-dataset"])) == ["yes", 2]
                    assert await client.call("whoami", locs={"port-of-second"}) == "second"

                    registering.say("shutdown")
                    assert await asyncio.to_thread(registering.process.wait, PATIENCE) == 0
                    registering.line("ended")
                    assert await client.call("echo", "still here") == "still here"
                    with pytest.raises(CommandNotFoundException):
                        await client.call("my_function", 2, locs=frozenset(["my-dataset"]))
                    with pytest.raises(ConnectionError):
                        await there.call("echo", 1)

            asyncio.run(use())


# -- many clients and calls --------------------------------------------------------------------------------------------


def test_hundred_concurrent_clients() -> None:
    async def one(url: str, number: int) -> object:
        async with MPREGClientAPI(url, full_log=False) as client:
            return await client.call("echo", number)

    async def main() -> None:
        async with serving(node) as (url,):
            assert await asyncio.gather(*(one(url, number) for number in range(100))) == list(range(100))

    node = server()
    asyncio.run(main())


def test_200_gathered_calls_on_an_unconnected_client() -> None:
    async def main() -> None:
        async with serving(far) as (url,):
            near = server(connect=url)
            async with serving(near) as (here,):
                await known(here, "echos", "far")
                client = MPREGClientAPI(here, full_log=False)
                calls = [client.call("echos", number, locs=["far"] if number % 2 else []) for number in range(200)]
                assert await asyncio.gather(*calls) == [[number] for number in range(200)]
                await client.disconnect()
                await client.disconnect()
                assert await client.call("echo", "again") == "again"  # as in the seed project, the next call connects
                await client.disconnect()

    far = server(resources={"far"})
    asyncio.run(main())


def test_two_servers_of_one_name() -> None:
    async def main() -> None:
        async with serving(first) as (url,):
            second = server(name="twin", resources={"right"}, peers=[url])
            second.register_command("side", lambda: "right", [])
            async with serving(second) as (other,):
                await known(url, "side", "right")
                await known(other, "side", "left")
                for here in (url, other):
                    async with MPREGClientAPI(here) as client:
                        assert await client.call("side", locs={"left"}) == "left"
                        assert await client.call("side", locs={"right"}) == "right"

    first = server(name="twin", resources={"left"})
    first.register_command("side", lambda: "left", [])
    asyncio.run(main())


# -- server -----------------------------------------------------------------------------------------------------------


def test_settings_equal_those_of_the_seed() -> None:
    assert MPREGServer().settings == MPREGSettings(
        host="127.0.0.1",
        port=6666,
        name="NO NAME PROVIDED",
        resources=None,
        peers=None,
        connect=None,
        cluster_id="default-cluster",
        advertised_urls=None,
        gossip_interval=5.0,
    )
    with pytest.raises(TypeError, match="bare string"):
        server(resources="gpu")


def test_start_blocks_until_shutdown_from_another_thread() -> None:
    node = server(name="threaded")
    thread = threading.Thread(target=node.start)
    listening = threading.Event()
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: listening.set()  # type: ignore[method-assign]
    log = logging.getLogger("mpreg.classic")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        thread.start()
        assert listening.wait(PATIENCE)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert node.settings.port == int(node.url.rpartition(":")[2]) > 0
    with SyncClient(node.url) as client:
        assert client.call("echo", 1) == 1

    async def end() -> None:
        await node.shutdown()

    asyncio.run(end())
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_start_raises_for_a_port_in_use() -> None:
    async def main() -> None:
        async with serving(node):
            taken = MPREGServer(MPREGSettings(port=node.settings.port))
            with pytest.raises(OSError, match="already in use"):
                await asyncio.to_thread(taken.start)
            with program("starting", str(node.settings.port)) as starting:
                _, err = await asyncio.to_thread(starting.process.communicate)
                assert re.search(r"^\S*CannotListen: .*already in use", err, re.MULTILINE), err
                assert "ExceptionGroup" not in err
            with pytest.raises(RuntimeError, match="runs already"):
                await node.server()

    node = server()
    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_start_in_the_main_thread_handles_signals(number: signal.Signals) -> None:
    with program("starting", "0") as starting:
        with SyncClient(starting.url()) as client:
            assert client.call("echo", 1) == 1
        starting.process.send_signal(number)
        out, err = starting.process.communicate(timeout=PATIENCE)
    assert (starting.process.returncode, out.splitlines()[-1], err) == (0, "returned", "")


def test_server_shut_down_first_never_runs() -> None:
    async def main() -> None:
        early = asyncio.create_task(node.server())
        node.shutdown()
        await early
        assert node.url == ""
        while_binding = asyncio.create_task(other.server())
        await asyncio.sleep(0)  # it has started but does not listen yet
        assert other.url == ""
        await other.shutdown()
        await while_binding

    node, other = server(), server()
    node_was_never_awaited = node.shutdown()
    asyncio.run(asyncio.wait_for(_await(node_was_never_awaited), PATIENCE))
    asyncio.run(main())


async def _await(something: object) -> None:
    await something  # type: ignore[misc]


def test_shutdown_waits_for_running_calls() -> None:
    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            begun.set()
            await go_on.wait()
            return "finished"

        node.register_command("slow", slow, [])
        async with serving(node) as (url,), MPREGClientAPI(url) as client:
            call = asyncio.create_task(client.call("slow"))
            await begun.wait()
            end = node.shutdown()
            with pytest.raises(MPREGException) as caught:
                await client.call("echo", 1)
            assert caught.value.rpc_error.code == 1024
            go_on.set()
            assert await call == "finished"
            await end

    node = server()
    asyncio.run(main())


def test_decorated_commands_are_on_every_server(commands: None) -> None:
    async def main() -> None:
        async with serving(before) as (url,), MPREGClientAPI(url) as client:

            @rpc_command("while-running", resources=["tag"])
            def decorated() -> str:
                return "decorated"

            assert decorated() == "decorated"
            assert await client.call("while-running", locs={"tag"}) == "decorated"
            assert await client.call("greet", "you") == "hello you"
            before.register_command("greet", str.upper, [])  # a server's own command takes precedence
            assert await client.call("greet", "you") == "YOU"
            with pytest.raises(ValueError, match="registered already"):
                before.register_command("greet", str.lower, [])
            assert await client.call("greet", "you") == "YOU"
            later = server()
            async with serving(later) as (other,), MPREGClientAPI(other) as there:
                assert await there.call("while-running") == "decorated"
                assert await there.call("greet", "you") == "hello you"

    before = server()

    @rpc_command("greet")
    def greet(name: str) -> str:
        return f"hello {name}"

    rpc_command("greet")(greet)  # as when its module is imported twice
    with pytest.raises(ValueError, match="'greet' already"):
        rpc_command("greet")(str.lower)
    asyncio.run(main())


# -- client -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> MPREGServer:
    """A server with a few commands, which the test starts."""
    node = server(resources={"here"})

    async def sleep_forever() -> None:
        await asyncio.Event().wait()

    def fail(text: str) -> None:
        raise ValueError(text)

    node.register_command("sleep_forever", sleep_forever, [])
    node.register_command("fail", fail, [])
    node.register_command("pair", lambda: ({"b", "a"}, (1, 2)), [])
    node.register_command("kind", lambda value: type(value).__name__, [])
    node.register_command("nan", lambda: float("nan"), [])
    node.register_command("keywords", lambda **more: more, [])
    return node


def test_call_is_named_after_its_function(cluster: MPREGServer) -> None:
    async def main() -> None:
        async with serving(cluster) as (url,), MPREGClientAPI(url) as client:
            assert await client.call("echo", "echo") == "echo"
            assert await client.call("echos", "echos", ["echo"]) == ["echos", ["echo"]]
            assert await client.call("keywords", name="keywords", function=1) == {"name": "keywords", "function": 1}

    asyncio.run(main())


def test_requests_of_many_commands(cluster: MPREGServer) -> None:
    async def main() -> None:
        async with serving(cluster) as (url,), MPREGClientAPI(url) as client:
            commands = [
                RPCCommand(name="|third", fun="echos", args=("|first", "AND ME TOO"), locs=frozenset({"here"})),
                RPCCommand(name="|first", fun="echo", args=("hi there!",)),
                RPCCommand(name="|second", fun="echo", args=(("|first", {"key": "|first"}),)),
            ]
            both = {"|second": ["hi there!", {"key": "hi there!"}], "|third": ["hi there!", "AND ME TOO"]}
            assert await client._client.request(cmds=commands, timeout=PATIENCE) == both
            for wrong, code in (
                ([], 1010),
                ([RPCCommand(name="a", fun="echo", args=(1,))] * 2, 1011),
                ([RPCCommand(name=one, fun="echo", args=(two,)) for one, two in ("ab", "ba")], 1012),
            ):
                with pytest.raises(MPREGException) as caught:
                    await client._client.request(wrong)
                assert caught.value.rpc_error.code == code

    asyncio.run(main())


def test_values_are_json_values(cluster: MPREGServer) -> None:
    async def main() -> None:
        async with serving(cluster) as (url,), MPREGClientAPI(url) as client:
            assert await client.call("pair") == [["a", "b"], [1, 2]]
            assert await client.call("kind", (1, 2)) == "list"
            number = uuid.UUID(int=7)
            assert await client.call("echo", {1: number, "n": None}) == {"1": str(number), "n": None}
            with pytest.raises(TypeError, match="call 'echo'"):
                await client.call("echo", object())
            with pytest.raises(MPREGException) as caught:
                await client.call("nan")
            assert caught.value.rpc_error.code == 1003
            assert "cannot be sent as JSON" in str(caught.value)

    asyncio.run(main())


def test_errors(cluster: MPREGServer) -> None:
    async def main() -> None:
        async with serving(cluster) as (url,), MPREGClientAPI(url) as client:
            for asked in ({"fun": "nowhere"}, {"fun": "echo", "locs": frozenset({"nowhere"})}):
                with pytest.raises(CommandNotFoundException) as not_found:
                    await client.call(**asked)
                assert not_found.value.command_name == asked["fun"]
                assert not_found.value.rpc_error.code == 1001
            with pytest.raises(MPREGException) as failed:
                await client.call("fail", "on purpose")
            assert failed.value.rpc_error.code == 1003
            assert failed.value.rpc_error.details["message"] == "on purpose"
            assert "on purpose" in str(failed.value)
            with pytest.raises(TypeError, match="bare string"):
                await client.call("echo", 1, locs="here")
            assert await client.call("echo", 1) == 1

    asyncio.run(main())


def test_errors_are_constructed_and_pickled() -> None:
    error = RPCError(1001, "no", {"function": "f"})
    for made in (MPREGException(rpc_error=error), CommandNotFoundException(error, command_name="f")):
        again = pickle.loads(pickle.dumps(made))
        assert (type(again), again.rpc_error, vars(again)) == (type(made), error, vars(made))
    assert CommandNotFoundException(command_name="f").rpc_error.code == 1001
    assert MPREGException().rpc_error.code == -1
    with pytest.raises(TypeError, match="bare string"):
        RPCCommand(name="a", fun="echo", args="text")


def test_timeout_and_cancel_stop_the_command(cluster: MPREGServer) -> None:
    async def main() -> None:
        stopped = asyncio.Queue[None]()
        begun = asyncio.Queue[None]()

        async def held() -> None:
            begun.put_nowait(None)
            try:
                await asyncio.Event().wait()
            finally:
                stopped.put_nowait(None)

        cluster.register_command("held", held, [])
        async with serving(cluster) as (url,), MPREGClientAPI(url) as client:
            with pytest.raises(asyncio.TimeoutError):
                await client.call("held", timeout=0.05)
            await stopped.get()
            with pytest.raises(asyncio.TimeoutError):
                await client.call("held", timeout=0)
            await begun.get()
            call = asyncio.create_task(client.call("held"))
            await begun.get()
            call.cancel()
            await stopped.get()
            assert call.cancelled()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_timeout_is_exact(cluster: MPREGServer) -> None:
    def blocks() -> str:
        time.sleep(0.05)
        return "done"

    async def main() -> None:
        cluster._node.register("blocks", blocks, inline=True)
        async with serving(cluster) as (url,), MPREGClientAPI(url) as client:
            with pytest.raises(asyncio.TimeoutError):  # the answer is there when the event loop reads the clock again
                await client.call("blocks", timeout=0.02)
            with pytest.raises(asyncio.TimeoutError):
                await client.call("echo", 1, timeout=1e-12)
            assert await client.call("echo", 1, timeout=PATIENCE) == 1
            assert await client.call("echo", 1, timeout=1e9) == 1
        with socket.create_server(("127.0.0.1", 0)) as silent:  # the timeout covers connecting
            unanswered = MPREGClientAPI(f"ws://127.0.0.1:{silent.getsockname()[1]}")
            with pytest.raises(asyncio.TimeoutError):
                await unanswered.call("echo", 1, timeout=0.02)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_connect_and_disconnect_across_tasks_and_loops(cluster: MPREGServer) -> None:
    async def use(client: MPREGClientAPI) -> None:
        await client.connect()
        assert await client.call("echo", 1) == 1

    async def main() -> None:
        async with serving(cluster) as (url,):
            first, second = MPREGClientAPI(url), MPREGClientAPI(url)
            await asyncio.gather(first.connect(), first.connect(), second.connect())
            await first.disconnect()
            assert await second.call("echo", 1) == 1
            await asyncio.create_task(second.disconnect())
            await asyncio.to_thread(asyncio.run, use(first))
            await asyncio.to_thread(asyncio.run, use(first))

    asyncio.run(main())


def test_no_listener_or_lost_server() -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def held() -> None:
            begun.set()
            await asyncio.Event().wait()

        node.register_command("held", held, [])
        async with serving(node) as (url,):
            client = MPREGClientAPI(url)
            call = asyncio.create_task(client.call("held"))
            await begun.wait()
        with pytest.raises(MPREGException) as caught:  # the server ended during the call
            await call
        assert caught.value.rpc_error.code in (1021, 1023, 1024)
        for _ in range(2):
            with pytest.raises(NotConnected):
                await client.call("echo", 1)
        again = MPREGServer(MPREGSettings(port=node.settings.port))
        async with serving(again):
            assert await client.call("echo", "back") == "back"
            await client.disconnect()

    node = server()
    asyncio.run(main())


def test_full_log_writes_requests_and_results(cluster: MPREGServer, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(cluster) as (url,):
            for full_log in (True, False):
                async with MPREGClientAPI(url, full_log) as client:
                    await client.call("echo", f"full_log={full_log}")

    with caplog.at_level(logging.INFO, "mpreg.classic"):
        asyncio.run(main())
    said = [record.getMessage() for record in caplog.records if "full_log" in record.getMessage()]
    assert len(said) == 2
    assert all("full_log=True" in one for one in said)


def test_native_and_classic_clients_and_servers_mix(cluster: MPREGServer) -> None:
    async def main() -> None:
        async with Server(port=0, name="native") as native, MPREGClientAPI(native.url) as client:
            assert await client.call("echo", 1) == 1
        async with serving(cluster) as (url,), Client(url) as native_client:
            assert await native_client.call("pair") == ({"a", "b"}, (1, 2))

    asyncio.run(main())
