"""Input of one client does not delay others: the node answers small calls during it, on real sockets."""

from __future__ import annotations

import anyio
import anyio.abc
import pytest

from mpreg_transports import Client, Server
from tests.helpers.blocking_functions import PATIENCE
from tests.helpers.foreign_clients import classic_frames, websocket
from tests.helpers.loopback import read_exactly

pytestmark = pytest.mark.anyio

SMALL = b'{"role":"rpc","cmds":[{"name":"a","fun":"echo","args":[1]}]}'
ANSWER = b'{"r":{"a":1},"error":null,"u":""}'


class Calls:
    """Small calls of another client, one after the other, counted."""

    def __init__(self, client: Client) -> None:
        self.count = 0
        self._client = client

    async def run(self) -> None:
        while True:
            await self._client.call("echo", 1)
            self.count += 1


def frame(first: int, payload: bytes) -> bytes:
    """Return a masked frame, made by hand; a mask of zeros leaves the payload unchanged."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xff" + size.to_bytes(8, "big")
    return bytes((first,)) + length + b"\0\0\0\0" + payload


@pytest.mark.parametrize("carrier", ["websocket", "frames", "post"])
async def test_small_calls_during_a_malformed_json_message(carrier: str) -> None:
    text = b'{"role":"rpc","u":"big","cmds":[' + b'[1,"a"],' * 400_000 + b"x"
    with anyio.fail_after(PATIENCE):
        async with (
            Server(port=0) as server,
            Client(f"tcp://127.0.0.1:{server.port}") as other,
            anyio.create_task_group() as tasks,
        ):
            calls = Calls(other)
            tasks.start_soon(calls.run)
            if carrier == "websocket":
                async with websocket(server.port) as client:
                    await client.stream.send(frame(0x81, text) + frame(0x81, SMALL))
                    before = calls.count
                    first, second = await client.frame(), await client.frame()
                    assert (b'"code":1000' in bytes(first.data), bytes(second.data)) == (True, ANSWER)
            elif carrier == "frames":
                async with classic_frames(server.port) as peer:
                    await peer.send(text)
                    await peer.send(SMALL)
                    before = calls.count
                    assert (await peer.receive())["error"]["code"] == 1000
                    assert (await peer.receive())["r"] == {"a": 1}
            else:
                async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
                    head = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(text)
                    await stream.send(head + text)
                    before = calls.count
                    assert (await stream.receive()).startswith(b"HTTP/1.1 400")
            assert calls.count - before >= 20
            tasks.cancel_scope.cancel()


async def test_small_calls_during_tiny_fragments() -> None:
    fragments = frame(0x01, b"{") + frame(0x00, b" ") * 60_000 + frame(0x80, b"}")
    with anyio.fail_after(PATIENCE):
        async with (
            Server(port=0) as server,
            Client(f"tcp://127.0.0.1:{server.port}") as other,
            websocket(server.port) as client,
            anyio.create_task_group() as tasks,
        ):
            calls = Calls(other)
            tasks.start_soon(calls.run)
            await client.stream.send(fragments)
            before = calls.count
            assert b'"code":1004' in bytes((await client.frame()).data)
            assert calls.count - before >= 20
            tasks.cancel_scope.cancel()


async def test_small_calls_during_pipelined_requests() -> None:
    number = 8_000
    with anyio.fail_after(PATIENCE):
        async with (
            Server(port=0) as server,
            Client(f"tcp://127.0.0.1:{server.port}") as other,
            await anyio.connect_tcp("127.0.0.1", server.port) as stream,
            anyio.create_task_group() as tasks,
        ):
            calls = Calls(other)
            tasks.start_soon(calls.run)

            async def send() -> None:
                await stream.send((len(SMALL).to_bytes(4, "big") + SMALL) * number)

            tasks.start_soon(send)
            answer = len(ANSWER).to_bytes(4, "big") + ANSWER
            before = calls.count
            for _ in range(number // 1000):
                assert await read_exactly(stream, 1000 * len(answer)) == 1000 * answer
            assert calls.count - before >= 20
            tasks.cancel_scope.cancel()
