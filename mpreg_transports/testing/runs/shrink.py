"""Shrinking of a failing run: fewer actions, fewer nodes, less time, while the same invariant still fails.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002): `ddmin` removes ever
smaller pieces of the script until no single action can be removed. Each try is a whole run by time. The removal of
actions shifts the draws of the rest, so the removal of whole kinds of actions is also tried with a few other seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from mpreg_transports.testing.runs.failures import describe_script
from mpreg_transports.testing.runs.replay import Case, CaseResult, Watchers, run_case
from mpreg_transports.testing.simulation.checks import check_kind, check_makes_watchers, check_number, check_whole
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.trace import Action

T = TypeVar("T")
_EVERY = 2.0
"""Seconds between two reports of progress."""
_SWEEP = 20
"""The number of events between two sweeps. A violation that only a sweep finds by chance, every 1,000 events, does not
shrink."""


class NotFailing(ValueError):
    """The run does not fail when it is repeated by time, so there is nothing to shrink."""


class Shrunk(msgspec.Struct, frozen=True, kw_only=True):
    """A smaller case that fails in the same way."""

    case: Case
    ran: CaseResult
    runs: int
    before: int
    """The number of actions in the original script."""
    minimal: bool
    """True if no single action can be removed; False if the tries were used up before."""

    def describe(self) -> str:
        """Return the smaller script as readable text."""
        case = self.case
        script = [*case.script, *case.later]
        head = (
            f"{self.ran.sim.violation}\nstill fails with {len(script)} of {self.before} actions, "
            f"{len(case.nodes)} nodes, {case.seconds:g} s "
            f"({self.runs} runs{'' if self.minimal else ', more could go'}):"
        )
        return "\n".join([head, *describe_script(script)])


class Tries:
    """Runs of smaller cases: their number, and the smallest case that fails in the same way."""

    def __init__(
        self,
        case: Case,
        *,
        watchers: Watchers | None,
        runs: int,
        limit: float | None,
        progress: Callable[[str], object] | None,
    ) -> None:
        self.runs: int = 0
        self._watchers = watchers
        self._most = runs
        self._began = time.monotonic()
        self._limit = limit
        self._progress = progress
        self._reported = self._began
        self.best: Case = case
        self.ran: CaseResult = self._run(case)
        self.invariant: int | None = self.ran.invariant
        if self.invariant is None:
            raise NotFailing("this run does not fail when it is done by time: there is nothing to shrink")

    @property
    def used_up(self) -> bool:
        """True if the limit of runs or of time is reached."""
        return self.runs >= self._most or (self._limit is not None and time.monotonic() - self._began > self._limit)

    def fails(self, case: Case) -> bool:
        """Return whether `case` fails in the same way; if so, it becomes the best case."""
        if self.used_up:
            return False
        ran = self._run(case)
        if ran.invariant != self.invariant:
            return False
        if self.invariant == 0 and type(ran.error) is not type(self.ran.error):
            return False
        self.best, self.ran = case, ran
        return True

    def _run(self, case: Case) -> CaseResult:
        self.runs += 1
        ran = run_case(case, watchers=self._watchers, sweep_every=_SWEEP)
        now = time.monotonic()
        if self._progress is not None and now - self._reported >= _EVERY:
            self._reported = now
            self._progress(
                f"{self.runs} runs in {now - self._began:.0f} s: {len(self.best.script)} actions, "
                f"{len(self.best.nodes)} nodes, {self.best.seconds:g} s still fail"
            )
        return ran


def shrink(
    case: Case,
    *,
    watchers: Watchers | None = None,
    runs: int = 1000,
    limit: float | None = 300.0,
    progress: Callable[[str], object] | None = None,
) -> Shrunk:
    """Make a failing case smaller, in at most this many runs and about so many seconds (None: without this limit).

    `progress`, such as `print`, receives a line of text every two seconds. Raises NotFailing.
    """
    check_kind("case", case, Case, "a Case, such as saved_case(file) returns")
    if watchers is not None:
        check_makes_watchers(watchers)
    check_whole("runs", runs, least=1)
    if limit is not None:
        check_number("limit", limit)
    tries = Tries(case, watchers=watchers, runs=runs, limit=limit, progress=progress)
    _less_time(tries)
    _fewer_kinds(tries)
    _fewer_nodes(tries)
    ddmin(tries.best.later, lambda later: tries.fails(msgspec.structs.replace(tries.best, later=list(later))))
    ddmin(tries.best.script, lambda script: tries.fails(_with(tries.best, script)))
    _fewer_nodes(tries)
    _less_time(tries)
    return Shrunk(
        case=tries.best,
        ran=tries.ran,
        runs=tries.runs,
        before=len(case.script) + len(case.later),
        minimal=not tries.used_up,
    )


def ddmin(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return a part of `items`, in their order, for which `fails` is true and of which no single item can be removed.

    `fails` is true for `items` themselves and is not called for them. Halves are removed first, then ever smaller
    pieces.
    """
    kept = list(items)
    size = (len(kept) + 1) // 2
    while kept:
        start, gone = 0, False
        while start < len(kept):
            without = kept[:start] + kept[start + size :]
            if fails(without):
                kept, gone = without, True
            else:
                start += size
        if size == 1 and not gone:
            break
        size = max(1, size // 2)
    return kept


def _with(case: Case, script: Sequence[Action]) -> Case:
    return msgspec.structs.replace(case, script=list(script))


def _less_time(tries: Tries) -> None:
    """End the faults and the workload shortly after the last event. Without the later faults if it is before them."""
    case = tries.best
    if case.later:
        if tries.ran.sim.now < case.later[0].at:
            tries.fails(msgspec.structs.replace(case, later=()))
        if tries.best.later:
            return
        case = tries.best
    last = min(tries.ran.sim.now, round(case.seconds * SECOND))
    if case.script:
        last = min(last, case.script[-1].at + SECOND) if tries.ran.sim.now > case.seconds * SECOND else last
    script = [action for action in case.script if action.at <= last]
    shorter = last / SECOND
    if shorter < case.seconds or len(script) < len(case.script):
        tries.fails(msgspec.structs.replace(case, script=script, seconds=min(case.seconds, shorter)))


def _fewer_kinds(tries: Tries) -> None:
    """Remove all actions of one kind, the most frequent kind first.

    Where the removal alone does not fail, other seeds are tried, because other draws may fail.
    """
    counted: dict[str, int] = {}
    for action in tries.best.script:
        counted[action.name] = counted.get(action.name, 0) + 1
    for name in sorted(counted, key=lambda name: -counted[name]):
        without = [action for action in tries.best.script if action.name != name]
        for seed in dict.fromkeys((tries.best.seed, 0, 1, 2, 3)):
            if tries.fails(msgspec.structs.replace(tries.best, script=without, seed=seed)):
                break


def _fewer_nodes(tries: Tries) -> None:
    """Remove one node after the other, with all actions on it, the last nodes first."""
    for name in reversed(list(tries.best.nodes)):
        case = tries.best
        if len(case.nodes) > 1:
            nodes = {other: spec for other, spec in case.nodes.items() if other != name}
            nodes = {other: _joining(spec, name) for other, spec in nodes.items()}
            parts = {"script": list(_without(case.script, name)), "later": list(_without(case.later, name))}
            tries.fails(msgspec.structs.replace(case, nodes=nodes, **parts))


def _joining(spec: Spec, gone: str) -> Spec:
    if spec.peers is None or gone not in spec.peers:
        return spec
    return msgspec.structs.replace(spec, peers=tuple(peer for peer in spec.peers if peer != gone))


def _without(script: Sequence[Action], gone: str) -> Iterator[Action]:
    """Yield the actions of a script without those on one node."""
    for action in script:
        args = action.args
        if gone in (args.get("name"), args.get("node"), args.get("source"), args.get("target")):
            continue
        if any(str(args.get(end, "")).endswith(f"@{gone}") for end in ("client", "source", "target")):
            continue
        if action.name == "partition":
            sides = {side: [name for name in args[side] if name != gone] for side in ("one", "other")}
            action = msgspec.structs.replace(action, args={**args, **sides})
        yield action
