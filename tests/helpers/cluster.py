"""A cluster in one thread and in virtual time: real `Node`s and `ClientSession`s, and links in memory.

    net = VirtualCluster(seed=7)
    net.start("front")
    net.start("alpha", {"add": Offer(lambda x, y: x + y, idempotent=True)}, resources=("red",), seeds=("front",))
    net.settle()
    caller = net.caller("front")
    assert caller.run([call("sum", "add", 1, 2, resources=("red",))]).values == {"sum": 3}

It is the loop of docs/howto/embed.md with a heap in place of a selector: it carries out every effect, in order, and
gives each input the virtual time. Links are ordered byte streams with the real framing and codec; the seed decides
where their data is split. Functions are plain functions with a declared duration. A test can `kill` a process, `hold`
and `release` the data from one process to another, finish a held function, and let time pass. Two runs of one seed are
identical; `digest` proves it. The module imports only the core and pure parts of the standard library, so it runs
sealed (tests/purity).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from typing import Protocol

from mpreg_proto.effects import Framing
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT, MILLISECOND, SECOND, Limits
from mpreg_proto.rng import Rng
from tests.helpers.cluster_parties import Caller, ClassicCaller, Offer, Process, Ref, address, call

__all__ = ["Caller", "ClassicCaller", "Offer", "Process", "Ref", "VirtualCluster", "address", "call"]


class Party(Protocol):
    """An owner of link ends: a `Process`, a `Caller`, a `ClassicCaller`."""

    name: str
    ends: dict[LinkId, End]

    def opened(self, end: End, dialled: Address | None) -> None: ...
    def received(self, end: End, data: bytes) -> None: ...
    def closed(self, end: End) -> None: ...
    def next_timeout(self) -> int | None: ...
    def wake(self) -> None: ...
    def flush(self) -> None: ...


class End:
    """One end of a link. Data that is put into it arrives at `peer`, in order."""

    def __init__(self, party: Party, link: LinkId, framing: Framing) -> None:
        self.party = party
        self.link = link
        self.framing = framing
        self.peer: End = self
        self.open = True
        self.hung_up = False
        self.arrives = 0
        self.held: list[bytes | None] = []
        """Data that waits for `release`; None is the end of the link."""


class VirtualCluster:
    """All processes, callers and links, and the one clock. `delay` is the latency of a link, in nanoseconds."""

    def __init__(self, *, seed: int = 1, delay: int = MILLISECOND) -> None:
        self.seed = seed
        self.now = SECOND
        self.processes: dict[str, Process] = {}
        self.rng = Rng(seed)
        self._delay = delay
        self._cuts = self.rng.child("cuts")
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._parties: list[Party] = []
        self._held: dict[tuple[str, str], None] = {}
        self._last_link = 0
        self._hash = hashlib.blake2b(digest_size=16)

    # -- processes and callers -----------------------------------------------------------------------------------------

    def start(
        self,
        name: str,
        functions: Mapping[str, Offer] | None = None,
        *,
        resources: Iterable[str] = (),
        seeds: Iterable[str] = (),
        limits: Limits = DEFAULT,
    ) -> Process:
        """Start a process that listens at `address(name)` and dials those of `seeds`. A killed name may start again."""
        assert name not in self.processes, f"{name} runs already"
        process = self.processes[name] = Process(
            self, name, functions or {}, resources=tuple(resources), seeds=tuple(seeds), limits=limits
        )
        self._parties.append(process)
        process.flush()
        return process

    def caller(self, to: str, *, framing: Framing = Framing.STREAM, name: str = "caller") -> Caller:
        """Start a native client with a link to the process `to`."""
        caller = Caller(self, name)
        self._parties.append(caller)
        caller.connect(to, framing=framing)
        return caller

    def classic(self, to: str) -> ClassicCaller:
        """Start a client that supports only the classic JSON dialect, one message a frame."""
        caller = ClassicCaller(self)
        self._parties.append(caller)
        self.join(caller, self.processes[to], Framing.CLASSIC_MESSAGES, address(to))
        return caller

    def kill(self, name: str) -> None:
        """Kill the process now: no goodbye, its links end, and its address refuses connections."""
        process = self.processes.pop(name)
        self._parties.remove(process)
        for end in process.ends.values():
            end.open = False
            self.put(end, None)
        self._log(name, "killed", b"")

    # -- links --------------------------------------------------------------------------------------------------------

    def join(self, dialler: Party, listener: Party, framing: Framing, dialled: Address) -> None:
        """Open a link between two parties, now."""
        self._last_link += 2
        near = End(dialler, LinkId(self._last_link - 1), framing)
        far = End(listener, LinkId(self._last_link), framing)
        near.peer, far.peer = far, near
        dialler.ends[near.link] = near
        listener.ends[far.link] = far
        listener.opened(far, None)
        dialler.opened(near, dialled)

    def put(self, end: End, data: bytes | None) -> None:
        """Deliver `data` to the other end; with None, end the link there after all data that was put before."""
        if (end.party.name, end.peer.party.name) in self._held:
            end.held.append(data)
            return
        end.arrives = max(end.arrives, self.now + self._delay)
        if data is None:
            self.at(end.arrives, lambda: self._close(end.peer))
            return
        pieces = self._cut(data) if end.framing is Framing.STREAM else [data]
        for piece in pieces:
            self.at(end.arrives, lambda piece=piece: self._deliver(end.peer, piece))  # type: ignore[misc]

    def hang_up(self, end: End) -> None:
        """Close a link in order: put data arrives first; then the other end closes, then this one."""
        if not end.hung_up:
            end.hung_up = True
            self.put(end, None)
            self.at(self.now + self._delay, lambda: self._close(end))

    def hold(self, sender: str, receiver: str) -> None:
        """Keep all data from `sender` to `receiver` from now on, until `release`."""
        self._held[sender, receiver] = None

    def release(self, sender: str, receiver: str) -> None:
        """Send the data that was held, in its order."""
        del self._held[sender, receiver]
        for party in self._parties:
            for end in party.ends.values():
                if (end.party.name, end.peer.party.name) == (sender, receiver):
                    held, end.held = end.held, []
                    for data in held:
                        self.put(end, data)

    # -- time ---------------------------------------------------------------------------------------------------------

    def at(self, when: int, act: Callable[[], None]) -> None:
        """Run `act` at a time, after the actions that were planned for the same time before."""
        self._sequence += 1
        heappush(self._heap, (when, self._sequence, act))

    def run(self, until: Callable[[], object], *, limit: float = 60.0) -> None:
        """Let time pass until a condition is true; AssertionError, with each node's view, after `limit` virtual s."""
        end = self.now + int(limit * SECOND)
        while not until():
            due = self._next()
            assert due is not None and due <= end, f"seed {self.seed}: not within {limit} s\n{self.describe()}"
            self._step(due)

    def advance(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass."""
        end = self.now + int(seconds * SECOND)
        while (due := self._next()) is not None and due <= end:
            self._step(due)
        self.now = end

    def settle(self, *, limit: float = 60.0) -> None:
        """Run until all live processes know each other and each other's functions, over links of their own."""
        self.run(self._settled, limit=limit)

    def describe(self) -> str:
        """Return each node's view, a line for each member, for a failure's message."""
        lines = [f"at {self.now / SECOND:.3f} s"]
        for process in self.processes.values():
            for row in process.node.view(now=self.now).members:
                lines.append(
                    f"  {process.name} sees {row.shown} {row.standing}, catalogue {row.catalogue}, {row.linked}"
                )
        return "\n".join(lines)

    @property
    def digest(self) -> str:
        """A hash over all deliveries and their times: equal for two runs of one seed, in any interpreter."""
        return self._hash.hexdigest()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _next(self) -> int | None:
        times = [when for party in self._parties if (when := party.next_timeout()) is not None]
        if self._heap:
            times.append(self._heap[0][0])
        return max(self.now, min(times)) if times else None

    def _step(self, due: int) -> None:
        """Run one planned action, or else the timers that are due."""
        self.now = due
        if self._heap and self._heap[0][0] <= due:
            heappop(self._heap)[2]()
            return
        for party in list(self._parties):
            if (when := party.next_timeout()) is not None and when <= due:
                party.wake()
                party.flush()

    def _cut(self, data: bytes) -> list[bytes]:
        """Return up to three pieces or, sometimes, single bytes."""
        if len(data) < 64 and self._cuts.below(8) == 0:
            return [data[at : at + 1] for at in range(len(data))]
        first, second = sorted((self._cuts.below(len(data) + 1), self._cuts.below(len(data) + 1)))
        return [piece for piece in (data[:first], data[first:second], data[second:]) if piece]

    def _deliver(self, end: End, data: bytes) -> None:
        if end.open:
            self._log(end.party.name, "got", data)
            end.party.received(end, data)
            end.party.flush()

    def _close(self, end: End) -> None:
        if end.open:
            end.open = False
            self._log(end.party.name, "closed", b"")
            del end.party.ends[end.link]
            end.party.closed(end)
            end.party.flush()
            self.hang_up(end)  # a link that ended at one end has ended at both

    def _log(self, party: str, what: str, data: bytes) -> None:
        self._hash.update(f"{self.now} {party} {what} {len(data)} ".encode())
        self._hash.update(data)

    def _settled(self) -> bool:
        ids = {process.node.me.hex() for process in self.processes.values()}
        for process in self.processes.values():
            rows = [row for row in process.node.view(now=self.now).members if row.id in ids]
            if len(rows) < len(ids) or not all(row.me or (row.linked and row.standing == "alive") for row in rows):
                return False
            offered = {(row.node, row.function) for row in process.node.view(now=self.now).functions}
            for other in self.processes.values():
                if not all((other.node.shown, name) in offered for name in other.offers):
                    return False
        return True
