"""Ready calls that cannot be handed out yet: nobody can run them at the moment, a link has to be had first, or the node
that had them was lost a moment ago.

The dispatcher parks and releases. Calls are indexed by what they wait for: when an offer or a link changes, the
coordinator takes those that it concerns and has them placed again; a call that waits for too long comes back by its
timer. What to do then is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mpreg_proto.ids import MemberId, RequestId
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.timers import TimerKind, Timers

_Key = tuple[RequestId, str]
_Requirement = tuple[str, tuple[str, ...], str | None]
"""Function, resources and version: calls that ask for the same can go on at the same moment."""


class PendingCalls:
    """Calls by request and name. Timers that it sets: OFFER_WAIT, LINK_WAIT and, after a loss, RETRY."""

    __slots__ = ("_by_function", "_by_member", "_link_targets", "_requirements", "_retry_times", "_timers", "calls")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self.calls: dict[_Key, None] = {}
        """What waits now, in the order in which it was added; written by the methods alone."""
        self._requirements: dict[_Key, _Requirement] = {}
        """What each of `calls` asks for, but of those that pause after a loss."""
        self._by_function: dict[str, dict[_Requirement, dict[_Key, None]]] = {}
        """`_requirements` the other way."""
        self._link_targets: dict[_Key, MemberId] = {}
        """To whom a call waits for a link."""
        self._by_member: dict[MemberId, dict[_Key, None]] = {}
        """`_link_targets` the other way."""
        self._retry_times: dict[_Key, int] = {}
        """Calls that go on by themselves, and when."""

    # -- waiting ------------------------------------------------------------------------------------------------------

    def wait_for_offer(self, execution: Execution, name: str, at: int) -> None:
        """Somebody may offer the function until `at`; a call that waits already is not given longer."""
        self._enter(execution, name)
        key = (TimerKind.OFFER_WAIT, execution.id, name)
        if key not in self._timers:
            self._timers.set(key, at)

    def wait_for_link(self, execution: Execution, name: str, member: MemberId, at: int) -> None:
        """A link to `member` is wanted until `at`; a call that waits for it already is not given longer."""
        self._enter(execution, name)
        key = (TimerKind.LINK_WAIT, execution.id, name)
        if self._link_targets.get((execution.id, name)) != member or key not in self._timers:
            self._expect_link(execution, name, member)
            self._timers.set(key, at)

    def retry_at(self, execution: Execution, name: str, at: int) -> None:
        """Nothing can be done for that call before `at`."""
        key = (execution.id, name)
        execution.pending[name] = None
        self.calls[key] = None
        self._retry_times[key] = at
        self._timers.set((TimerKind.RETRY, *key), at)

    def _enter(self, execution: Execution, name: str) -> None:
        key = (execution.id, name)
        call = execution.plan.calls[name]
        execution.pending[name] = None
        self.calls[key] = None
        requirement = self._requirements[key] = (call.function, call.resources, call.version)
        self._by_function.setdefault(call.function, {}).setdefault(requirement, {})[key] = None

    def _expect_link(self, execution: Execution, name: str, member: MemberId) -> None:
        key = (execution.id, name)
        self._forget_link_target(key)
        self._link_targets[key] = member
        self._by_member.setdefault(member, {})[key] = None

    def link_target(self, execution: Execution, name: str) -> MemberId | None:
        """To whom that call waits for a link, if it does."""
        return self._link_targets.get((execution.id, name)) if self._link_targets else None

    # -- going on -----------------------------------------------------------------------------------------------------

    @property
    def functions(self) -> Iterable[str]:
        """The functions that calls wait for."""
        return self._by_function

    def matching(self, functions: Iterable[str], can_run: Callable[[_Requirement], bool]) -> list[_Key]:
        """The calls of these functions that somebody can run now."""
        return [
            key
            for function in functions
            for requirement, calls in self._by_function.get(function, {}).items()
            if can_run(requirement)
            for key in calls
        ]

    def waiting_for_link(self, members: Iterable[MemberId]) -> list[_Key]:
        """The calls that wait for a link to one of these."""
        return [key for member in members for key in self._by_member.get(member, ())]

    def pop(self, keys: Iterable[_Key]) -> dict[RequestId, list[str]]:
        """Take calls out, by request, to be placed again; their timers go on until they are released."""
        ready: dict[RequestId, list[str]] = {}
        for key in keys:
            if key in self._requirements:
                del self.calls[key]
                self._forget_requirement(key)
                ready.setdefault(key[0], []).append(key[1])
        return ready

    def pop_all(self) -> dict[RequestId, list[str]]:
        """All that waits for an offer or a link."""
        return self.pop([key for key in self.calls if key in self._requirements])

    def retries_due(self, execution: Execution, now: int) -> list[str]:
        """The calls of a request whose pause is over; they wait no more."""
        names = [name for name in execution.pending if self._retry_times.get((execution.id, name), now + 1) <= now]
        for name in names:
            self.discard(execution, name)
        return names

    def expire(self, execution: Execution, name: str) -> bool:
        """A timer of that call has come. Returns whether it still waits; it no longer does then."""
        key = (execution.id, name)
        if key not in self.calls:
            return False
        del self.calls[key]
        self._forget_requirement(key)
        return True

    def link_timed_out(self, execution: Execution, name: str) -> MemberId | None:
        """No link came in time. Returns to whom, which is awaited no longer."""
        return self._forget_link_target((execution.id, name))

    def discard(self, execution: Execution, name: str) -> None:
        """A call waits no more, or its request is over: its timers must not speak of a later wait."""
        if name not in execution.pending:
            return
        del execution.pending[name]
        key = (execution.id, name)
        self.calls.pop(key, None)
        self._forget_requirement(key)
        self._forget_link_target(key)
        self._retry_times.pop(key, None)
        self._timers.cancel((TimerKind.OFFER_WAIT, execution.id, name))
        self._timers.cancel((TimerKind.LINK_WAIT, execution.id, name))
        self._timers.cancel((TimerKind.RETRY, execution.id, name))

    def _forget_requirement(self, key: _Key) -> None:
        requirement = self._requirements.pop(key, None)
        if requirement is None:
            return
        by_requirement = self._by_function[requirement[0]]
        calls = by_requirement[requirement]
        del calls[key]
        if not calls:
            del by_requirement[requirement]
            if not by_requirement:
                del self._by_function[requirement[0]]

    def _forget_link_target(self, key: _Key) -> MemberId | None:
        member = self._link_targets.pop(key, None)
        if member is not None:
            calls = self._by_member[member]
            del calls[key]
            if not calls:
                del self._by_member[member]
        return member
