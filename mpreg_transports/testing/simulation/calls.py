"""A request of a simulated client, from its submission to its reply, and the key of one of its calls."""

from __future__ import annotations

from typing import Any

import msgspec

from mpreg_proto.client import Reply
from mpreg_proto.errors import RequestError, exception_for
from mpreg_proto.wire.messages import Request, Result
from mpreg_proto.wire.values import ValueCodec


class CallKey(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """The key of one call: the coordinator's host and life, the number of the request, the name of the call.

    It is the same on each node that handles the call. A negative request number marks a call that was placed and given
    up within one event, so that its request is unknown.
    """

    host: str
    life: int
    request: int
    call: str

    @property
    def number(self) -> int:
        """The local number of the request at its coordinator, without the era of the coordinator."""
        return self.request & _NUMBER


_NUMBER = (1 << 40) - 1


class SimCall:
    """A submitted request. Pass its `done` to `sim.run(until=...)`.

    After that, `value` is the result, or `values` are the wanted results of a graph.
    """

    def __init__(
        self, client: str, number: int, request: Request, *, sent: int, codec: ValueCodec, label: int = 0
    ) -> None:
        self.client = client
        self.label = label
        """The number of the request in a script; a cancel action refers to it."""
        self.number = number
        self.request = request
        self.sent = sent
        """The simulated time at which the request was sent, in nanoseconds."""
        self.ended: int | None = None
        self.result: Result | None = None
        self.parts: list[Result] = []
        """The partial replies of an eager request, before the last reply."""
        self.cancelled = False
        self._codec = codec

    def done(self) -> bool:
        """Return whether the last reply has arrived or the request was cancelled."""
        return self.result is not None or self.cancelled

    def answer(self, reply: Reply, now: int) -> None:
        """Record a reply that arrived at the simulated time `now`."""
        assert isinstance(reply, Result), "a request is answered by a Result"
        if reply.last:
            self.result = reply
            self.ended = now
        else:
            self.parts.append(reply)

    @property
    def error(self) -> RequestError | None:
        """The error that the request ended with, or None."""
        return None if self.result is None or self.result.fault is None else exception_for(self.result.fault)

    @property
    def values(self) -> dict[str, Any]:
        """The results by name.

        Raises the error that the request ended with, or RuntimeError while it has not ended.
        """
        if self.result is None:
            raise RuntimeError("it has not ended: run the simulation until call.done")
        if self.error is not None and not self.request.partial:
            raise self.error
        rows = [row for result in (*self.parts, self.result) for row in result.done]
        return {row.name: self._codec.decode(row.value) for row in rows}

    @property
    def value(self) -> Any:
        """The only result, or the list of all results."""
        values = list(self.values.values())
        return values[0] if len(values) == 1 else values
