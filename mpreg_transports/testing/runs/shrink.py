"""Making a failing run small: fewer actions, fewer nodes, less time, as long as the same invariant does not hold.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002): `ddmin` removes ever
smaller pieces of the script until no single action can go. Each try is a whole run by time. As fewer actions shift
the draws of what is left, whole kinds of actions are tried with a few other seeds too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from mpreg_transports.testing.runs.failures import describe_script
from mpreg_transports.testing.runs.replay import Case, CaseResult, Watchers, run_case
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.trace import Action

T = TypeVar("T")
_SWEEP = 20
"""Events between two looks at the whole state: what is seen by chance alone, every 1,000 events, does not shrink."""


class NotFailing(ValueError):
    """There is nothing to shrink: the run does not fail when it is done by time."""


class Shrunk(msgspec.Struct, frozen=True, kw_only=True):
    """A smaller case that fails in the same way."""

    case: Case
    ran: CaseResult
    runs: int
    before: int
    """Actions of the script that it was made from."""
    minimal: bool
    """Whether no single action can go; False if the tries were used up before."""

    def describe(self) -> str:
        """The smaller script, for people."""
        case = self.case
        head = (
            f"{self.ran.sim.violation}\nstill so with {len(case.script)} of {self.before} actions, {len(case.nodes)} "
            f"nodes, {case.seconds:g} s ({self.runs} runs{'' if self.minimal else ', more could go'}):"
        )
        return "\n".join([head, *describe_script(case.script)])


class Tries:
    """Runs smaller cases, counts them, and keeps the smallest that fails in the same way."""

    def __init__(self, case: Case, *, watchers: Watchers | None, runs: int, limit: float | None) -> None:
        self.runs = 0
        self._watchers = watchers
        self._most = runs
        self._end = None if limit is None else time.monotonic() + limit
        self.best = case
        self.ran = self._run(case)
        self.invariant = self.ran.invariant
        if self.invariant is None:
            raise NotFailing("this run does not fail when it is done by time: there is nothing to shrink")

    @property
    def used_up(self) -> bool:
        """Whether it is time to stop."""
        return self.runs >= self._most or (self._end is not None and time.monotonic() > self._end)

    def fails(self, case: Case) -> bool:
        """Whether `case` fails in the same way: then it is the best so far."""
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
        return run_case(case, watchers=self._watchers, sweep_every=_SWEEP)


def shrink(case: Case, *, watchers: Watchers | None = None, runs: int = 1000, limit: float | None = None) -> Shrunk:
    """Make a failing case smaller, in at most so many runs and seconds. Raises NotFailing."""
    tries = Tries(case, watchers=watchers, runs=runs, limit=limit)
    _less_time(tries)
    _fewer_kinds(tries)
    _fewer_nodes(tries)
    ddmin(tries.best.script, lambda script: tries.fails(_with(tries.best, script)))
    _fewer_nodes(tries)
    _less_time(tries)
    return Shrunk(case=tries.best, ran=tries.ran, runs=tries.runs, before=len(case.script), minimal=not tries.used_up)


def ddmin(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """A part of `items`, in their order, for which `fails` holds still and no single item can go.

    `fails` holds for `items` themselves and is not asked that. Halves are taken away first, then ever smaller pieces.
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
    """End the faults and the work right after what happened last."""
    case = tries.best
    last = min(tries.ran.sim.now, round(case.seconds * SECOND))
    if case.script:
        last = min(last, case.script[-1].at + SECOND) if tries.ran.sim.now > case.seconds * SECOND else last
    script = [action for action in case.script if action.at <= last]
    shorter = last / SECOND
    if shorter < case.seconds or len(script) < len(case.script):
        tries.fails(msgspec.structs.replace(case, script=script, seconds=min(case.seconds, shorter)))


def _fewer_kinds(tries: Tries) -> None:
    """Do without all actions of one kind, requests first; other draws may do where these do not without them."""
    counted: dict[str, int] = {}
    for action in tries.best.script:
        counted[action.name] = counted.get(action.name, 0) + 1
    for name in sorted(counted, key=lambda name: -counted[name]):
        without = [action for action in tries.best.script if action.name != name]
        for seed in dict.fromkeys((tries.best.seed, 0, 1, 2, 3)):
            if tries.fails(msgspec.structs.replace(tries.best, script=without, seed=seed)):
                break


def _fewer_nodes(tries: Tries) -> None:
    """Take one node after the other away, with all that is done to it, the last ones first."""
    for name in reversed(list(tries.best.nodes)):
        case = tries.best
        if len(case.nodes) > 1:
            nodes = {other: spec for other, spec in case.nodes.items() if other != name}
            nodes = {other: _joining(spec, name) for other, spec in nodes.items()}
            tries.fails(msgspec.structs.replace(case, nodes=nodes, script=list(_without(case.script, name))))


def _joining(spec: Spec, gone: str) -> Spec:
    if spec.peers is None or gone not in spec.peers:
        return spec
    return msgspec.structs.replace(spec, peers=tuple(peer for peer in spec.peers if peer != gone))


def _without(script: Sequence[Action], gone: str) -> Iterator[Action]:
    """A script in which a node plays no part."""
    for action in script:
        args = action.args
        if gone in (args.get("name"), args.get("node"), args.get("source"), args.get("target")):
            continue
        if str(args.get("client", "")).endswith(f"@{gone}"):
            continue
        if action.name == "partition":
            sides = {side: [name for name in args[side] if name != gone] for side in ("one", "other")}
            action = msgspec.structs.replace(action, args={**args, **sides})
        yield action
