"""Counts of situations that a generator of faults must produce now and then.

    sometimes("a partition healed while calls were pending", bool(pending))

A long run without a situation has not tested what depends on it. That is a failure of the generator, not of the
cluster. The watcher `Coverage` counts those of `SITUATIONS`; tests add their own by name. The process has one tally for
all simulations, until `take` reads and clears it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mpreg_proto.effects import Outcome, Returned, Run, Stopped
from mpreg_proto.errors import ErrorCode
from mpreg_proto.ids import LinkId
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_proto.notices import LinkClosed, LinkEndCause, MemberChanged, Notice, PeerUnreachable, Standing, StrayResult
from mpreg_proto.requests.worker import ITEM_WINDOW
from mpreg_proto.timers import TimerKind
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import (
    BucketHashes,
    DialBack,
    Explanation,
    Fetch,
    Goodbye,
    GoodbyeReason,
    IndirectAck,
    InputItems,
    Items,
    Message,
    PingReq,
    Pull,
    Refused,
    Request,
    Result,
    View,
)
from mpreg_transports.testing.invariants.oracles import attempt_of
from mpreg_transports.testing.simulation.calls import OwnRequest, SimCall, SimQuery
from mpreg_transports.testing.simulation.hosts import ClientHost, Host, JsonClientHost, NodeHost, PostClientHost
from mpreg_transports.testing.simulation.watchers import Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

SITUATIONS: tuple[str, ...] = (
    "a body ran for longer than a silent or idle link stays open",
    "a client's machine slept for longer than a silent link stays open",
    "a connection died without a word",
    "a dial hung",
    "a JSON link was not read for a while",
    "a limit was exceeded (1014)",
    "a member was evicted, as too many are dead",
    "a node slept for longer than a silent link stays open",
    "a node was overloaded (1022)",
    "a process died in the middle of its effects",
    "a request ended that took more than 100 s",
    "a request waited at its client for credit",
    "a request came while the cluster settled",
    "a JSON client had an answer",
    "a POST had an answer",
    "a client gave a POST up",
    "a node advertised other addresses",
    "a node held other resources",
    "a node left in order a second time, to skip the wait",
    "a node left in order at the command of a client",
    "a request was sent again after a loss, and accepted",
    "a request was sent again after a loss, and refused",
    "a request was sent again after a refusal",
    "a query was answered: explanation",
    "a query was answered: view",
    "a client had enough of a stream",
    "a generator waited for its consumer",
    "a stream was lost after its first item (1023)",
    "a call took items while their generator ran",
    "a call that took items ended before their generator",
    "a call that takes items was placed again",
    "items for a call went over a relay",
    "a request of a node's own process ended",
    "a request of a node's own process was cancelled",
    "a slow link carried which catalogues changed, not the changes",
    "a member was RETIRED after its time",
    "a node of another cluster was refused (1005)",
    "a node of another protocol version was refused (1040)",
    "a rare dial was due",
    "a table of members was full",
    "a way carried 4 kB/s",
    "nodes compared hashes of buckets",
    "one of two connections died without a word",
    "several calls of one request went over one relay",
    "a body was cancelled while it ran",
    "a call failed over to another node",
    "a call waited for a link",
    "a call waited for a node that offers it",
    "a call waited for a slot",
    "a catalogue was fetched from a version on",
    "a dial found nobody",
    "a duplicate link was closed",
    "a frame came in pieces",
    "a late answer was dropped",
    "a link that calls were on was closed as a duplicate",
    "a link was given up as silent",
    "a member was accused and refuted it",
    "a member was found DEAD",
    "a member was RETIRED as another answers at its address",
    "a member said LEFT",
    "a member that could not be dialled was asked to dial",
    "an indirect ping was requested",
    "an indirect ack came for a member",
    "a node pulled what a digest was ahead in",
    "a part of a request came back beside failures",
    "a request was relayed",
    "a reset took data that was on its way",
    "a stale route was refused",
    "a SUSPECT member was chosen",
    "an idempotent body started twice",
    "calls were refused by a node that leaves",
    "content waited on a narrow way",
    "calls were cancelled for a failure of another (1021)",
    "nobody could run a call (1001)",
    "one dispatch took several calls",
    "the deadline passed (1020)",
    "the outcome was unknown (1023)",
)
"""The situations that a long run of the swarm must produce."""
_BY_CODE: dict[int, str] = {
    ErrorCode.COMMAND_NOT_FOUND: "nobody could run a call (1001)",
    ErrorCode.DEADLINE_EXCEEDED: "the deadline passed (1020)",
    ErrorCode.CANCELLED: "calls were cancelled for a failure of another (1021)",
    ErrorCode.OUTCOME_UNKNOWN: "the outcome was unknown (1023)",
    ErrorCode.DRAINING: "calls were refused by a node that leaves",
    ErrorCode.LIMIT_EXCEEDED: "a limit was exceeded (1014)",
    ErrorCode.OVERLOADED: "a node was overloaded (1022)",
}
_BY_STANDING = {
    Standing.DEAD: "a member was found DEAD",
    Standing.LEFT: "a member said LEFT",
    Standing.RETIRED: "a member was RETIRED as another answers at its address",
}
_BY_KIND: dict[type, str] = {
    BucketHashes: "nodes compared hashes of buckets",
    PingReq: "an indirect ping was requested",
    DialBack: "a member that could not be dialled was asked to dial",
    Pull: "a node pulled what a digest was ahead in",
    IndirectAck: "an indirect ack came for a member",
}

_tally: dict[str, int] = {}


def sometimes(name: str, condition: object = True) -> None:
    """Count a situation if `condition` is true; otherwise only record its name."""
    _tally[name] = _tally.get(name, 0) + bool(condition)


def take() -> dict[str, int]:
    """Return how often each situation occurred since the last `take`, and clear the counts.

    The situations of `SITUATIONS` that did not occur have the count 0.
    """
    taken = {name: _tally.pop(name, 0) for name in SITUATIONS}
    taken.update(_tally)
    _tally.clear()
    return taken


def never(reached: Mapping[str, int]) -> list[str]:
    """Return the situations that did not occur."""
    return [name for name, count in reached.items() if not count]


def table(reached: Mapping[str, int]) -> list[str]:
    """Return a table for reports, one line for each situation, the rarest first."""
    rows = sorted(reached.items(), key=lambda row: (row[1], row[0]))
    return [f"{count:>9,}  {name}" if count else f"    NEVER  {name}" for name, count in rows]


class Coverage(Watcher):
    """A watcher that counts the `SITUATIONS`. It changes and checks nothing."""

    message_types: ClassVar[tuple[type, ...]] = (Result, Goodbye, Fetch, Request, Refused, InputItems, *_BY_KIND)

    def begin(self, sim: World) -> None:
        self._starts: dict[CallKey, int] = {}
        self._sim = sim
        self._began: dict[tuple[str, int, int], int] = {}
        self._counted: dict[str, int] = {}
        self._read = 0
        """The length of the part of the script that was read."""
        self._settles = False
        self._left: dict[tuple[str, int], None] = {}
        self._sent: dict[tuple[str, int, int, int], None] = {}
        """The requests of native clients, by client, life and number."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if type(message) is Result and isinstance(host, NodeHost):
            for row in message.failed:
                if row.refused and row.fault.code == ErrorCode.COMMAND_NOT_FOUND:
                    sometimes("a stale route was refused")
                elif row.refused and row.fault.code == ErrorCode.DRAINING:
                    sometimes("calls were refused by a node that leaves")
        elif type(message) is Goodbye:
            duplicate = message.reason == GoodbyeReason.DUPLICATE
            sometimes("a duplicate link was closed", duplicate)
            if message.reason == GoodbyeReason.IDLE:
                sometimes("an idle link was closed (rings only)")
            if duplicate and isinstance(host, NodeHost):
                sometimes("a link that calls were on was closed as a duplicate", host.node._machines.busy_on(link))
        elif type(message) is Fetch:
            sometimes("a catalogue was fetched from a version on", message.have > 0)
        elif type(message) is Request:
            sometimes("a request was relayed", message.hops > 0)
            self._count_repeats(host, link, message)
            sometimes("several calls of one request went over one relay", message.hops > 0 and len(message.calls) > 1)
        elif type(message) is InputItems:
            relayed = isinstance(host, NodeHost) and host.node.relay.has(link, message.id)
            sometimes("items for a call went over a relay", relayed)
        elif type(message) is Refused:
            cluster = message.fault.code == ErrorCode.CLUSTER_MISMATCH
            sometimes("a node of another cluster was refused (1005)", cluster)
            sometimes("a node of another protocol version was refused (1040)", not cluster)
        elif type(message) in _BY_KIND:
            sometimes(_BY_KIND[type(message)])

    def _count_repeats(self, host: Host, link: LinkId, request: Request) -> None:
        """Count what a client sends again, by the node's answer that will follow."""
        if not isinstance(host, NodeHost) or host.node.links.sessions[link].member is not None:
            return
        wire, side = host.wires[link]
        sent = (wire.ends[1 - side].host.name, wire.ends[1 - side].life, link if request.again else 0, request.id)
        if request.again:
            index = host.node.cluster.index
            offers = [
                one for call in request.calls for one in index.offers(call.function, call.resources, call.version)
            ]
            accepted = bool(offers) and all(one.idempotent for one in offers)
            sometimes("a request was sent again after a loss, and accepted", accepted)
            sometimes("a request was sent again after a loss, and refused", not accepted)
        elif isinstance(wire.ends[1 - side].host, ClientHost):
            sometimes("a request was sent again after a refusal", sent in self._sent)
            self._sent[sent] = None

    def node_event_handled(self, host: NodeHost) -> None:
        for request, name in host.node.coordinator.pending_calls.calls:
            timers = host.node._timers
            sometimes("a call waited for a link", (TimerKind.LINK_WAIT, request, name) in timers)
            sometimes("a call waited for a node that offers it", (TimerKind.OFFER_WAIT, request, name) in timers)

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        assert attempt is not None, "it was there a moment ago"
        if attempt.execution.history.losses.get(key.call):
            sometimes("a call failed over to another node")
        history = attempt.execution.history
        again = key.call in history.losses or key.call in history.refusals
        sometimes("a call that takes items was placed again", again and key.call in attempt.execution.fed)
        if attempt.candidate.suspect:
            sometimes("a SUSPECT member was chosen")
        if len(host.node.coordinator.outstanding._by_number[number]) > 1:
            sometimes("one dispatch took several calls")

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        starts = self._starts[key] = self._starts.get(key, 0) + 1
        if starts > 1:
            sometimes("an idempotent body started twice")
        self._began[host.name, host.life, run.run] = host.sim.now
        sometimes("a call took items while their generator ran", run.fed)
        job = host.node.worker.job(run.run)
        if job is not None and host.local > job.accepted:
            sometimes("a call waited for a slot")

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        if type(outcome) is Stopped:
            sometimes("a body was cancelled while it ran")
        job = host.node.worker.job(run.run)
        early = job is not None and job.input is not None and not job.input.last and type(outcome) is Returned
        sometimes("a call that took items ended before their generator", early)
        ran = host.sim.now - self._began.pop((host.name, host.life, run.run))
        sometimes("a body ran for longer than a silent or idle link stays open", ran > DEFAULT.link_idle)

    def crashed(self, host: NodeHost) -> None:
        sometimes("a process died in the middle of its effects", host.died_amid)

    def submitted(self, call: SimCall) -> None:
        sometimes("a request came while the cluster settled", self._settles)
        session = self._sim.clients[call.client].session
        sometimes("a request waited at its client for credit", session.ready and call.number in session._unsent)

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result):
            return
        if reply.last and reply.fault is None:
            sometimes("a request ended that took more than 100 s", self._sim.now - call.sent > 100 * SECOND)
        faults = [row.fault for row in reply.failed] + ([] if reply.fault is None else [reply.fault])
        for fault in faults:
            if fault.code in _BY_CODE:
                sometimes(_BY_CODE[fault.code])
            lost = fault.code == ErrorCode.OUTCOME_UNKNOWN and str(fault.details.get("call")) in call.items
            sometimes("a stream was lost after its first item (1023)", lost)
        if call.request.partial and reply.done and reply.failed:
            sometimes("a part of a request came back beside failures")

    def items_received(self, call: SimCall, items: Items) -> None:
        waits = len(call.items.get(items.call, ())) + len(items.values) - call.taken.get(items.call, 0) == ITEM_WINDOW
        sometimes("a generator waited for its consumer", waits)

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        kind = type(notice)
        if kind is MemberChanged:
            assert isinstance(notice, MemberChanged)
            if notice.standing in _BY_STANDING:
                sometimes(_BY_STANDING[notice.standing])
            if notice.standing is Standing.RETIRED:
                members, limits = host.node.cluster.members, host.spec.limits
                full = limits.dead_members < DEFAULT.dead_members and len(members._dead) >= limits.dead_members
                sometimes("a member was evicted, as too many are dead", full)
                timely = limits.dead_for < DEFAULT.dead_for and not full
                sometimes("a member was RETIRED after its time", timely)
            if notice.member == host.node.me and notice.standing is Standing.ALIVE:
                sometimes("a member was accused and refuted it")
        elif kind is StrayResult:
            sometimes("a late answer was dropped")
        elif kind is PeerUnreachable:
            sometimes("a dial found nobody")
        elif isinstance(notice, LinkClosed) and notice.cause is LinkEndCause.SILENT:
            sometimes("a link was given up as silent")

    def query_answered(self, query: SimQuery, reply: Reply) -> None:
        sometimes("a query was answered: explanation", type(reply) is Explanation)
        sometimes("a query was answered: view", type(reply) is View)

    def own_finished(self, request: OwnRequest, result: Result) -> None:
        sometimes("a request of a node's own process ended", result.last and result.fault is None)
        cancelled = result.fault is not None and result.fault.code == ErrorCode.CANCELLED
        sometimes("a request of a node's own process was cancelled", cancelled)

    def json_answered(self, host: JsonClientHost, link: LinkId, answer: Any) -> None:
        posted = isinstance(host, PostClientHost)
        sometimes("a POST had an answer" if posted else "a JSON client had an answer", answer["r"])

    def sweep(self, sim: World) -> None:
        network = sim.network
        for name, count in (
            ("a frame came in pieces", network.rechunked),
            ("a reset took data that was on its way", network.broken),
            ("content waited on a narrow way", network.waited),
            ("a dial hung", network.hung),
            ("a connection died without a word", len(network.dead)),
            ("one of two connections died without a word", network.halved),
            ("a JSON link was not read for a while", network.paused),
        ):
            sometimes(name, count > self._counted.get(name, 0))
            self._counted[name] = count
        for host in sim.nodes.values():
            if host.alive:
                self._look(host)
        enough = any(one.stops_early and one.cancelled and one.items for one in sim.calls[-200:])
        sometimes("a client had enough of a stream", enough)
        self._read_script(sim)
        sometimes("a node left in order at the command of a client", len(sim.drained) > self._counted.get("drained", 0))
        self._counted["drained"] = len(sim.drained)

    def _look(self, host: NodeHost) -> None:
        cluster, limits = host.node.cluster, host.spec.limits
        sometimes("a table of members was full", cluster.members.living >= limits.members)
        sometimes("a slow link carried which catalogues changed, not the changes", cluster._gossip.slow_links)
        sometimes("a rare dial was due", any(row.rare for row in cluster._dialer._rows.values()))
        for wire, side in host.wires.values():
            names = wire.ends[side].host.name, wire.ends[1 - side].host.name
            slow = 0 < host.sim.network.profile(*names).bandwidth <= 4_000 and wire.free[side] > host.sim.now
            sometimes("a way carried 4 kB/s", slow)

    def _read_script(self, sim: World) -> None:
        for action in sim.trace.script[self._read :]:
            self._settles = self._settles or action.name == "calm"
            sometimes("a client gave a POST up", action.name == "post" and action.args["patience"] is not None)
            sometimes("a node held other resources", action.name == "set_resources")
            sometimes("a node advertised other addresses", action.name == "advertise")
            if action.name == "leave":
                host = sim.nodes[action.args["name"]]
                mark = (host.name, host.life)
                sometimes("a node left in order a second time, to skip the wait", mark in self._left)
                self._left[mark] = None
            if action.name == "stall" and action.args["seconds"] * SECOND > DEFAULT.gone_after:
                client = "@" in action.args["name"]
                sometimes("a client's machine slept for longer than a silent link stays open", client)
                sometimes("a node slept for longer than a silent link stays open", not client)
        self._read = len(sim.trace.script)
