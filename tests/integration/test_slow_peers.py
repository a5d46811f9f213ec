"""Peers that are slow but alive, over real sockets: a link that moves bytes stays, a link that does not is closed."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from mpreg_proto.limits import MILLISECOND, Limits
from mpreg_transports import Client, Server
from mpreg_transports.links import tcp
from mpreg_transports.runtime import send_buffer
from tests.helpers.blocking_functions import PATIENCE
from tests.helpers.foreign_clients import REQUEST, native, websocket
from tests.helpers.loopback import listening

pytestmark = pytest.mark.anyio

QUICK = Limits(ping_every=500 * MILLISECOND, gone_after=1000 * MILLISECOND)


@asynccontextmanager
async def narrow(port: int, *, rate: int) -> AsyncIterator[int]:
    """Yield a proxy port in front of `port`, with `rate` bytes a second in each direction and small buffers."""

    async def pump(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
        try:
            while True:
                data = await source.receive(max(512, rate // 50))
                await target.send(data)
                await anyio.sleep(len(data) / rate)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.aclose()

    async def join(near: anyio.abc.SocketStream) -> None:
        async with near, await anyio.connect_tcp("127.0.0.1", port) as far, anyio.create_task_group() as tasks:
            far.extra(anyio.abc.SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
            tasks.start_soon(pump, near, far)
            tasks.start_soon(pump, far, near)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        for one in listener.listeners:
            one.extra(anyio.abc.SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, join)
            yield listener.extra(anyio.abc.SocketAttribute.local_port)
            tasks.cancel_scope.cancel()


def large(size: int) -> bytes:
    return bytes(size)


@pytest.mark.parametrize("transport", ["auto", "websocket"])
async def test_transfer_between_two_nodes_over_a_slow_link(transport: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(name="back", port=0, limits=QUICK) as back:
            back.register("large", large)
            back.register("size", len)
            async with narrow(back.port, rate=1_000_000) as port:
                peers = [f"ws://127.0.0.1:{port}"]
                async with Server(name="front", port=0, peers=peers, transport=transport, limits=QUICK) as front:
                    async with Client(front.url) as client:
                        assert await client.call("size", bytes(2_000_000), wait=10) == 2_000_000
                        assert len(await client.call("large", 2_000_000)) == 2_000_000
                    for server in (front, back):
                        assert [row.standing for row in server.view().members] == ["alive", "alive"]


async def test_pong_for_a_json_client_precedes_end_of_a_long_answer() -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server:
            server.register("text", lambda size: "x" * size, inline=True)
            async with websocket(server.port) as client:
                await client.text('{"role":"rpc","cmds":[{"name":"a","fun":"text","args":[12000000]}]}')
                first = await client.frame()
                assert not first.fin
                client.protocol.send_ping(b"are you there")
                await client.flush()
                opcodes = []
                while not (opcodes and opcodes[-1][1]):
                    frame = await client.frame()
                    opcodes.append((frame.opcode.name, frame.fin and frame.opcode.name != "PONG"))
                assert ("PONG", False) in opcodes[:-1]


async def test_many_large_results_in_flight_all_arrive() -> None:
    with anyio.fail_after(PATIENCE):
        async with Server(port=0) as server:
            server.register("large", large, inline=True)
            async with Client(f"tcp://127.0.0.1:{server.port}") as client:
                sizes: list[int] = []

                async def call() -> None:
                    sizes.append(len(await client.call("large", 8 * 1024 * 1024)))

                async with anyio.create_task_group() as tasks:
                    for _ in range(40):
                        tasks.start_soon(call)
                assert sizes == [8 * 1024 * 1024] * 40


async def test_client_that_reads_nothing_is_closed_a_slow_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_buffer, "CHECK_SECONDS", 0.05)
    size = 8_000_000
    with anyio.fail_after(PATIENCE):
        async with Server(port=0, limits=Limits(stalled=500 * MILLISECOND, hang_up=50 * MILLISECOND)) as server:
            server.register("large", large, inline=True)
            request = [REQUEST, 1, [["a", "large", _packed(size)]]]
            async with native(server.port) as stuck, native(server.port) as slow:
                await stuck.send(request)
                await slow.send(request)
                got = 0
                while got < size:  # at a pace that needs several times the allowed silence for the whole
                    got += len(await slow.stream.receive(150_000))
                    await anyio.sleep(0.03)
                left = await stuck.until_closed()
                assert len(left) < size


def _packed(size: int) -> bytes:
    import msgpack  # type: ignore[import-untyped]

    packed: bytes = msgpack.packb([[size], {}])
    return packed


async def test_last_answer_over_a_slow_link_arrives_after_the_leave() -> None:
    size = 3_000_000
    with anyio.fail_after(PATIENCE):
        server = Server(port=0, limits=Limits(hang_up=1000 * MILLISECOND))
        server.register("large", large, inline=True)
        async with server, narrow(server.port, rate=1_000_000) as port, native(port) as client:
            await client.send([REQUEST, 1, [["a", "large", _packed(size)]]])
            head = await client.stream.receive(1000)
            server.leave(grace=False)
            rest = await client.until_closed()
            assert len(head) + len(rest) > size


@pytest.mark.parametrize("side", ["accepted", "dialled"])
async def test_system_keepalive_is_on(side: str) -> None:
    streams: list[anyio.abc.ByteStream] = []

    async def note(link: object) -> None:
        assert isinstance(link, tcp.TcpLink)
        streams.append(link._stream)
        await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE):
        async with listening(note) as listener:
            dialled = await tcp.open_stream("127.0.0.1", listener.port)
            await dialled.send(b"\0")
            while not streams:
                await anyio.lowlevel.checkpoint()
            stream = dialled if side == "dialled" else streams[0]
            raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            await dialled.aclose()
