"""The machines of one node, put together: links, answers, worker, cluster, coordinator, relay.

None calls another: each returns what it wants done, and `ActionRunner` brings it to whom it concerns. Here they are
made, under a first identity and under later ones, and asked what only all of them together know. Nothing here decides
what an input or a message means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from mpreg_proto.cluster.actions import Output
from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.cluster import Cluster
from mpreg_proto.config import NodeConfig
from mpreg_proto.effects import Effect
from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.links import Links
from mpreg_proto.requests import faults
from mpreg_proto.requests.actions import Action, SendReply
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.relay import Relay
from mpreg_proto.requests.replies import Replies
from mpreg_proto.requests.worker import Worker
from mpreg_proto.rng import Entropy, Rng
from mpreg_proto.timers import LINK_TIMERS, REQUEST_TIMERS, TimerKind, Timers
from mpreg_proto.wire.handshake import MEMBER_ID_BYTES, hello
from mpreg_proto.wire.messages import Call, Request, Result
from mpreg_proto.wire.values import ValueCodec


class OpenLinks(Mapping[MemberId, LinkId]):
    """The link that calls for each member go over, if something can be sent over it: of one that this node has just
    closed the cluster hears only when its transport is gone.
    """

    __slots__ = ("_best", "_links")

    def __init__(self, best: Mapping[MemberId, LinkId], links: Links) -> None:
        self._best = best
        self._links = links

    def __getitem__(self, member: MemberId) -> LinkId:
        link = self._best[member]
        if not self._links.is_open(link):
            raise KeyError(member)
        return link

    def __contains__(self, member: object) -> bool:
        link = self._best.get(member)  # type: ignore[call-overload]  # of any kind, as for every mapping
        return link is not None and self._links.is_open(link)

    def __iter__(self) -> Iterator[MemberId]:
        return (member for member in self._best if member in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Machines:
    """See the module. `log` is the one list of effects, in the order of their causes."""

    def __init__(self, config: NodeConfig, *, rng: Rng, entropy: Entropy, codec: ValueCodec) -> None:
        """`start_as` must follow: until then there is no cluster and no coordinator."""
        self.config = config
        self.entropy = entropy
        self.timers = Timers()
        self.log: list[Effect] = []
        self.draining = False
        """Whether this node takes nothing new."""
        self.offered: dict[str, FunctionSpec] = {}
        self.resources = config.resources
        self.addresses = config.addresses
        self._rng = rng
        self.links = Links(
            lambda: hello(cluster=config.cluster_id, member=self.me, name=config.name),
            codec=codec,
            timers=self.timers,
            limits=config.limits,
            log=self.log,
            pending=self.pending,
        )
        self.replies = Replies(self.links, self.log)
        self.worker = Worker(self.refusal, codec, config.limits)
        self.me: MemberId
        self.cluster: Cluster
        self.coordinator: Coordinator
        self.relay: Relay

    def start_as(self, me: MemberId, now: int, *, last_number: int) -> list[Output]:
        """Be member `me`, at first or anew: know nobody, answer for nothing. Returns what that needs to begin with.

        `last_number`: the newest dispatch of an earlier life, some of whose calls the worker may still run.
        """
        self.me = me
        self.cluster = Cluster(
            me,
            name=self.config.name,
            addresses=self.addresses,
            seeds=self.config.seeds,
            resources=self.resources,
            timers=self.timers,
            rng=self._rng.child("cluster"),
            limits=self.config.limits,
            now=now,
            last_received=self.links.last_activity,
        )
        self.coordinator = Coordinator(
            me,
            catalogue=self.cluster.index,
            links=OpenLinks(self.cluster.links, self.links),
            timers=self.timers,
            rng=self._rng.child("placement"),
            limits=self.config.limits,
            last_number=last_number,
            next_hop=self._next_hop,
            draw_number=lambda: int.from_bytes(self.entropy(3), "big") >> 1,
        )
        self.relay = Relay(me, number=self.coordinator.next_number, limits=self.config.limits)
        self.worker.shown = self.shown
        out = self.cluster.start(now)
        for function in self.offered.values():
            out += self.cluster.offer(function, now)
        return out + self.cluster.drain(now) if self.draining else out

    def _next_hop(self, member: MemberId, avoiding: Collection[bytes]) -> LinkId | None:
        """The link over which a member may be reached by relay, but for those that would not pass a call on."""
        link = self.cluster.routes.next_hop(member, avoiding=avoiding)
        return link if link is not None and self.links.is_open(link) else None

    def retire_id(self, now: int) -> list[Output]:
        """Go on as another member; whatever was of the old one must be ended before."""
        self.timers.clear(keep=(*LINK_TIMERS, *REQUEST_TIMERS, TimerKind.DRAIN_GRACE))
        return self.start_as(MemberId(self.entropy(MEMBER_ID_BYTES)), now, last_number=self.coordinator.last_number)

    @property
    def shown(self) -> str:
        """This node as people see it."""
        return show(self.config.name, self.me)

    # -- what only all of them know -----------------------------------------------------------------------------------

    def accept(self, link: LinkId, request: Request, now: int) -> Sequence[Action]:
        """A request to be answered for here, unless this node is leaving."""
        if self.draining:
            return [SendReply(link, Result(request.id, fault=faults.DRAINING.with_details(maybe_executed=False)))]
        return self.coordinator.submit(request, link, now)

    def refusal(self, call: Call, assumed: bool) -> Fault | None:
        """Why this node cannot run `call` now: 1001 for what is not offered here (the sender's view is old), 1024.

        What is taken for idempotent (`assumed`) and is not is refused too: its coordinator would start it twice.
        """
        if self.draining and call.function in self.offered:
            return faults.DRAINING
        index = self.cluster.index
        for one in index.offers(call.function, call.resources, call.version):
            if one.member == self.me:
                return faults.not_idempotent(call) if assumed and not one.idempotent else None
        return faults.not_found(call, index.explain_no_match(call.function, call.resources, call.version))

    def pending(self, link: LinkId) -> bool:
        """Whether anything is still to come or to go on `link`."""
        asked = self.worker.busy_on(link) or self.coordinator.busy_on(link)
        return asked or self.replies.pending(link) or self.relay.busy_on(link)

    @property
    def busy(self) -> bool:
        """Whether anything is answered for, run or passed on here."""
        return bool(self.coordinator.requests or self.worker.running or self.worker.queued or len(self.relay))
