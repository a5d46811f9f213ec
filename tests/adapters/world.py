"""One run: the servers, clients, calls and faults of a plan, and the report if something is wrong with it."""

from __future__ import annotations

import decimal
import gc
import hashlib
import json
import logging
import os
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any
from unittest import mock
from zlib import crc32

import anyio
from anyio.abc import TaskGroup

from mpreg_proto.errors import ErrorCode, Fault, RequestError, exception_for
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_transports import Client, Server
from mpreg_transports.errors import NotConnected
from mpreg_transports.functions import coroutines
from mpreg_transports.functions.registry import FunctionRegistry
from mpreg_transports.functions.threads import use_threads
from mpreg_transports.links import http, tcp
from mpreg_transports.links.base import LinkEnded
from mpreg_transports.runtime.driver import Driver
from tests.adapters import bodies, checks, loops, pairs
from tests.adapters.bodies import (
    OWNER,
    Ledger,
    VirtualExecutor,
    VirtualThreadPool,
    VirtualThreads,
    body,
    generator,
    plain_generator,
)
from tests.adapters.json_clients import JsonLink, post
from tests.adapters.loops import now
from tests.adapters.network import SCHEME, FaultyLink, Network, NetworkHost, unacknowledged
from tests.adapters.plan import ClientPlan, Plan, drawn_plan
from tests.adapters.reconnects import Reconnects

BODY_GRACE = 1.5
"""The seconds after the end of a request by which its coroutines have been cancelled, if nothing else goes wrong."""
LONGEST = 3600.0
"""The virtual seconds after which a run counts as hanging."""


AT_ONCE = 6.0
"""The seconds for a server to end: its links take up to 3 s to be hung up and 2 s to close, bodies 2 s to clean up."""
_LONGEST_TEXT = 70_000
"""The longest JSON text; a link with a small window and a long delay carries a megabyte for many seconds."""
NARROW = 2e5
"""The bytes per second of links on which the last results may take longer."""
PATIENCE = 60.0
"""The seconds that these may take: as many as all the results that are out, one after another."""
DOWN = 32.0
"""The seconds for which a server that goes down stays down."""
MADE_BREAKS = 2
"""The most executors that break of those that a function makes: a third in a row ends what they run."""


_ITEMS = "-items"
"""The end of the name of a generator beside a function of one of these ways."""
_GENERATORS = {"async": generator, "thread": plain_generator}
_LONGEST_USE = 0.5
"""The most seconds for which a client is busy with one item."""


class Record:
    """One request of a client."""

    def __init__(self, id: str, kind: str, client: str, timeout: float | None, wait: float | None) -> None:
        self.id = id
        self.kind = kind
        self.client = client
        self.timeout = timeout
        self.wait = wait
        self.began = now()
        self.ended: float | None = None
        self.specs: list[dict[str, Any]] = []
        """The calls of it, as their bodies get them."""
        self.functions: list[str] = []
        self.outcomes: list[str] = []
        self.cancelled_at: float | None = None
        self.scope = anyio.CancelScope()
        self.partial = False
        self.never = False
        """True if an error of it promised that nothing has started."""

    @property
    def deadline(self) -> float:
        """The time by which it must have ended."""
        return self.began + (60.0 if self.timeout is None else self.timeout)

    def __repr__(self) -> str:
        return f"{self.kind} {self.id} of {self.client} (timeout {self.timeout}, began {self.began:.3f})"


class Node:
    """One server and what runs it."""

    def __init__(self, server: Server, host: str) -> None:
        self.server = server
        self.host = host
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self.ended.set()
        self.background = False
        self.executors: dict[str, VirtualExecutor] = {}
        """The executors that were given to it, by the way of their functions."""
        self.made: list[VirtualExecutor] = []
        """The executors that its functions have made."""
        self.drivers: list[Driver] = []
        """The drivers of its runs so far."""

    @property
    def runs(self) -> bool:
        return not self.ended.is_set()

    @property
    def accepts(self) -> bool:
        """True if clients can use it."""
        return self.runs and self.server._driver is not None and not self.server._is_draining()


class Report:
    """The result of a run."""

    def __init__(self, seed: int, loop: str) -> None:
        self.seed = seed
        self.loop = loop
        self.wrong: list[str] = []
        self.hash = ""
        self.reached: Counter[str] = Counter()
        self.seconds = 0.0
        self.cpu = 0.0
        self.calls = 0
        self.text = ""

    @property
    def line(self) -> str:
        """The failure in one line."""
        return f"seed {self.seed} on {self.loop}: {self.wrong[0] if self.wrong else 'no violation'}"


class World:
    """The parts of one run."""

    def __init__(self, plan: Plan, loop: str) -> None:
        self.plan = plan
        self.loop = loop
        self.draw = Random(f"run {plan.seed}")
        self.wrong: list[str] = []
        self.lines: list[str] = []
        self.actions: list[str] = []
        self.reached: Counter[str] = Counter()
        self.left: list[tuple[str, str]] = []
        self._hash = hashlib.sha256()
        self.ledger = Ledger(self.trace)
        self.network = Network(Random(self.draw.random()), self.trace, self._sent, calm=plan.calm)
        self.network.on_link, self.network.on_close = self._linked, self._closed
        self.reconnects = Reconnects(self)
        self._first: dict[str, str] = {}
        """The server to which each client was connected first."""
        self.records: list[Record] = []
        self.nodes: dict[str, Node] = {}
        self.clients: dict[str, Client] = {}
        self.executors: list[VirtualExecutor] = []
        self.made: list[VirtualExecutor] = []
        """The executors that were made by a function: another one follows when one breaks."""
        self.broken: set[str] = set()
        """The functions that may be withdrawn."""
        self.threads: VirtualThreads
        self.tasks: TaskGroup
        self.healed = False
        """True once no fault may begin any more: the last one may be due when all is well again."""
        self.ending = False
        self.closing: set[str] = set()
        """The clients that are being closed, or are not connected."""
        self.refused = False
        """True if threads or executors have refused bodies."""
        self.stops: list[tuple[str, str, float]] = []
        """The servers that were stopped: which, how, and when."""
        self._made_breaks = 0
        self.json_links: dict[str, list[JsonLink]] = {}
        """The idle links of JSON clients."""
        self._reply_overhead: int | None = None
        """The bytes of a JSON reply to one call beyond its names, numbers and parcel, once one has arrived."""
        self._numbers = 0

    # -- records of the run

    def trace(self, text: str) -> None:
        """Add a line to the trace."""
        line = f"{now():.9f} {text}"
        self.lines.append(line)
        self._hash.update(line.encode())

    def _sent(self, source: str, target: str, data: bytes) -> None:
        self._hash.update(f"{now():.9f} {source} {target} {len(data)} {crc32(data)}".encode())

    def _linked(self, source: str, target: str) -> None:
        self.reconnects.linked(source)
        if source in self.clients:
            self.sometimes("a client reconnected with calls out", source in self._first and self._out(source))
            self.sometimes("a client used another address", self._first.setdefault(source, target) != target)

    def _closed(self, end: FaultyLink) -> None:
        stopped = end.incoming.stopped_at is not None or end.outgoing.stopped_at is not None
        one_way = (end.incoming.stopped_at is None) != (end.outgoing.stopped_at is None)
        self.sometimes("a half-open link was given up", one_way and not self.ending)
        self.sometimes("a silent link was given up", stopped and not one_way and not self.ending)

    def act(self, text: str) -> None:
        """Record an action of the run: a fault, a closing."""
        self.trace(text)
        self.actions.append(self.lines[-1])

    def violation(self, text: str) -> None:
        """Record that something is wrong."""
        self.trace(f"WRONG: {text}")
        self.wrong.append(f"{text} (at {now():.3f} s)")

    def sometimes(self, name: str, condition: object = True) -> None:
        """Count a situation."""
        self.reached[name] += bool(condition)

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()[:16]

    # -- the run

    async def main(self) -> None:
        """Run the plan."""
        async with anyio.create_task_group() as self.tasks:
            try:
                await self._run()
            except Exception as error:
                self.violation(f"the run raised {error!r}: {_where(error)}")
            if self.wrong:
                self.left = self.left or loops.tasks()
                self.tasks.cancel_scope.cancel()

    async def _watch_the_time(self) -> None:
        await anyio.sleep(LONGEST)
        self.left = loops.tasks()
        self.violation(f"the run did not end within {LONGEST} s")
        self.tasks.cancel_scope.cancel()

    async def _run(self) -> None:
        plan = self.plan
        watch = anyio.CancelScope()

        async def watching() -> None:
            with watch:
                await self._watch_the_time()

        self.tasks.start_soon(watching)
        decimal.setcontext(decimal.Context(prec=bodies.DIGITS))
        self.threads = VirtualThreads(self.tasks, Random(self.draw.random()), self.ledger)
        use_threads(self.threads)
        for name in plan.servers:
            await self._make_node(name)
        if plan.calm:
            await anyio.sleep(5.0)  # the servers know each other's functions
        self.tasks.start_soon(self.reconnects.watch)
        async with anyio.create_task_group() as work:
            for client in plan.clients:
                work.start_soon(self._client, client)
            work.start_soon(self._faults)
            if plan.stalls:
                work.start_soon(self._stalls)
            if plan.frames:
                work.start_soon(pairs.exchange, self, Random(self.draw.random()))
        if plan.settles:
            await self._settle()
        if (plan.calm or plan.settles) and not self.wrong:
            await self._probe()
        if not self.wrong:
            await self._end()
        watch.cancel()

    @property
    def grace(self) -> float:
        """The seconds for which calls may go on when their server leaves."""
        return (checks.SMALL if self.plan.small_limits else DEFAULT).drain_grace / SECOND

    # -- servers

    async def _make_node(self, name: str) -> None:
        plan = self.plan
        others = [SCHEME + other for other in plan.servers if other != name]
        limits = checks.SMALL if plan.small_limits else DEFAULT
        host = self.network.host(name)
        server = Server(name=name, peers=others[:2], network=host, codec=bodies.codec(), limits=limits)
        self.nodes[name] = Node(server, name)
        executors = self.nodes[name].executors

        def make() -> VirtualExecutor:
            made = self._executor(VirtualThreadPool)
            self.made.append(made)
            self.nodes[name].made.append(made)
            return made

        for function in plan.functions:
            if name in function.servers:
                options: dict[str, Any] = {}
                if function.way in ("executor", "stdlib"):
                    if function.way not in executors:
                        kind = VirtualExecutor if function.way == "executor" else VirtualThreadPool
                        executors[function.way] = self._executor(kind)
                    options["executor"] = executors[function.way]
                elif function.way == "made":
                    options["executor"] = make
                self._register(server, function.name, name, **options)
        if name in plan.early_leaves:
            server.leave(grace=self.draw.random() < 0.5)
            await self._start(name)
            with anyio.move_on_after(5.0):
                await self.nodes[name].ended.wait()
            if self.nodes[name].runs:
                self.violation(f"{name} goes on although `leave` was called before it ran")
        await self._start(name)

    def _executor(self, kind: type[VirtualExecutor]) -> VirtualExecutor:
        made = kind(self.tasks, Random(self.draw.random()), self.ledger)
        self.executors.append(made)
        return made

    def _register(self, server: Server, function: str, host: str, **options: Any) -> None:
        plan = next(one for one in self.plan.functions if one.name == function)
        if plan.way in _GENERATORS:
            name = f"{function}{_ITEMS}"
            server.register(name, _GENERATORS[plan.way](self.ledger, name, host), replace=True)
        server.register(
            function,
            body(self.ledger, plan.way, function, host),
            idempotent=plan.idempotent,
            concurrency=plan.concurrency,
            inline=plan.way == "inline",
            replace=True,
            **options,
        )

    async def _start(self, name: str) -> None:
        node = self.nodes[name]
        node.scope, node.ended = anyio.CancelScope(), anyio.Event()
        node.background = self.plan.in_background
        self.act(f"{name} starts")
        await self.tasks.start(self._serve, node)
        if node.server._driver is not None:
            node.drivers.append(node.server._driver)

    async def _serve(self, node: Node, *, task_status: Any) -> None:
        OWNER.set(f"node {node.host}")
        try:
            with node.scope:
                if node.background:
                    async with node.server:
                        task_status.started()
                        driver = node.server._driver
                        assert driver is not None
                        await driver.ended.wait()
                else:
                    await node.server.serve(task_status=task_status)
        except Exception as error:
            self.violation(f"{node.host} ended with {error!r}: {_where(error)}")
        finally:
            node.ended.set()
            self.trace(f"{node.host} has ended")

    async def _stop(self, name: str, how: str) -> None:
        """End a server and wait until it has ended."""
        node = self.nodes[name]
        if not node.runs:
            return
        if self.draw.random() < 0.3:
            await self._cancel_calls_at(name)
        if self.plan.stalls and how == "leave":
            await self._stall_before_leave(name)
        self.act(f"{name}: {how}")
        calls = [start for start in self.ledger.running if start.server == name]
        self.sometimes("a server was ended while bodies ran", calls)
        self.sometimes("a server was ended while cancelled bodies cleaned up", any(one.cancelled for one in calls))
        began = now()
        self.stops.append((name, how, began))
        bound = AT_ONCE
        if any(end.outgoing.quality.rate <= NARROW for end in self.network.links(name)):
            bound += PATIENCE  # a peer that takes some of the bytes is waited for
        if how.startswith("kill"):
            self.network.host(name).vanish(silent=how == "kill silently")
            node.scope.cancel()
        elif how == "cancel":
            node.scope.cancel()
        else:
            if how != "leave at once":
                bound += self.grace
            node.server.leave(grace=how != "leave at once")
            if how == "leave twice":
                await anyio.sleep(self.draw.random() * 3.0)
                node.server.leave()
                bound = bound - self.grace + now() - began
        await node.ended.wait()
        for start in self.ledger.running:
            if start.server == name and not start.cancelled:
                self.violation(f"{start.call} was not cancelled when {name} ended by {how!r}")
        if now() - began > bound:
            self.violation(f"{name} took {now() - began:.2f} s to end by {how!r}, at most {bound} s")

    async def _cancel_calls_at(self, name: str) -> None:
        """Cancel the requests whose bodies run on a server, which then clean up while it ends."""
        calls = {start.call.split(".")[0] for start in self.ledger.running if start.server == name}
        for record in self.records:
            if record.id in calls and record.ended is None and record.cancelled_at is None:
                self.trace(f"cancel {record.id}")
                record.cancelled_at = now()
                record.scope.cancel()
        await anyio.sleep(0.4)

    async def _stall_before_leave(self, name: str) -> None:
        """Let the links to clients stand still from before the server leaves until after that."""
        ends = [end for end in self.network.links(name) if end.peer in self.clients]
        for end in ends:
            end.outgoing.pause(min(5.0, self._patience(end.peer)))
            self.sometimes("a link stood still while its node began to leave", end.outgoing.on_the_way)
        if ends:
            self.act(f"stall: {name} to {', '.join(end.peer for end in ends)} for up to 5 s")
            await anyio.sleep(4.0)

    async def _stalls(self) -> None:
        """Let the links of clients stand still now and then, for less than the time after which they are closed."""
        draw = Random(self.draw.random())
        for _ in range(3):
            await anyio.sleep(draw.random() * 8.0)
            ends = [end for end in self.network.links() if end.host in self.clients and self.is_ready(end.host)]
            if ends:
                end = draw.choice(ends)
                self._stall(end, draw.random() * self._patience(end.host), draw)

    def _patience(self, client: str) -> float:
        """Return the seconds for which a link of a client may stand still: with another address it leaves after 3 s."""
        (urls,) = [one.urls for one in self.plan.clients if one.name == client]
        return 1.5 if len(urls) > 1 else 7.0

    def _stall(self, end: FaultyLink, seconds: float, draw: Random) -> None:
        wire = draw.choice((end.incoming, end.outgoing))
        self.act(f"stall: {end.host} {'to' if wire is end.outgoing else 'from'} {end.peer} for {seconds:.1f} s")
        self.sometimes("a link stood still for a while", wire.on_the_way)
        wire.pause(seconds)

    def is_ready(self, client: str) -> bool:
        """Return whether a client has a node."""
        return self.clients[client].is_open and self.clients[client]._session.ready

    # -- clients

    async def _client(self, plan: ClientPlan) -> None:
        await anyio.sleep(plan.opens_at)
        draw = Random(self.draw.random())
        if plan.kind == "native":
            urls = [SCHEME + url for url in plan.urls]
            host = self.network.host(plan.name)
            host.slow = plan.slow
            self.clients[plan.name] = Client(*urls, name=plan.name, network=host, codec=bodies.codec())
            self.closing.add(plan.name)
            await self._connect(plan.name)
        async with anyio.create_task_group() as work:
            for number in range(plan.workers):
                work.start_soon(self._worker, plan, Random(f"{draw.random()} {number}"))
            if plan.closes_at is not None and plan.kind == "native":
                work.start_soon(self._reopen, plan, draw)

    async def _connect(self, name: str) -> None:
        """Connect a client; again after a failure, as its servers may be down."""
        client = self.clients[name]
        while not self.ending:
            self.reconnects.begin(name)
            try:
                await client.connect()
            except (NotConnected, RequestError) as error:
                if self.plan.calm:
                    self.violation(f"{name} cannot connect, and nothing is wrong: {error!r}")
                await anyio.sleep(0.5)
            else:
                self.closing.discard(name)
                return

    async def _reopen(self, plan: ClientPlan, draw: Random) -> None:
        assert plan.closes_at is not None
        await anyio.sleep(max(0.0, plan.closes_at - now()))
        self.sometimes("a client was closed while its calls were out", self._out(plan.name))
        await self._close(plan.name, "close")
        await anyio.sleep(draw.random() * 2.0)
        await self._connect(plan.name)

    def _out(self, client: str) -> list[Record]:
        return [one for one in self.records if one.client == client and one.ended is None]

    async def _close(self, name: str, how: str) -> None:
        self.act(f"{name}: {how}")
        began = now()
        self.closing.add(name)
        with anyio.move_on_after(0 if how == "cancel" else 1000):
            await self.clients[name].close()
        if now() - began > 4.5:
            self.violation(f"{name} took {now() - began:.2f} s to close")
        going_on = [one for one in self._out(name) if one.cancelled_at is None]
        if going_on:  # one that uses items still gets those that had arrived
            await anyio.sleep(17 * _LONGEST_USE if any(one.kind == "items" for one in going_on) else 0.001)
            for record in self._out(name):
                if record.began <= began and record.cancelled_at is None:
                    self.violation(f"{record!r} goes on after its client was closed")

    async def _worker(self, plan: ClientPlan, draw: Random) -> None:
        for _ in range(plan.calls):
            if self.ending or self.wrong:
                return
            if draw.random() < 0.7:
                await anyio.sleep(draw.random() * draw.choice((0.01, 0.3, 3.0)))
            if self.plan.idles and draw.random() < 0.4:
                await anyio.sleep(11.0 + draw.random() * 35.0)
            await self.request(plan, draw)

    # -- requests

    async def request(
        self, plan: ClientPlan, draw: Random, *, sure: bool = False, probe: str = "", function: str = ""
    ) -> None:
        """Make one request, maybe cancel it, and check its outcome.

        A `sure` one must succeed; a `probe` is one call of this function, whose time is checked;
        `function` has all calls.
        """
        self._numbers += 1
        kinds = ("call", "call", "call", "graph", "graph", "partial", "parts", "stream", "explain", "view")
        kind = draw.choice(kinds) if plan.kind == "native" else plan.kind
        timeout = draw.choice((None, None, 90.0, 20.0, 3.0, 0.5, 0.05, 0.002))
        if plan.slow:
            kind, timeout = "call" if plan.kind == "native" else kind, 300.0
        if sure or probe:
            kind, timeout = draw.choice(("call", "graph")) if plan.kind == "native" else kind, 90.0
        record = Record(f"r{self._numbers}", kind, plan.name, timeout, draw.choice((None, 5.0)))
        if sure:
            record.wait = 20.0
        if probe:
            record.kind = "call"
        self._draw_calls(record, draw, plan)
        if function:
            record.functions = [function for _ in record.specs]
        if plan.kind == "native" and not (plan.slow or sure or probe or function):
            self._draw_items(record)
        if probe:
            record.functions = [probe]
            record.specs = [
                {
                    **record.specs[0],
                    "size": 10,
                    "pad": "",
                    "pad_size": 0,
                    "seconds": 0.02,
                    "raises": False,
                    "inputs": [],
                }
            ]
        self.records.append(record)
        cancel = None
        if not sure and not probe and draw.random() < 0.25:
            cancel = draw.choice(("time", "start", "reply"))
        scope, watch = record.scope, anyio.CancelScope()
        self.trace(f"{record!r} of {', '.join(record.functions)}; cancel by {cancel}")
        async with anyio.create_task_group() as beside:
            if cancel is not None:
                beside.start_soon(self._cancel, record, scope, watch, cancel, Random(draw.random()))
            with scope:
                await self._outcome(record, plan, draw)
            record.ended = now()
            if scope.cancelled_caught:
                record.outcomes.append("cancelled")
            watch.cancel()
        self.trace(f"{record.id} ended: {'; '.join(record.outcomes)}")
        drivers = [node.server._driver for node in self.nodes.values()]
        self.sometimes(
            "a link was not read for a while", any(one is not None and one._links._paused for one in drivers)
        )
        sessions = [client._session for client in self.clients.values()]
        self.sometimes(
            "a request waited at its client for credit", any(one.ready and len(one._unsent) for one in sessions)
        )
        checks.request_ended(self, record, sure=sure or bool(probe))
        if probe:
            checks.latency(self, record)
        if self.plan.calm and not self.plan.stalls and not plan.slow and not self.ending:
            self.tasks.start_soon(self._bodies_end, record)

    async def _bodies_end(self, record: Record) -> None:
        """Check that no body of a request goes on after its end."""
        await anyio.sleep(BODY_GRACE)
        for start in self.ledger.running:
            if start.call.startswith(f"{record.id}.") and not start.cancelled and not self.ending:
                self.violation(f"{start.call} of {record!r} still runs {BODY_GRACE} s after its request has ended")

    def _draw_calls(self, record: Record, draw: Random, plan: ClientPlan) -> None:
        many = 1 if record.kind in ("call", "view") or plan.slow else draw.randint(1, 5)
        for number in range(many):
            kind = draw.random()
            size = draw.choice((0, 10, 10, 3_000, 200_000 if kind < (0.5 if self.plan.stalls else 0.1) else 10))
            pad = draw.choice((0, 0, 0, 100, 200_000 if kind > 0.95 else 0))
            if plan.slow:
                # In JSON a character may take six bytes, and the body of a POST has 60 s.
                long = 550_000 if plan.kind == "native" else 100_000
                size, pad = draw.choice((10, 200_000, 550_000)), draw.choice((0, 0, 0, long))
            record.functions.append(draw.choice(self.plan.functions).name)
            record.specs.append(
                {
                    "call": f"{record.id}.{number}",
                    "number": draw.randint(0, 1000),
                    "seconds": bodies.drawn_seconds(draw),
                    "raises": draw.random() < (0.3 if record.kind == "parts" else 0.05),
                    "cleanup": draw.choice((0.0, 0.0, 0.01, 1.0, 5.0)),
                    "swallows": draw.random() < 0.15,
                    "size": size,
                    "pad": draw.choice("pé") * pad,
                    "pad_size": pad,
                    "inputs": [one for one in range(number) if draw.random() < 0.4],
                }
            )

    def _draw_items(self, record: Record) -> None:
        """Let some requests be calls of generators. Their draws are apart, so that all others stay as they were."""
        draw = Random(f"items {self.plan.seed} {record.id}")
        functions = [one.name for one in self.plan.functions if one.way in _GENERATORS]
        if functions and draw.random() < 0.15:
            record.kind, record.functions = "items", [draw.choice(functions) + _ITEMS]
            record.specs = [{**record.specs[0], "inputs": []}]

    async def _items(self, record: Record, options: dict[str, Any]) -> dict[str, Any]:
        """Use the items of a generator one by one, sometimes only the first ones, or as a list."""
        draw = Random(f"use items {self.plan.seed} {record.id}")
        client, function, spec = self.clients[record.client], record.functions[0], record.specs[0]
        many = draw.choice((0, 1, 15, 16, 17, 60))
        leave = draw.randrange(many + 1) if draw.random() < 0.3 else None
        found: list[Any] = []
        if draw.random() < 0.3:
            self.ledger.taken[spec["call"]] = many  # its node uses them
            found = await client.call(function, spec, many, **options)
        else:
            async for item in client.items(function, spec, many, **options):
                found.append(item)
                self.ledger.taken[spec["call"]] = len(found)
                if leave == len(found) - 1:
                    self.sometimes("a generator was left early")
                    record.partial = True
                    return {}
                if draw.random() < 0.2 and record.timeout is None:
                    await anyio.sleep(draw.random() * draw.choice((0.01, _LONGEST_USE)))
        if [one for one in found if type(one) is int] != list(range(many)) or len(found) != many + 1:
            self.violation(f"{record!r} returned the items {str(found)[:200]}, expected {many} numbers and a result")
        self.sometimes("a generator produced all of its items")
        way = next(one.way for one in self.plan.functions if one.name + _ITEMS == function)
        self.sometimes("a plain generator waited for its consumer", way == "thread" and many > 16)
        return {spec["call"]: found[-1]}

    async def _cancel(self, record: Record, scope: Any, watch: Any, how: str, draw: Random) -> None:
        with watch:
            if how == "start":
                while not any(spec["call"] in self.ledger.starts for spec in record.specs):
                    await self.ledger.changed.wait()
                await anyio.sleep(draw.choice((0.0, 0.0, 0.001, 0.5)))
                running = any(start.call.startswith(f"{record.id}.") for start in self.ledger.running)
                self.sometimes("a cancel came while a body ran", running)
            elif how == "reply":
                await anyio.sleep(draw.choice((0.0, 0.0004, 0.001, 0.002)))
            else:
                await anyio.sleep(draw.random() * draw.choice((0.01, 1.0, 5.0)))
            record.cancelled_at = now()
            self.trace(f"cancel {record.id}")
            scope.cancel()

    async def _outcome(self, record: Record, plan: ClientPlan, draw: Random) -> None:
        """Run the request and record how it ended, once."""
        try:
            values = await self._values(record, plan, draw)
        except RequestError as error:
            checks.failure(self, record, error)
            record.outcomes.append(f"{type(error).__name__} {error.details.get('maybe_executed')}")
        except LinkEnded as end:
            if plan.kind == "native":
                self.violation(f"{record!r} raised {end!r}")
            record.outcomes.append(f"link ended: {end.reason}")
        except RuntimeError as error:
            if plan.name not in self.closing and plan.kind == "native":
                self.violation(f"{record!r} raised {error!r}: {_where(error)}")
            record.outcomes.append("not connected")
        except Exception as error:
            self.violation(f"{record!r} raised {error!r}: {_where(error)}")
        else:
            checks.values(self, record, values)
            record.outcomes.append("returned")

    async def _values(self, record: Record, plan: ClientPlan, draw: Random) -> dict[str, Any]:
        """Return the results by call."""
        options: dict[str, Any] = {"timeout": record.timeout, "wait": record.wait}
        if plan.kind != "native":
            return await self._json(record, plan, draw)
        client = self.clients[plan.name]
        if record.kind == "view":
            await client.view()
            return {}
        if record.kind == "items":
            return await self._items(record, options)
        if record.kind == "call":
            spec = record.specs[0]
            return {spec["call"]: await client.call(record.functions[0], spec, **options)}
        graph = client.graph()
        handles: list[Any] = []
        for spec, function in zip(record.specs, record.functions, strict=True):
            inputs = [handles[one]["number"] for one in spec["inputs"]]
            handles.append(graph.call(function, spec, *inputs, name=spec["call"]))
        if record.kind == "explain":
            await client.explain(graph)
            return {}
        if record.kind == "stream":
            values = {}
            leave = draw.random() < 0.3
            async for name, value in client.stream(graph, **options):
                values[name] = value
                if leave:
                    self.sometimes("a stream was left early")
                    record.partial = True
                    break
            return values
        if record.kind == "parts":
            return await self._parts(record, graph, handles, draw, options)
        if record.kind == "partial":
            record.partial = True
            answer = await client.answer(graph, on_error="partial", **options)
            for name, error in answer.errors.items():
                checks.failure(self, record, error)
                self.trace(f"{name} has {type(error).__name__}")
            return answer.values
        found: dict[str, Any] = await client.run(graph, **options)
        return found

    async def _parts(
        self, record: Record, graph: Any, handles: list[Any], draw: Random, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask for some results, and for parts of others, and let the value of a failed call be its error."""
        record.partial = True
        wanted = draw.sample(range(len(handles)), draw.randint(1, len(handles)))
        whole = [draw.random() < 0.5 for _ in wanted]
        outputs = [
            handles[one] if all_of else handles[one]["number"] for one, all_of in zip(wanted, whole, strict=True)
        ]
        found = await self.clients[record.client].run(graph, *outputs, on_error="partial", **options)
        values = {}
        for one, all_of, value in zip(wanted, whole, [found] if len(wanted) == 1 else found, strict=True):
            if isinstance(value, RequestError):
                checks.failure(self, record, value)
                self.sometimes("a part of a failed call's result was asked for", not all_of)
            elif all_of:
                values[record.specs[one]["call"]] = value
            elif value != (expected := checks.numbers(record)[record.specs[one]["call"]]):
                self.violation(f"{record!r} returned {value!r} for a part, expected {expected}")
        return values

    async def _json(self, record: Record, plan: ClientPlan, draw: Random) -> dict[str, Any]:
        """Return the results of a request in JSON, over a link that serves several of them, or by POST."""
        calls = []
        for spec, function in zip(record.specs, record.functions, strict=True):
            inputs = [{"$ref": record.specs[one]["call"], "path": ["number"]} for one in spec["inputs"]]
            calls.append({"name": spec["call"], "fun": function, "args": [spec, *inputs], "kwargs": {}, "locs": []})
        message: dict[str, Any] = {"role": "rpc", "refs": "explicit", "cmds": calls, "u": record.id}
        message.update({key: value for key, value in (("timeout", record.timeout), ("wait", record.wait)) if value})
        if not plan.slow and len(calls) == 1 and self._reply_overhead is not None and draw.random() < 0.5:
            spec, number = record.specs[0], checks.numbers(record)[record.specs[0]["call"]]
            known = self._reply_overhead + 2 * len(spec["call"]) + len(str(number)) + len(record.id)
            spec["size"] = max(spec["size"], pairs.edge(draw, most=_LONGEST_TEXT) - known)
        text = json.dumps(message, ensure_ascii=draw.random() < 0.5)
        if not plan.slow and draw.random() < 0.5:  # a slow link would carry some of them for a minute
            text += " " * (pairs.edge(draw, most=_LONGEST_TEXT) - len(text.encode()))
        self.sometimes("a JSON request at an edge of WebSocket frames", len(text.encode()) in pairs.EDGES)
        host, address = self.network.host(plan.name), SCHEME + plan.urls[0]
        host.slow = plan.slow
        with anyio.move_on_after(record.deadline - now() + 4.0):
            if plan.kind == "post":
                stream = await self.network.open_stream(host, address, "http")
                try:
                    answer = (await post(stream, text.encode())).decode()
                finally:
                    await stream.aclose()
            else:
                answer = await self._ask(plan.name, host, address, text, draw)
            reply = json.loads(answer)
            self.sometimes("a JSON reply at an edge of WebSocket frames", len(answer.encode()) in pairs.EDGES)
            if len(calls) == 1 and reply["error"] is None and self._json_values(record, reply) is not None:
                spec, number = record.specs[0], checks.numbers(record)[record.specs[0]["call"]]
                known = 2 * len(spec["call"]) + len(str(number)) + len(record.id) + spec["size"]
                self._reply_overhead = len(answer.encode()) - known
            return self._json_values(record, reply)
        fault = Fault(ErrorCode.DEADLINE_EXCEEDED, "no answer", {})
        self.violation_unless_faulty(f"{record!r} got no answer over its JSON link")
        raise exception_for(fault)

    async def _ask(self, client: str, host: NetworkHost, address: str, text: str, draw: Random) -> str:
        """Return the answer over an idle link of this client, or over a new one."""
        idle = self.json_links.setdefault(client, [])
        while idle and idle[-1].end is not None:
            self.violation_unless_faulty(f"an idle JSON link of {client} has ended: {idle[-1].end.reason}")
            idle.pop()
        if idle:
            link = idle.pop()
            self.sometimes("a JSON link carried another request")
        else:
            link = JsonLink(await self.network.open_classic(host, address, real=draw.random() < 0.7))
            self.tasks.start_soon(link.read)
        try:
            answer = await link.ask(text)
        except BaseException:
            await link.close()
            raise
        idle.append(link)
        return answer

    def violation_unless_faulty(self, text: str) -> None:
        """Record a violation in a calm run, before its end."""
        if self.plan.calm and not self.ending:
            self.violation(text)

    def _json_values(self, record: Record, reply: dict[str, Any]) -> dict[str, Any]:
        if reply["u"] != record.id:
            self.violation(f"{record!r} got the answer to {reply['u']!r}")
        if reply["error"] is not None:
            error = reply["error"]
            raise exception_for(Fault(error["code"], error["message"], error["details"]))
        found: dict[str, Any] = reply["r"]
        return found

    # -- faults

    async def _faults(self) -> None:
        for at, kind in self.plan.faults:
            await anyio.sleep(max(0.0, at - now()))
            self.tasks.start_soon(self._fault, kind)
        if any(kind == "down" for _, kind in self.plan.faults):
            await anyio.sleep(DOWN)

    async def _fault(self, kind: str) -> None:
        draw = self.draw
        links = self.network.links()
        running = [name for name, node in self.nodes.items() if node.runs]
        if self.ending or self.healed:
            return
        if kind in ("half-open", "silent link", "reset"):
            if not links:
                return
            end = draw.choice(links)
            self.act(f"{kind}: {end.host} to {end.peer}")
            self.sometimes(f"{kind} of a client's link while its calls were out", self._out(end.host))
            if kind == "reset":
                end.break_()
            else:
                end.outgoing.stop()
                if kind == "silent link":
                    end.incoming.stop()
        elif kind == "cut":
            one, other = draw.choice(self.plan.servers), draw.choice([*self.plan.servers, *self.clients])
            self.act(f"cut: {one} and {other}")
            self.network.cut.add((min(one, other), max(one, other)))
            for end in self.network.links(one):
                if end.peer == other:
                    end.break_()
            await anyio.sleep(draw.random() * 8.0)
            self.network.cut.discard((min(one, other), max(one, other)))
        elif kind == "refuse threads":
            self.act(kind)
            self.threads.refuses, self.refused = 0.5, True
            await anyio.sleep(1.0)
            self.threads.refuses = 0.0
        elif kind == "refuse executor":
            self.act(kind)
            self.refused = True
            for executor in self.executors:
                executor.refuses = True
            await anyio.sleep(1.0)
            for executor in self.executors:
                executor.refuses = False
        elif kind == "break made executor":
            working = [one for one in self.made if not one.broken]
            if working and self._made_breaks < MADE_BREAKS:
                self._made_breaks += 1
                self.refused = True
                executor = max(working, key=lambda one: one.busy)
                self.act(kind)
                self.sometimes("a made executor broke while bodies ran", executor.busy > 1)
                executor.broken = True
        elif kind == "break executor":
            given = [one for one in self.executors if one not in self.made]
            if given:
                executor = draw.choice(given)
                self.act(kind)
                self.sometimes("an executor broke while bodies ran", executor.busy)
                executor.broken = self.refused = True
                self.broken.update(one.name for one in self.plan.functions if one.way in ("executor", "stdlib"))
        elif kind in ("replace function", "withdraw function"):
            self._change_function(kind, running)
        elif kind == "stall":
            if links:
                self._stall(draw.choice(links), draw.random() * 8.0, draw)
        elif kind == "bounce":
            await self._bounce(draw)
        elif running:
            name = draw.choice(running)
            await self._stop(name, "kill" if kind == "down" else kind)
            await anyio.sleep(DOWN if kind == "down" else draw.random() * 4.0)
            if not self.ending and not self.nodes[name].runs:
                await self._start(name)

    async def _bounce(self, draw: Random) -> None:
        """Reset the links of one client again and again; each time it finds its node again."""
        if not self.clients:
            return
        name = draw.choice(list(self.clients))
        self.act(f"bounce: {name}")
        for _ in range(12):
            for end in self.network.links(name):
                end.break_()
            await anyio.sleep(0.5 + draw.random())

    def _change_function(self, kind: str, running: list[str]) -> None:
        plan = self.draw.choice(self.plan.functions)
        hosts = [name for name in plan.servers if name in running]
        if not hosts or plan.way in ("executor", "stdlib", "made"):
            return
        host = self.draw.choice(hosts)
        server = self.nodes[host].server
        self.act(f"{kind}: {plan.name} on {host}")
        self.sometimes(f"{kind} while its bodies ran", any(one.function == plan.name for one in self.ledger.running))
        if kind == "replace function" or plan.name not in server.functions:
            self._register(server, plan.name, host)
        else:
            server.unregister(plan.name)
            self.broken.add(plan.name)

    # -- the end

    async def _settle(self) -> None:
        """Let all be well again; then every call must succeed, and nothing of earlier calls may be left."""
        self.healed = True
        self.act("all is well again")
        self.network.heal()
        for client in list(self.json_links):  # a JSON client notices no half-open link
            await self._close_one(client, "close")
        for name, node in self.nodes.items():
            if not node.runs:
                await self._start(name)
        await anyio.sleep(30.0)
        functions = [one.name for one in self.plan.functions if one.name not in self.broken]
        for client in self.plan.clients:
            if client.name in self.closing and client.kind == "native":
                await self._connect(client.name)
            if functions:
                await self.request(client, Random(self.draw.random()), sure=True)
            for one in self.plan.functions:
                if one.way in ("executor", "stdlib") and one.name in self.broken:
                    await self.request(client, Random(self.draw.random()), function=one.name)
        await anyio.sleep(15.0)
        checks.quiet(self)

    async def _probe(self) -> None:
        """Make calls one after another while nothing else happens, and check how long they take."""
        await anyio.sleep(15.0)
        while any(end.outgoing.on_the_way for end in self.network.links()) and now() < LONGEST / 2:  # noqa: ASYNC110
            await anyio.sleep(1.0)  # replies to cancelled calls
        draw = Random(self.draw.random())
        functions = [one.name for one in self.plan.functions if one.name not in self.broken]
        for client in self.plan.clients:
            for function in functions:
                if client.kind == "native" and self.is_ready(client.name) and not self.wrong:
                    await self.request(client, draw, probe=function)
        await anyio.sleep(15.0)

    async def _end(self) -> None:
        plan = self.plan
        async with anyio.create_task_group() as last:
            if plan.rude:
                for client in plan.clients:
                    for _ in range(3):
                        last.start_soon(self.request, client, Random(self.draw.random()))
                await anyio.sleep(self.draw.random() * self.draw.choice((0.001, 0.1, 1.0)))
            self.ending = True
            self.act("the end begins")
            async with anyio.create_task_group() as closing:
                for who, how in plan.ending:
                    if plan.together:
                        closing.start_soon(self._close_one, who, how)
                    else:
                        await self._close_one(who, how)
                    if self.draw.random() < 0.5:
                        await anyio.sleep(self.draw.random() * self.draw.choice((0.001, 1.0)))
        for client in list(self.json_links):
            await self._close_one(client, "close")
        self.sometimes("a writer waited for its peer", self.network.waited)
        await self._wait_for_threads()
        await anyio.sleep(10.0)
        checks.left(self)

    async def _close_one(self, who: str, how: str) -> None:
        if who in self.nodes:
            await self._stop(who, how)
        elif who in self.clients:
            await self._close(who, how)
        else:
            for link in self.json_links.pop(who, ()):
                await link.close()

    async def _wait_for_threads(self) -> None:
        while self.threads.busy or any(one.busy for one in self.executors):  # noqa: ASYNC110
            await anyio.sleep(0.5)


def run(seed: int, loop: str) -> Report:
    """Run a seed; return its report."""
    plan = drawn_plan(seed)
    report = Report(seed, loop)
    begun = time.process_time()
    bodies.LIVE.clear()
    made: list[World] = []

    async def main() -> None:
        world = World(plan, loop)
        made.append(world)
        await world.main()
        report.seconds = now()

    wrong: list[str] = []
    with _logged_errors(wrong), _seeded_system(seed), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            loops.run(main, loop=loop, seed=seed)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong.append(f"the event loop raised {error!r}: {_where(error)}")
    world = made[0]
    wrong += [f"warning: {one.message}" for one in warned]
    report.wrong = world.wrong + wrong
    report.hash = world.hash
    report.reached = world.reached
    report.calls = len(world.records)
    world_left, actions, lines = world.left, world.actions, world.lines
    del world
    made.clear()
    abandoned = coroutines._abandoned
    for one in abandoned:
        with suppress(BaseException):
            one.close()  # type: ignore[attr-defined]
    abandoned.clear()
    if not report.wrong and bodies.LIVE:
        gc.collect()
        if bodies.LIVE:
            report.wrong.append(f"values are kept: {list(bodies.LIVE)[:3]}")
    report.cpu = time.process_time() - begun
    if report.wrong:
        report.text = report_text(report, plan, actions, lines, world_left)
    return report


def report_text(report: Report, plan: Plan, actions: list[str], lines: list[str], left: list[tuple[str, str]]) -> str:
    """Return the report of a failure."""
    found = [f"seed {report.seed} on {report.loop}, {report.calls} requests, trace {report.hash}"]
    found += ["wrong:", *(f"  {one}" for one in report.wrong[:20])]
    found += ["drawn:", *(f"  {one}" for one in plan.lines())]
    found += ["last actions:", *(f"  {one}" for one in actions[-10:])]
    found += ["last events:", *(f"  {one}" for one in lines[-25:])]
    found += ["tasks at that time:", *(f"  {name}: {stack}" for name, stack in left)]
    return "\n".join([*found, f"again: {again(report)}"])


def again(report: Report) -> str:
    """Return the command that runs the seed again."""
    return f"uv run python -m tests.adapters --start {report.seed} --seeds 1 --loop {report.loop}"


@contextmanager
def _seeded_system(seed: int) -> Iterator[None]:
    """Draw the masks of frames and the nonces of handshakes from the seed; let the date of responses stand.

    And let the streams of this network say what their peers have taken.
    """
    draw = Random(f"system {seed}")
    with (
        mock.patch.object(os, "urandom", draw.randbytes),
        mock.patch.object(http, "formatdate", lambda usegmt: "now"),
        mock.patch.object(tcp, "_unacknowledged", unacknowledged),
        mock.patch.object(FunctionRegistry, "unchecked", lambda self: {}),  # a thread would find out, which has no time
    ):
        yield


@contextmanager
def _logged_errors(wrong: list[str]) -> Iterator[None]:
    """Add each logged error of the package to `wrong`."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                error = record.exc_info[1] if record.exc_info else None
                more = "" if error is None else f": {error!r}: {_where(error)}"
                wrong.append(f"logged: {record.getMessage()}{more}")

    handler = Handler()
    loggers = [logging.getLogger(name) for name in ("mpreg", "mpreg_transports", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True


def _where(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return f"{error!r} at " + " > ".join(f"{one.filename.rsplit('/', 1)[-1]}:{one.lineno} {one.name}" for one in frames)
