"""One run: five nodes behind proxies, clients with mixed graphs, faults from a seed, and what is checked at the end.

A request is checked by its own clock: it must end once, at most 250 ms after its deadline. The harness itself may be
late on a busy machine, so its own lag is measured beside and reported.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mpreg_transports import Client, Graph, MpregError, NotConnected, RequestError
from tests.chaos.ledger import starts
from tests.chaos.proxy import Proxy

ROOT = Path(__file__).parents[2]
NODES = 5
CLIENTS = 4
LATE = 0.25
"""The seconds after its deadline by which a request has ended."""
LONG, SHORT = 20.0, 2.0
"""The timeouts of requests, in seconds. Nothing can be said of the success of those with the short one."""
KINDS = ("safe", "plain", "chain", "fan", "once", "mixed")


@dataclass
class Outcome:
    """One request and its end. `error` is the code of its error, 0 for a result."""

    kind: str
    timeout: float
    once: list[str]
    """The ids of its bodies that are not idempotent."""
    ended: float = 0.0
    """Seconds after it was sent."""
    error: int = 0
    text: str = ""
    maybe_executed: bool = False
    wrong: str = ""

    @property
    def idempotent(self) -> bool:
        """True if all its functions are."""
        return not self.once


@dataclass
class Report:
    """The findings of a run."""

    seed: int
    outcomes: list[Outcome] = field(default_factory=list)
    unfinished: int = 0
    lag: float = 0.0
    """The most seconds by which the harness itself was late."""
    faults: Counter[str] = field(default_factory=Counter)
    bodies: Counter[str] = field(default_factory=Counter)

    def problems(self) -> Iterator[str]:
        """Yield what must never be, whatever the faults were."""
        if self.unfinished:
            yield f"{self.unfinished} requests never ended"
        for one in self.outcomes:
            if one.wrong:
                yield f"a {one.kind} request: {one.wrong}"
            for body in one.once:
                if self.bodies[body] > 1:
                    yield f"{body}, which is not idempotent, started {self.bodies[body]} times"
                if not one.error and self.bodies[body] != 1:
                    yield f"{body} has a result and started {self.bodies[body]} times"
                if one.error and not one.maybe_executed and self.bodies[body]:
                    yield f"{body} started, and its error {one.error} promised that it had not: {one.text}"

    @property
    def latest(self) -> float:
        """The most seconds by which a request ended after its deadline; negative if all ended before."""
        return max((one.ended - one.timeout for one in self.outcomes), default=0.0)

    def success(self) -> float:
        """Return the share of requests of idempotent functions, with the long timeout, that had a result."""
        judged = [one for one in self.outcomes if one.idempotent and one.timeout == LONG]
        return sum(not one.error for one in judged) / max(1, len(judged))


class Node:
    """One node process behind its proxy."""

    def __init__(self, number: int, ledger: Path, proxy: Proxy, offers: tuple[int, ...] | None = None) -> None:
        self.number = number
        self.proxy = proxy
        self._offers = (number, (number + 1) % NODES) if offers is None else offers
        """The numbers of its functions; with its own and the next one, two nodes offer each."""
        self._ledger = ledger
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """The address of the proxy, which the node advertises."""
        return f"ws://127.0.0.1:{self.proxy.port}"

    async def start(self, peers: list[str]) -> None:
        """Start the process, on the port of an earlier one if there was one; return when it listens."""
        arguments = {
            "name": f"n{self.number}",
            "port": self.proxy.target,
            "advertise": self.url,
            "peers": peers,
            "ledger": str(self._ledger),
            "offers": self._offers,
        }
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "tests.chaos.node", json.dumps(arguments)]
        self._process = subprocess.Popen(  # noqa: ASYNC220
            command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        if not line:
            raise RuntimeError(f"n{self.number} ended before it listened")
        self.proxy.target = json.loads(line)["port"]

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> None:
        """Wait until the process has ended by itself."""
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    def kill(self) -> None:
        """Send SIGKILL, and wait until the system has closed all its resources."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


class Chaos:
    """The nodes, their faults and the requests of one run."""

    def __init__(self, folder: Path, *, seed: int, rate: float, faults: tuple[str, ...], pause: float) -> None:
        self.report = Report(seed)
        self._ledger = folder
        self._rate = rate
        self._pause = pause
        self._random = random.Random(seed)
        self._requests = random.Random(seed + 1)
        self._faults: list[Callable[[], Coroutine[object, object, None]]] = [
            {"kill": self._kill, "stop": self._stop, "links": self._break_links}[one] for one in faults
        ]
        self._nodes: list[Node] = []
        self._sent = 0

    async def run(self, seconds: float) -> Report:
        """Send requests and inject faults for so long; wait for the last ones to end."""
        async with self._cluster(), self._clients() as clients:
            loop = asyncio.get_running_loop()
            ends = loop.time() + seconds
            lag = asyncio.ensure_future(self._measure_lag())
            faults = asyncio.ensure_future(self._inject(ends))
            pending: set[asyncio.Task[None]] = set()
            due = loop.time()
            while due < ends:
                await asyncio.sleep(max(0.0, due - loop.time()))
                due += 1 / self._rate
                task = asyncio.ensure_future(self._request(self._requests.choice(clients)))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await faults
            _, late = await asyncio.wait(pending, timeout=2 * LONG) if pending else ((), ())
            self.report.unfinished = len(late)
            lag.cancel()
        self.report.bodies = starts(self._ledger)
        return self.report

    # -- nodes and clients --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _cluster(self) -> AsyncIterator[None]:
        proxies = [Proxy() for _ in range(NODES)]
        try:
            for number, proxy in enumerate(proxies):
                await proxy.start()
                node = Node(number, self._ledger, proxy)
                self._nodes.append(node)
                await node.start([one.url for one in self._nodes[:number]])
            async with Client(self._nodes[0].url) as client:
                for number in range(NODES):
                    await client.call(f"safe-{number}", "ready", wait=20, timeout=20)
            yield
        finally:
            for node in self._nodes:
                node.kill()
            for proxy in proxies:
                await proxy.close()

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[list[Client]]:
        clients: list[Client] = []
        try:
            for number in range(CLIENTS):
                urls = [self._nodes[number].url, self._nodes[(number + 2) % NODES].url]
                clients.append(await Client(*urls).connect())
            yield clients
        finally:
            for client in clients:
                await client.close()

    async def _measure_lag(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            self.report.lag = max(self.report.lag, time.monotonic() - began - 0.05)

    # -- requests -----------------------------------------------------------------------------------------------------

    def _graph(self, kind: str) -> tuple[Graph, list[str], str]:
        """Return the graph of a kind, the ids of its bodies that are not idempotent, and its expected result."""
        self._sent += 1
        graph, ids, tag = Graph(), list[str](), f"r{self._sent}"
        at = self._requests.randrange(NODES)
        if kind == "fan":
            parts = [graph.call(f"safe-{(at + one) % NODES}", f"{tag}.{one}") for one in range(4)]
            graph.call(f"safe-{at}", tag, *parts)
        elif kind == "chain":
            first = graph.call(f"safe-{at}", f"{tag}.0")
            graph.call(f"plain-{(at + 2) % NODES}", tag, graph.call(f"safe-{(at + 1) % NODES}", f"{tag}.1", first))
        elif kind == "mixed":
            ids.append(f"{tag}.once")
            first = graph.call(f"safe-{at}", f"{tag}.0")
            graph.call(f"safe-{(at + 2) % NODES}", tag, graph.call(f"once-{(at + 1) % NODES}", ids[0], first))
        elif kind == "once":
            ids.append(tag)
            graph.call(f"once-{at}", tag)
        else:
            graph.call(f"{kind}-{at}", tag)
        return graph, ids, tag

    async def _request(self, client: Client) -> None:
        kind = self._requests.choice(KINDS)
        graph, once, expected = self._graph(kind)
        outcome = Outcome(kind, self._requests.choice((LONG, LONG, LONG, SHORT)), once)
        began = time.monotonic()
        try:
            results = await client.run(graph, timeout=outcome.timeout)
            if list(results.values()) != [expected]:
                outcome.wrong = f"the result is {results!r}, not {expected!r}"
        except RequestError as error:
            outcome.error, outcome.text = error.code, str(error)
            outcome.maybe_executed = bool(error.details.get("maybe_executed"))
        except (NotConnected, MpregError) as error:
            outcome.wrong = f"{type(error).__name__}: {error}"
        outcome.ended = time.monotonic() - began
        self.report.outcomes.append(outcome)

    # -- faults -------------------------------------------------------------------------------------------------------

    async def _inject(self, ends: float) -> None:
        """Begin a fault every few seconds, one after another."""
        loop = asyncio.get_running_loop()
        while self._faults and loop.time() + self._pause < ends:
            began = loop.time()
            await self._random.choice(self._faults)()
            await asyncio.sleep(max(0.0, self._pause - (loop.time() - began)))

    async def _kill(self) -> None:
        """Kill a node and start it again."""
        node = self._random.choice(self._nodes)
        self.report.faults["SIGKILL"] += 1
        node.kill()
        await node.start([one.url for one in self._nodes if one is not node])

    async def _stop(self) -> None:
        """Stop a node for two to eight seconds."""
        node, seconds = self._random.choice(self._nodes), self._random.uniform(2, 8)
        self.report.faults["SIGSTOP"] += 1
        node.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        node.signal(signal.SIGCONT)

    async def _break_links(self) -> None:
        """Reset, delay or swallow what goes to or comes from a node."""
        proxy = self._random.choice(self._nodes).proxy
        kind = self._random.choice(("reset", "delay", "swallow in", "swallow out"))
        self.report.faults[kind] += 1
        if kind == "reset":
            proxy.reset()
            return
        if kind == "delay":
            proxy.delay = self._random.uniform(0.05, 0.5)
        else:
            proxy.swallows = frozenset({kind.removeprefix("swallow ")})
        await asyncio.sleep(self._random.uniform(2, 8))
        proxy.heal()
