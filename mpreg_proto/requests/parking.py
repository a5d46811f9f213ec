"""Ready calls that cannot be handed out yet: nobody can run them at the moment, or a link has to be had first.

The dispatcher parks and releases; when offers or links change the coordinator takes all and has them placed again; a
call that waits for too long comes back by its timer. What to do then is not decided here.
"""

from __future__ import annotations

from mpreg_proto.ids import MemberId, RequestId
from mpreg_proto.requests.execution import Execution
from mpreg_proto.timers import Timers


class Parking:
    """Calls by request and name. Timer keys: ("wait", id, call) for an offer, ("link", id, call) for a link."""

    __slots__ = ("_awaited", "_timers", "calls")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self.calls: dict[tuple[RequestId, str], None] = {}
        """What waits now, in the order in which it was parked; written by the methods alone."""
        self._awaited: dict[tuple[RequestId, str], MemberId] = {}
        """To whom a call waits for a link."""

    def until_offered(self, execution: Execution, name: str, at: int) -> None:
        """Somebody may offer the function until `at`; a call that waits already is not given longer."""
        self._park(execution, name)
        key = ("wait", execution.id, name)
        if key not in self._timers:
            self._timers.set(key, at)

    def until_linked(self, execution: Execution, name: str, member: MemberId, at: int) -> None:
        """A link to `member` is wanted until `at`; a call that waits for it already is not given longer."""
        self._park(execution, name)
        key = ("link", execution.id, name)
        if self._awaited.get((execution.id, name)) != member or key not in self._timers:
            self._awaited[execution.id, name] = member
            self._timers.set(key, at)

    def awaited(self, execution: Execution, name: str) -> MemberId | None:
        """To whom that call waits for a link, if it does."""
        return self._awaited.get((execution.id, name)) if self._awaited else None

    def come_due(self, execution: Execution, name: str) -> bool:
        """A timer of that call has come. Returns whether it still waits; it no longer does then."""
        if (execution.id, name) not in self.calls:
            return False
        del self.calls[execution.id, name]
        return True

    def link_missed(self, execution: Execution, name: str) -> MemberId | None:
        """No link came in time. Returns to whom, which is awaited no longer."""
        return self._awaited.pop((execution.id, name), None)

    def take_all(self) -> dict[RequestId, list[str]]:
        """All that waits, by request, to be placed again; their timers go on until they are released."""
        calls, self.calls = self.calls, {}
        ready: dict[RequestId, list[str]] = {}
        for request_id, name in calls:
            ready.setdefault(request_id, []).append(name)
        return ready

    def release(self, execution: Execution, name: str) -> None:
        """A call waits no more, or its request is over: its timers must not speak of a later wait."""
        if name not in execution.parked:
            return
        del execution.parked[name]
        self.calls.pop((execution.id, name), None)
        self._awaited.pop((execution.id, name), None)
        self._timers.cancel(("wait", execution.id, name))
        self._timers.cancel(("link", execution.id, name))

    def _park(self, execution: Execution, name: str) -> None:
        execution.parked[name] = None
        self.calls[execution.id, name] = None
