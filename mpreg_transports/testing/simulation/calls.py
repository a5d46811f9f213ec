"""The requests of callers of a simulation, from submission to reply, and the key of one call of a request."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from mpreg_proto.client import Reply
from mpreg_proto.errors import RequestError, exception_for
from mpreg_proto.wire.messages import CallProgress, DrainReply, Explanation, Request, Result, View
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
        self,
        client: str,
        number: int,
        request: Request,
        *,
        sent: int,
        codec: ValueCodec,
        label: int = 0,
        retry: bool = False,
    ) -> None:
        self.client = client
        self.label = label
        """The number of the request in a script; a cancel action refers to it."""
        self.number = number
        self.request = request
        self.retry = retry
        """True if its client sends it again after a refusal."""
        self.sent = sent
        """The simulated time at which the request was sent, in nanoseconds."""
        self.ended: int | None = None
        self.result: Result | None = None
        self.parts: list[Result] = []
        """The partial replies of an eager request, before the last reply."""
        self.cancelled = False
        self.items: dict[str, list[bytes]] = {}
        """The encoded items of each generator that have arrived."""
        self.taken: dict[str, int] = {}
        """The number of items of each generator that the client has used."""
        self.consumes: bool = True
        """False if the client uses no more items."""
        self.stops_early: bool = False
        """True if the client may have enough before the end, and then cancels the request."""
        self.progress: list[CallProgress] = []
        """The progress of its calls that has arrived."""
        self._codec = codec

    def items_of(self, name: str) -> list[Any]:
        """Return the items of a generator that have arrived."""
        return [self._codec.decode(item) for item in self.items.get(name, ())]

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
        return {row.name: self._codec.decode(row.value) if row.value else self.items_of(row.name) for row in rows}

    @property
    def value(self) -> Any:
        """The only result, or the list of all results."""
        values = list(self.values.values())
        return values[0] if len(values) == 1 else values


class SimQuery:
    """A query of a client for a node's view, or for where a request would run, or its command that a node leaves."""

    def __init__(self, client: str, number: int, request: Request | None, *, sent: int, drained: str = "") -> None:
        self.client = client
        self.number = number
        self.request = request
        """The request that is to be explained; None for the view."""
        self.drained = drained
        """The node that is to leave."""
        self.sent = sent
        self.reply: Reply | None = None
        self.cancelled = False

    def done(self) -> bool:
        """Return whether the answer has arrived, or its client has ended."""
        return self.reply is not None or self.cancelled

    def fits(self, reply: Reply) -> bool:
        """Return whether this may be the answer: of the right type, or an error."""
        if isinstance(reply, Result):
            return reply.fault is not None
        if self.drained:
            return isinstance(reply, DrainReply)
        return isinstance(reply, View if self.request is None else Explanation)


class OwnRequest:
    """A request that the process of a node has submitted itself (`Node.submit`)."""

    def __init__(self, node: str, life: int, number: int, request: Request, *, sent: int, label: int) -> None:
        self.node = node
        self.life = life
        self.number = number
        self.request = request
        self.sent = sent
        self.label = label
        self.result: Result | None = None

    @property
    def name(self) -> str:
        """Its name in reports."""
        return f"request {self.number} of {self.node} itself"


class JsonRequest:
    """A text that a JSON client has sent. `u` is empty if it is no request."""

    def __init__(self, client: str, u: str, cmds: list[Any], fields: dict[str, Any], *, sent: int) -> None:
        self.client = client
        self.u = u
        self.cmds = cmds
        self.fields = fields
        self.sent = sent

    @property
    def span(self) -> int:
        """The longest time until its answer, in nanoseconds."""
        timeout = self.fields.get("timeout")
        return round((60.0 if timeout is None else timeout) * 1e9)


def json_request(client: str, text: str, *, sent: int) -> JsonRequest:
    """Read a text as far as a watcher needs it."""
    try:
        tree = json.loads(text)
        return JsonRequest(client, tree.get("u", ""), tree["cmds"], tree, sent=sent)
    except (ValueError, LookupError, AttributeError, TypeError):
        return JsonRequest(client, "", [], {}, sent=sent)
