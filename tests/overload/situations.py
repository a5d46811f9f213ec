"""The situations that are measured: each prints its rows, with the targets of the design."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress

from mpreg_transports import Client, Graph
from tests.overload.load import MIB, Beside, Calls, Node, offer, one

HEADERS = "Host: 127.0.0.1\r\nContent-Type: application/json\r\n"


def row(name: str, value: str, target: str = "") -> None:
    """Print one line of the table."""
    print(f"  {name:<58}{value:>14}   {target}", flush=True)


async def tenfold(nodes: list[Node], seconds: float) -> None:
    """Ten times the capacity of 80/s, for 30 s."""
    await _overload(nodes, "tenth", rate=800, capacity=80, seconds=seconds, timeout=10.0, goodput=80)


async def short_timeouts(nodes: list[Node], seconds: float) -> None:
    """4,000/s of functions of 20 ms with timeouts of 2 s; the capacity is 400/s."""
    await _overload(nodes, "fiftieth", rate=4_000, capacity=400, seconds=seconds, timeout=2.0, goodput=60)


async def _overload(
    nodes: list[Node], function: str, *, rate: float, capacity: float, seconds: float, timeout: float, goodput: int
) -> None:
    async with Client(nodes[0].url) as client:
        for _ in range(8):  # the medians of the function are known from then on
            await one(client, Calls(timeout), function)
        unloaded = (await offer(client, function, rate=capacity / 8, seconds=2, timeout=timeout)).quantile(0.5)
        before = [node.memory() for node in nodes]
        half = await offer(client, function, rate=rate, seconds=seconds / 2, timeout=timeout)
        middle = [node.memory() for node in nodes]
        calls = await offer(client, function, rate=rate, seconds=seconds / 2, timeout=timeout)
        after = [node.memory() for node in nodes]
        began = time.perf_counter()
        while True:
            again = Calls(timeout)
            await one(client, again, function)
            if again.count() and again.quantile(1.0) < unloaded + 0.05:
                break
        normal = time.perf_counter() - began
    row("offered", f"{rate:g}/s", f"capacity {capacity:g}/s")
    row("goodput in the second half", f"{calls.count() / (seconds / 2) / capacity:.0%}", f"at least {goodput} %")
    row("refused (1022), p99 of the time until then", f"{calls.quantile(0.99, 1022) * 1e3:.0f} ms", "50 ms")
    row("admitted, p99 beyond the unloaded median", f"{(calls.quantile(0.99) - unloaded) * 1e3:.0f} ms", "150 ms")
    row("the same in the first half", f"{(half.quantile(0.99) - unloaded) * 1e3:.0f} ms")
    row("latest answer after its deadline", f"{max(0.0, calls.latest) * 1e3:.0f} ms", "250 ms")
    row("errors", calls.errors)
    row("memory of the nodes: before, half, after", _mib(before, middle, after), "the last two equal")
    row("normal again after", f"{normal:.2f} s", "5 s")


def _mib(*rows: list[int]) -> str:
    return ", ".join(f"{sum(one) / MIB:.0f}" for one in rows) + " MiB"


async def ten_thousand(nodes: list[Node], seconds: float) -> None:
    """One request of 10,000 calls beside small ones."""
    graph = Graph()
    for number in range(10_000):
        graph.call("echo", number)
    async with Beside(nodes[0].url) as beside, Client(nodes[0].url) as client:
        alone = await beside.alone()
        ends, requests = time.perf_counter() + min(seconds, 5), 0
        while time.perf_counter() < ends:
            assert len(await client.run(graph, timeout=60)) == 10_000
            requests += 1
        small = await beside.since()
    row("requests of 10,000 calls, one after another", str(requests))
    row("small calls: median alone", f"{alone.median * 1e3:.2f} ms")
    row("small calls: median beside", f"{small.median * 1e3:.2f} ms", f"{2 * alone.median * 1e3:.2f} ms")
    row("small calls: latest beside", f"{small.longest * 1e3:.0f} ms", "100 ms")


async def fair_share(nodes: list[Node], seconds: float) -> None:
    """One request of 10,000 calls of 100 ms beside small requests of the same function."""
    graph = Graph()
    for _ in range(10_000):
        graph.call("tenth")
    async with Beside(nodes[0].url, "tenth") as beside, Client(nodes[0].url) as client:
        alone = await beside.alone()
        large = asyncio.ensure_future(client.run(graph, timeout=600))
        await asyncio.sleep(2)
        await beside.since()
        await asyncio.sleep(min(seconds, 15))
        small = await beside.since()
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)
    row("small calls: median alone", f"{alone.median * 1e3:.0f} ms")
    row("small calls: median beside", f"{small.median * 1e3:.0f} ms", f"{2 * alone.median * 1e3:.0f} ms")
    row("small calls: longest beside", f"{small.longest * 1e3:.0f} ms")


async def never_reads(nodes: list[Node], seconds: float) -> None:
    """A client that sends requests for 100 kB each and never reads."""
    before = nodes[0].memory()
    reader, writer = await asyncio.open_connection("127.0.0.1", nodes[0].port)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    body = {"role": "rpc", "cmds": [{"name": "x", "fun": "make", "args": [100_000]}], "u": "x"}
    text = json.dumps(body).encode()
    began, sent = time.perf_counter(), 0
    async with Beside(nodes[0].url) as beside:
        alone = await beside.alone()
        with suppress(OSError):
            while time.perf_counter() - began < 25:
                writer.write(len(text).to_bytes(4, "big") + text)
                sent += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(writer.drain()), 0.2)
                if writer.transport.is_closing():
                    break
        closed = time.perf_counter() - began
        small = await beside.since()
    writer.transport.abort()
    row("closed after", f"{closed:.1f} s", "10 s without progress")
    row("its requests", str(sent))
    row("memory of the node, grown by at most", _mib([nodes[0].memory("VmHWM") - before]), "48 MiB of answers")
    row("small calls: median alone, beside", f"{alone.median * 1e3:.2f}, {small.median * 1e3:.2f} ms")
    row("small calls: latest beside", f"{small.longest * 1e3:.0f} ms", "100 ms")


async def idle_connections(nodes: list[Node], seconds: float) -> None:
    """1,000 idle connections."""
    before = nodes[0].memory()
    clients = [Client(nodes[0].url) for _ in range(1_000)]
    try:
        for start in range(0, len(clients), 50):
            await asyncio.gather(*[client.connect() for client in clients[start : start + 50]])
        grown = nodes[0].memory() - before
        async with Beside(nodes[0].url) as beside:
            small = await beside.alone()
    finally:
        await asyncio.gather(*[client.close() for client in clients])
    row("memory of the node for each connection", f"{grown / 1_000 / 1024:.1f} KiB")
    row("small calls: median beside", f"{small.median * 1e3:.2f} ms")


async def bad_json(nodes: list[Node], seconds: float) -> None:
    """15 MiB of bad JSON, ten times."""
    body = b'{"role":"rpc","cmds":[' + b"[1,2,3]," * (15 * MIB // 8) + b"}"
    async with Beside(nodes[0].url) as beside:
        alone = await beside.alone()
        for _ in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", nodes[0].port)
            writer.write(f"POST /rpc HTTP/1.1\r\n{HEADERS}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            status = await reader.readline()
            assert b" 400 " in status, status
            writer.close()
        small = await beside.since()
    row("small calls: median alone, beside", f"{alone.median * 1e3:.2f}, {small.median * 1e3:.2f} ms")
    row("small calls: latest beside", f"{small.longest * 1e3:.0f} ms", "100 ms")


async def large_values(nodes: list[Node], seconds: float) -> None:
    """64 values of 8 MiB at once."""
    before = [node.memory() for node in nodes]
    calls = Calls(60.0)
    async with Beside(nodes[1].url) as beside, Client(nodes[0].url) as client:
        alone = await beside.alone()
        began = time.perf_counter()
        await asyncio.gather(*[one(client, calls, "make", 8 * MIB) for _ in range(64)])
        took = time.perf_counter() - began
        small = await beside.since()
    row("results, errors", f"{calls.count()}, {calls.errors}", "64, none")
    row("all after", f"{took:.1f} s")
    row("memory of the nodes, grown by at most", _mib([node.memory("VmHWM") for node in nodes], before))
    row("small calls: median alone, beside", f"{alone.median * 1e3:.2f}, {small.median * 1e3:.2f} ms")
    row("small calls: latest beside", f"{small.longest * 1e3:.0f} ms", "100 ms")


SITUATIONS: dict[str, Callable[[list[Node], float], Coroutine[object, object, None]]] = {
    "tenfold": tenfold,
    "short-timeouts": short_timeouts,
    "ten-thousand": ten_thousand,
    "fair-share": fair_share,
    "never-reads": never_reads,
    "idle": idle_connections,
    "bad-json": bad_json,
    "large-values": large_values,
}
