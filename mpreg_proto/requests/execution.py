"""One request in progress: what is waiting, what has a result, what failed, and when it is over.

The coordinator owns one `Execution` a request and tells it what became of each call; it answers which calls are ready
now. There are no levels: a call is ready the moment its last need is there. It knows nothing of nodes, links or time.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.requests.graph import NOTHING, Plan
from mpreg_proto.requests.history import History
from mpreg_proto.wire.messages import Call, Done, Failed, Request, Traced

_SHORT = 1024
"""Bytes of a value up to which it is not worth looking whether anything refers to it."""


def _may_refer(call: Call, need: str, value: bytes) -> bool:
    """Whether a call's arguments may hold a reference to `need`: then its name is among their bytes.

    Nothing is decoded, and nothing is looked through that is longer than what it may save.
    """
    return len(call.args) > len(value) or need.encode("utf-8", "surrogatepass") in call.args


class Execution:
    """The state of one request.

    Each call is waiting, ready (handed out by `start` or `bind`), or ended, in this order.
    """

    __slots__ = (
        "_kept",
        "_users",
        "_waiting",
        "arrived",
        "deadline",
        "dispatches",
        "faults",
        "first_fault",
        "held",
        "helped",
        "here",
        "history",
        "id",
        "link",
        "open",
        "parked",
        "plan",
        "reply_id",
        "request",
        "trace",
        "values",
    )

    def __init__(
        self, request_id: RequestId, request: Request, plan: Plan, *, link: LinkId, arrived: int, deadline: int
    ) -> None:
        self.id = request_id
        self.request = request
        self.plan = plan
        self.link = link
        """Where the answer goes."""
        self.reply_id = request.id
        self.arrived = arrived
        self.deadline = deadline
        self.values: dict[str, bytes] = {}
        """Results that somebody still needs, and wanted ones that were not sent when they came."""
        self.held = 0
        """Bytes of `values`."""
        self.faults: dict[str, Fault] = {}
        self.first_fault: Fault | None = None
        self.open = dict.fromkeys(plan.calls)
        """Calls that have not ended."""
        self.here = dict.fromkeys(request.here)
        """Calls that this node alone may run."""
        self.helped = 0
        """For how many calls an error said what there is instead."""
        self.history = History()
        self.dispatches: dict[int, LinkId] = {}
        """The numbers under which calls of this request went out, and where."""
        self.parked: dict[str, None] = {}
        """Calls that wait for a node or a link, each with its timers."""
        self.trace: list[Traced] = []
        self._kept = () if request.eager else plan.wanted
        """Calls whose results are for the last answer."""
        self._waiting = {name: len(others) for name, others in plan.needs.items()}
        self._users = {name: len(others) for name, others in plan.dependents.items()}

    def start(self) -> list[str]:
        """The calls that wait for nothing and have not failed yet, in the request's order."""
        if not self._waiting:
            return list(self.open)
        return [name for name in self.open if name not in self._waiting]

    def bind(self, name: str, value: bytes) -> list[str]:
        """`name` has its result; the calls that are ready now for it. A second result for one name is ignored."""
        if name not in self.open:
            return []
        del self.open[name]
        if self._users.get(name) or name in self._kept:
            self.values[name] = value
            self.held += len(value)
        self._release(name)
        ready: list[str] = []
        for dependent in self.plan.dependents.get(name, ()):
            left = self._waiting.get(dependent)
            if left is None:
                continue  # it has failed for want of another input
            if left == 1:
                del self._waiting[dependent]
                ready.append(dependent)
            else:
                self._waiting[dependent] = left - 1
        return ready

    def fail(self, name: str, fault: Fault) -> list[str]:
        """`name` has failed, and with it all that waits for it, each with 1021 and the call that was to blame.

        Returns all that have failed now.
        """
        if name not in self.open:
            return []
        if self.first_fault is None:
            self.first_fault = fault
        self._end_failed(name, fault)
        ended = [name]
        waiting = list(self.plan.dependents.get(name, ()))
        while waiting:
            dependent = waiting.pop()
            if dependent in self.open:
                why = f"call {dependent!r} was not run, as {name!r} failed"
                self._end_failed(dependent, Fault(1021, why, {"call": dependent, "because": name}))
                ended.append(dependent)
                waiting.extend(self.plan.dependents.get(dependent, ()))

        return ended

    @property
    def over(self) -> bool:
        """Whether every call has ended."""
        return not self.open

    def given(self, name: str) -> Mapping[str, bytes]:
        """The results that `name`'s arguments may refer to, those that came with the request among them.

        Long ones of calls that only had to end before (`after=`) are left out.
        """
        call = self.plan.calls[name]
        if not call.needs:
            return {}
        values, came = self.values, self.request.given
        given = {need: values[need] if need in values else came[need] for need in call.needs}
        return {need: value for need, value in given.items() if len(value) <= _SHORT or _may_refer(call, need, value)}

    def done(self) -> tuple[Done, ...]:
        """The wanted results that are there, in the order wanted."""
        return tuple(Done(name, self.values[name]) for name in self.plan.wanted if name in self.values)

    def failed(self) -> tuple[Failed, ...]:
        """The wanted calls that failed, in the order wanted."""
        return tuple(Failed(name, self.faults[name]) for name in self.plan.wanted if name in self.faults)

    def release(self) -> None:
        """The request is over: let go of all values and arguments, as one of its bodies may run on for long."""
        self.request = Request(self.reply_id, ())
        self.plan = NOTHING
        self.values = {}
        self.held = 0
        self.faults = {}
        self.trace = []
        self._waiting = {}
        self._users = {}

    def _end_failed(self, name: str, fault: Fault) -> None:
        del self.open[name]
        self.faults[name] = fault
        self._waiting.pop(name, None)
        self._release(name)

    def _release(self, ended: str) -> None:
        """Let go of inputs that nobody else needs now that `ended` has ended."""
        for need in self.plan.needs.get(ended, ()):
            self._users[need] -= 1
            if not self._users[need] and need not in self._kept and need in self.values:
                self.held -= len(self.values.pop(need))
