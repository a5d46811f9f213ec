"""Invariants 8 and 9 for callers that are no native clients: JSON clients, a node's own process, and queries.

A request of theirs ends once and in time, with the results of a sequential oracle. A query gets one answer of its type.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mpreg_proto.ids import LinkId
from mpreg_proto.notices import Left, Notice
from mpreg_proto.wire.messages import Call, Done, Explanation, Failed, Request, Result, View
from mpreg_proto.wire.values import Ref
from mpreg_transports.testing.invariants.completion import GRACE
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.invariants.results import OracleWatcher, difference
from mpreg_transports.testing.invariants.sequential import Failure, evaluate
from mpreg_transports.testing.simulation.calls import JsonRequest, OwnRequest, SimQuery, json_request
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import JsonClientHost, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher
from mpreg_transports.values import default_codec

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.hosts import World

_IN_TRANSIT = 5 * SECOND
"""Longer than an answer takes on any path without a bandwidth limit."""


class OwnRequestCompletion(OracleWatcher):
    """Invariants 8 and 9: a request of a node's own process ends once, by its deadline, with the right results."""

    def begin(self, sim: World) -> None:
        super().begin(sim)
        self._open: dict[int, OwnRequest] = {}
        self._named_rows: dict[int, dict[str, None]] = {}
        """The calls that the results so far have named, by the label of the request."""

    def own_submitted(self, request: OwnRequest) -> None:
        self._open[request.label] = request

    def own_finished(self, request: OwnRequest, result: Result) -> None:
        if request.label not in self._open:
            raise Violation(9, f"{request.name} has ended twice")
        self._in_time(request)
        named = self._named_rows.setdefault(request.label, {})
        rows: tuple[Done | Failed, ...] = (*result.done, *result.failed)
        named.update(dict.fromkeys(row.name for row in rows))
        expected = evaluate(request.request, self._pure, default_codec())
        for row in result.done:
            text = difference(row.value, expected[row.name]) if row.name in expected else ""
            if text:
                raise Violation(8, f"{row.name!r} of {request.name} {text}")
        if not result.last:
            return
        del self._open[request.label], self._named_rows[request.label]
        for name in request.request.want or () if result.fault is None else ():
            if name not in named:
                raise Violation(9, f"{request.name} ended without {name!r}")

    def sweep(self, sim: World) -> None:
        for label, request in list(self._open.items()):
            host = sim.nodes[request.node]
            if not host.alive or host.life != request.life:
                del self._open[label]
                self._named_rows.pop(label, None)
            elif host.stalled_until <= sim.now:
                self._in_time(request)

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        if type(notice) is Left:
            for request in self._open.values():
                if (request.node, request.life) == (host.name, host.life):
                    raise Violation(9, f"{stamp(host)} leaves, and its own request {request.number} has no result")

    def _in_time(self, request: OwnRequest) -> None:
        host = self._sim.nodes[request.node]
        limits = host.spec.limits
        span = limits.default_timeout if request.request.timeout is None else request.request.timeout
        due = max(request.sent + min(span, limits.longest_timeout), host.stalled_until) + GRACE
        if self._sim.now > due:
            late = (self._sim.now - due) / SECOND
            raise Violation(9, f"{request.name} ends {late:g} s after its deadline")


class QueryAnswers(Watcher):
    """Invariant 9: a query gets one answer, which is of its type and about the right calls."""

    def begin(self, sim: World) -> None:
        self._sim = sim

    def query_answered(self, query: SimQuery, reply: Reply) -> None:
        who = f"query {query.number} of {query.client}"
        if query.reply is not None:
            raise Violation(9, f"{who} has two answers")
        if not query.fits(reply):
            raise Violation(9, f"{who} is answered by {type(reply).__name__}")
        if isinstance(reply, View):
            tree = json.loads(reply.view)
            if not any(row["me"] for row in tree["members"]):
                raise Violation(9, f"{who} is answered by a view without its own node")
        elif isinstance(reply, Explanation) and reply.fault is None and query.request is not None:
            names = [row.name for row in reply.rows]
            if names != [call.name for call in query.request.calls]:
                raise Violation(9, f"{who} asks for other calls than {names}")

    def sweep(self, sim: World) -> None:
        for query in sim.queries:
            if not query.done():
                client = sim.clients[query.client]
                due = max(query.sent + client.session._limits.default_timeout, client.stalled_until) + GRACE
                if sim.now > due and client.alive:
                    raise Violation(9, f"query {query.number} of {query.client} has no answer at {sim.time:.6f} s")


class JsonAnswers(OracleWatcher):
    """Invariants 8 and 9: a JSON text gets one answer on its link, with the right results, or its link ends."""

    def begin(self, sim: World) -> None:
        super().begin(sim)
        self._open: dict[tuple[str, int, LinkId], list[JsonRequest]] = {}

    def json_sent(self, host: JsonClientHost, link: LinkId, text: str) -> None:
        request = json_request(host.name, text, sent=host.sim.now)
        self._open.setdefault((host.name, host.life, link), []).append(request)

    def json_answered(self, host: JsonClientHost, link: LinkId, answer: Any) -> None:
        waiting = self._open.get((host.name, host.life, link), [])
        if not waiting and answer["u"] == "" and answer["error"] is not None:
            return  # the link ends for this reason
        request = next((one for one in waiting if one.u == answer["u"]), None)
        if request is None:
            raise Violation(9, f"{host.name} gets an answer for {answer['u']!r}, which it has not asked or has got")
        waiting.remove(request)
        if request.u and answer["r"]:
            self._compare(request, answer["r"])

    def settled(self, sim: World) -> None:
        for host in sim.json_clients.values():
            for link, (wire, side) in host.wires.items() if host.alive else ():
                other = wire.ends[1 - side]
                if wire.died is not None or not other.is_open or sim.network.has_bandwidth_limit:
                    continue
                for request in self._open.get((host.name, host.life, link), ()):
                    if sim.now > max(request.sent + request.span, other.host.stalled_until) + _IN_TRANSIT:
                        raise Violation(9, f"{host.name} has no answer for {request.u!r} on link {link}")

    def _compare(self, request: JsonRequest, results: dict[str, Any]) -> None:
        try:
            meant = _meant(request)
        except LookupError:
            return
        codec = default_codec()
        for name, value in evaluate(meant, self._pure, codec).items():
            if name not in results:
                continue
            who = f"{name!r} of {request.u!r} of {request.client} is {results[name]!r}"
            if isinstance(value, Failure):
                raise Violation(8, f"{who}; one after the other it fails")
            expected = codec.decode(value)
            if _is_json(expected) and expected != results[name]:
                raise Violation(8, f"{who}, not {expected!r}")


def _meant(request: JsonRequest) -> Request:
    """Return what a JSON request means, as native calls (docs/howto/call-from-json.md)."""
    names = [command["name"] for command in request.cmds]
    explicit = request.fields.get("refs") == "explicit"
    codec, calls = default_codec(), []
    for command in request.cmds:
        needs: dict[str, None] = {}
        others = [] if explicit else [name for name in names if name != command["name"]]
        tree = _referring([command.get("args", []), command.get("kwargs", {})], others, needs, explicit=explicit)
        calls.append(Call(command["name"], command["fun"], codec.encode(tree), tuple(needs)))
    return Request(0, tuple(calls))


def _referring(tree: Any, others: list[str], needs: dict[str, None], *, explicit: bool) -> Any:
    if isinstance(tree, str) and tree in others:
        needs[tree] = None
        return Ref(tree, ())
    if isinstance(tree, list):
        return [_referring(item, others, needs, explicit=explicit) for item in tree]
    if isinstance(tree, dict):
        if explicit and "$data" in tree:
            return tree["$data"]
        if explicit and "$ref" in tree:
            needs[tree["$ref"]] = None
            return Ref(tree["$ref"], tuple(tree.get("path", ())))
        return {key: _referring(item, others, needs, explicit=explicit) for key, item in tree.items()}
    return tree


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int)


__all__ = ["JsonAnswers", "OwnRequestCompletion", "QueryAnswers"]
