"""Rows about links: memory of an idle connection, and the work for one client before the next call of another."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from contextlib import AsyncExitStack

import anyio
from wsproto import ConnectionType
from wsproto.connection import Connection

from mpreg_proto.client import ClientSession
from mpreg_proto.effects import Framing, Send
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.wire import jsonsteps
from mpreg_proto.wire.jsonvalues import MalformedJson
from mpreg_transports import Client, Server
from mpreg_transports.links.message_parser import MessageParser
from tests.benchmarks.growth import Growth

IDLE = 24 * 1024
"""The limit for the memory of an idle connection, in bytes."""
CLIENT = 32 * 1024
"""The limit for the memory of an idle `Client`, in bytes: its connection, its session and its four tasks."""
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%s"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def rows() -> list[Growth]:
    """Return all rows of this module."""
    measured = []
    for kind in ("raw", "websocket", "json websocket", "client"):
        held = idle(kind, 1000)
        what = "bytes held for an idle connection, of 1,000, beside the bound"
        measured.append(Growth(f"idle {kind}", what, CLIENT if kind == "client" else IDLE, held, 1.0))
    for name, work in (("json", longest_json_step), ("fragments", longest_fragment_step)):
        what = "characters or frames handled between two pauses, in a message of 1 and of 15 MiB"
        measured.append(Growth(f"longest {name} step", what, work(1 << 20), work(15 << 20), 1.0))
    return measured


def idle(kind: str, connections: int) -> float:
    """Return the bytes that Python holds for each of so many idle connections; for "client", of the client side."""
    return anyio.run(_idle_clients if kind == "client" else _idle_server, kind, connections)


async def _idle_server(kind: str, connections: int) -> float:
    sockets: list[socket.socket] = []

    def connect(port: int) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sockets.append(sock)
        sock.sendall(_greeting(kind))
        sock.recv(1000)

    async with Server(port=0) as server:
        for _ in range(20):  # objects that are made once are not counted
            await anyio.to_thread.run_sync(connect, server.port)
        tracemalloc.start()
        try:
            before = _held()
            for _ in range(connections):
                await anyio.to_thread.run_sync(connect, server.port)
            await anyio.wait_all_tasks_blocked()
            held = (_held() - before) / connections
        finally:
            tracemalloc.stop()
            for sock in sockets:
                sock.close()
    return held


def _greeting(kind: str) -> bytes:
    """Return the first bytes that a client sends to open its link."""
    if kind == "raw":
        session = ClientSession()
        session.link_opened(LinkId(1), framing=Framing.STREAM, address=Address(""), now=0)
        return b"".join(chunk for sent in session.drain() if isinstance(sent, Send) for chunk in sent.chunks)
    return _UPGRADE % (b"" if kind.startswith("json") else b"Sec-WebSocket-Protocol: mpreg.1\r\n")


async def _idle_clients(kind: str, connections: int) -> float:
    """Measure the connections of existing clients; subtract the memory of the node's side in this process."""
    node = await _idle_server("raw", connections)
    async with Server(port=0) as server, AsyncExitStack() as clients:
        for _ in range(20):
            await clients.enter_async_context(Client(f"tcp://127.0.0.1:{server.port}"))
        made = [Client(f"tcp://127.0.0.1:{server.port}") for _ in range(connections)]
        tracemalloc.start()
        try:
            before = _held()
            for client in made:
                await clients.enter_async_context(client)
            held = (_held() - before) / connections
        finally:
            tracemalloc.stop()
    return held - node


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def longest_json_step(size: int) -> float:
    """Return the average number of windows of a malformed JSON text that are parsed between two pauses."""
    text = "[" + '[1,"a"],' * (size // 8) + "x"
    return len(text) / jsonsteps.WINDOW / _pauses(text)


def _pauses(text: str) -> int:
    steps, count = jsonsteps.loads(text), 0
    try:
        while True:
            next(steps)
            count += 1
    except MalformedJson:
        return count


def longest_fragment_step(size: int) -> float:
    """Return the average number of one-byte frames that are parsed between two pauses."""
    parser = MessageParser(Connection(ConnectionType.SERVER), max_message=size)
    number = size // 100
    parser.feed(b"\x01\x81\0\0\0\0{" + b"\0\x81\0\0\0\0 " * number)
    slices = 1
    parser.parse()
    while parser.more:
        parser.parse()
        slices += 1
    return number / slices
