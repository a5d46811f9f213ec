"""A request of a simulated client, from its sending to its answer; and what names one call of it."""

from __future__ import annotations

from typing import Any

import msgspec

from mpreg_proto.client import Reply
from mpreg_proto.errors import RequestError, exception_for
from mpreg_proto.wire.messages import Request, Result
from mpreg_proto.wire.values import ValueCodec


class CallKey(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """One call of one request, whoever coordinates it: the coordinator's host and life, its request, the call's
    name. A negative request: it was placed and given up within one event, so nobody knows which one it was.
    """

    host: str
    life: int
    request: int
    call: str


class SimCall:
    """Give its `done` to `sim.run(until=...)`.

    Then `value` is the result, or `values` those of a graph's wanted calls.
    """

    def __init__(
        self, client: str, number: int, request: Request, *, sent: int, codec: ValueCodec, label: int = 0
    ) -> None:
        self.client = client
        self.label = label
        """Its number in a script, by which it is cancelled."""
        self.number = number
        self.request = request
        self.sent = sent
        """The simulation's time."""
        self.ended: int | None = None
        self.result: Result | None = None
        self.parts: list[Result] = []
        """Of an eager request: what came before the last answer."""
        self.cancelled = False
        self._codec = codec

    def done(self) -> bool:
        """Whether its answer is there."""
        return self.result is not None or self.cancelled

    def answer(self, reply: Reply, now: int) -> None:
        """Something has come."""
        assert isinstance(reply, Result), "a request is answered by a Result"
        if reply.last:
            self.result = reply
            self.ended = now
        else:
            self.parts.append(reply)

    @property
    def error(self) -> RequestError | None:
        """The error it ended with, None while it has none."""
        return None if self.result is None or self.result.fault is None else exception_for(self.result.fault)

    @property
    def values(self) -> dict[str, Any]:
        """Results by name. Raises the error it ended with, RuntimeError while it has not ended."""
        if self.result is None:
            raise RuntimeError("it has not ended: run the simulation until call.done")
        if self.error is not None and not self.request.partial:
            raise self.error
        rows = [row for result in (*self.parts, self.result) for row in result.done]
        return {row.name: self._codec.decode(row.value) for row in rows}

    @property
    def value(self) -> Any:
        """The result, where one is wanted."""
        values = list(self.values.values())
        return values[0] if len(values) == 1 else values
