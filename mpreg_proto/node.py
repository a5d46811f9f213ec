"""One node of the cluster, without a socket, a clock or a thread.

Inputs come as method calls, effects go out by `drain()`. `Node` is the interface of an embedder: inputs from the world,
commands of the process, outputs. Behind it is router.py: each input goes to the machine that handles it, and the
actions that it returns are carried out. Not thread-safe; never awaits; inputs run to completion and never raise for
what a peer did. docs/howto/embed.md describes the loop that drives it.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.cluster import Cluster
from mpreg_proto.config import NodeConfig
from mpreg_proto.effects import OUTCOMES, Effect, Framing, Notify, Outcome
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.guard import check_kind, check_texts, exclusive
from mpreg_proto.ids import MEMBER_ID_BYTES, Address, LinkId, MemberId, RequestId, RunId
from mpreg_proto.limits import Limits
from mpreg_proto.links import Links
from mpreg_proto.notices import Left
from mpreg_proto.requests.actions import LOCAL
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.relay import Relay
from mpreg_proto.requests.replies import Replies
from mpreg_proto.requests.worker import Worker
from mpreg_proto.rng import Entropy, Rng
from mpreg_proto.router import ActionRunner, Machines, Router
from mpreg_proto.timers import LINK_TIMERS, REQUEST_TIMERS, TimerKind
from mpreg_proto.view import NodeView
from mpreg_proto.wire.messages import GoodbyeReason, Message, Request
from mpreg_proto.wire.session import Received, Session, Stage
from mpreg_proto.wire.values import ValueCodec

__all__ = ["Node", "NodeConfig"]


class Tap(Protocol):
    """Observes the inputs and outputs of a node, such as a journal. It must not call the node."""

    def input(self, name: str, now: int, args: tuple[Any, ...]) -> None:
        """Record an input or command before the node handles it: `name` is a method of `Node`, `args` its arguments."""
        ...

    def drained(self, effects: list[Effect]) -> None:
        """Record the effects that `Node.drain` is about to return."""
        ...


class Node:
    """A member of the cluster. `me` and `entropy` must not be guessable; `rng` is seeded; all times are nanoseconds.

    Each input runs to its end before the next one begins. Every method raises LocalProtocolError, with nothing changed,
    if it is called while another one runs (by a callback, or in another thread), for a `now` that is not an int, and
    for the misuse that its docstring names.

    Its machines, `links`, `cluster`, `coordinator` and `worker`, may be read (the simulator's invariants do that),
    never called.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        me: MemberId,
        rng: Rng,
        entropy: Entropy,
        now: int,
        codec: ValueCodec | None = None,
        tap: Tap | None = None,
    ) -> None:
        """Raises LocalProtocolError for a member id that is not 16 bytes, or a configuration of wrong kinds."""
        if type(me) is not bytes or len(me) != MEMBER_ID_BYTES:
            raise LocalProtocolError(f"me={me!r:.60}: expected {MEMBER_ID_BYTES} bytes, such as os.urandom(16)")
        _check_config(config)
        self.config = config
        self._tap = tap
        self._free: list[None] = [None]
        self._now = now
        """The time of the last input."""
        self._finished = False
        """True once `leave` is over; its last effects may still have to be drained."""
        self.left: bool = False
        """True once `leave` is over and the goodbyes have been drained: the process may end."""
        machines = self._machines = Machines(config, rng=rng, entropy=entropy, codec=codec or ValueCodec())
        self.links: Links = machines.links
        self.replies: Replies = machines.replies
        self.worker: Worker = machines.worker
        self._timers = machines.timers
        self._log = machines.log
        runner = ActionRunner(machines)
        self._run = runner.run
        self._router = Router(machines, runner)
        self._run(machines.start_as(me, now, last_number=0), now)

    @property
    def me(self) -> MemberId:
        """The own member id; changes when the cluster has retired the old id (membership.md)."""
        return self._machines.me

    @property
    def shown(self) -> str:
        """The name and id of this node, to show to users."""
        return self._machines.shown

    @property
    def cluster(self) -> Cluster:
        """The members and their offers; replaced when the id changes."""
        return self._machines.cluster

    @property
    def coordinator(self) -> Coordinator:
        """The requests that this node coordinates; replaced when the id changes."""
        return self._machines.coordinator

    @property
    def relay(self) -> Relay:
        """The relayed requests; replaced when the id changes."""
        return self._machines.relay

    # -- inputs from the world: never raise for what a peer did ------------------------------------------------------

    @exclusive
    def link_opened(self, link: LinkId, *, framing: Framing, dialled: Address | None, now: int) -> None:
        """Add an open transport. `dialled` is the address of a `Dial`, None for an accepted one.

        Raises LocalProtocolError if the number `link` was used before; nothing has changed then.
        """
        if self._tap is not None:
            self._tap.input("link_opened", now, (link, framing, dialled))
        if self._finished:  # the dial was in progress, or the peer has no Goodbye yet
            self.links.decline(link, framing)
            return
        self.links.opened(link, framing=framing, dialled=dialled, now=now)
        if dialled is not None:
            self.cluster.dial_answered(dialled)
        self._settle(now)

    @exclusive
    def receive(self, link: LinkId, data: bytes | bytearray | memoryview | str, *, now: int) -> None:
        """Handle bytes of a stream, or one whole message of a link that keeps message boundaries.

        Raises LocalProtocolError for a link that is not open, and for text on a byte stream; nothing has changed then.
        """
        if self._tap is not None:
            self._tap.input("receive", now, (link, data))
        self._process(link, self.links.receive(link, data, now), now)

    @exclusive
    def handle(self, link: LinkId, message: Message, *, now: int) -> None:
        """Handle one message of a link with Framing.OBJECTS, as in `Send.message` at the other end."""
        if self._tap is not None:
            self._tap.input("handle", now, (link, message))
        self._process(link, self.links.handle(link, message, now), now)

    def _process(self, link: LinkId, received: Received, now: int) -> None:
        for message in received:
            if self.links.handle_control(link, message, now):
                self._router.deliver(link, message, now)
        if received.violation is not None:
            self.links.refuse(link, received.violation)
        self._settle(now)

    @exclusive
    def link_closed(self, link: LinkId, *, now: int) -> None:
        """Handle the end of a transport, for any reason; exactly once for each link, also after a `HangUp`.

        Raises LocalProtocolError for a link that is not open; nothing has changed then.
        """
        if self._tap is not None:
            self._tap.input("link_closed", now, (link,))
        clean = link in self.links.closing
        session = self.links.closed(link)
        if session is not None:
            self._let_go(session, clean=clean, now=now)
            self._settle(now)

    def _let_go(self, session: Session, *, clean: bool, now: int) -> None:
        """End all that belonged to a link: cancel bodies, settle calls, close requests. `clean`: after a goodbye."""
        link = session.link
        self.replies.forget(link)
        if session.member is not None:
            self._run(self.cluster.link_closed(link, clean=clean, now=now), now)
            self._run(self.coordinator.offers_changed(now, functions=(), members=(session.member,)), now)
        elif session.dialled is not None:
            self._run(self.cluster.dial_failed(session.dialled, now), now)
        self._run(self.coordinator.link_lost(link, now), now)
        self._run(self.worker.link_lost(link, now), now)
        self._run(self.relay.link_lost(link), now)

    @exclusive
    def dial_failed(self, address: Address, *, now: int) -> None:
        """Handle a `Dial` that failed; ignored if the core has already counted it as failed."""
        if self._tap is not None:
            self._tap.input("dial_failed", now, (address,))
        self._run(self.cluster.dial_failed(address, now), now)
        self._settle(now)

    @exclusive
    def progress(self, link: LinkId, *, now: int) -> None:
        """Record a sign of life: bytes of an incomplete message came on a link, or the peer took bytes.

        A call is optional for an adapter. Byte streams need it only for bytes that the peer took, as `receive` gets
        every byte that comes. Raises LocalProtocolError for a link that is not open.
        """
        self.links.require(link)
        if self._tap is not None:
            self._tap.input("progress", now, (link,))
        self.links.progress(link, now)

    @exclusive
    def backlog(self, link: LinkId, queued: int, *, now: int) -> None:
        """Handle the backlog of a link in bytes, whenever it has changed by much; 0 once all is sent.

        From `Limits.backlog` on a client is not read (`Pause`); a peer that takes nothing for `Limits.stalled` is hung
        up. A call is optional for an adapter that bounds its buffers itself. Raises LocalProtocolError for a link that
        is not open, and for a number below 0.
        """
        self.links.require(link)
        if type(queued) is not int or queued < 0:
            raise LocalProtocolError(f"queued={queued!r:.40}: expected a number of bytes, 0 or more")
        if self._tap is not None:
            self._tap.input("backlog", now, (link, queued))
        self.cluster.backlog(link, queued)
        self.links.backlog(link, queued, now)

    @exclusive
    def finished(self, run: RunId, outcome: Outcome, *, now: int, began: int | None = None) -> None:
        """Handle the end of a `Run`, by itself or after a `Cancel`; exactly once for each run.

        `began` is the time when its body really began, if that was later than its `Run`: placement uses how long calls
        take. Raises LocalProtocolError, with nothing changed, for a run that never began or has ended, and for
        something that is no `Outcome`.
        """
        if type(outcome) not in OUTCOMES:
            check_kind("the outcome of a run", outcome, OUTCOMES)
        if self._tap is not None:
            self._tap.input("finished", now, (run, outcome, began))
        self._run(self.worker.finished(run, outcome, now, began=began), now)
        self._settle(now)

    @exclusive
    def wake(self, *, now: int) -> None:
        """Run the timers that are due at `now`; does nothing when none is."""
        if self._tap is not None:
            self._tap.input("wake", now, ())
        for key in self._timers.due(now):
            kind = key[0]
            if kind == TimerKind.DECODE:
                link = LinkId(int(key[1]))
                self._process(link, self.links.continue_decoding(link, now), now)
            elif kind in LINK_TIMERS:
                self.links.wake(key, now)
            elif kind in REQUEST_TIMERS:
                self._run(self.coordinator.wake(key, now), now)
            elif kind == TimerKind.DRAIN_GRACE:
                self._finish(now)
            else:
                self._run(self.cluster.wake(key, now), now)
        self._settle(now)

    # -- commands from the process: may raise LocalProtocolError, then nothing has changed ---------------------------

    @exclusive
    def submit(self, request: Request, *, now: int) -> RequestId:
        """Run `request` as if a client had sent it; the result comes as `Notify(RequestFinished(id, result))`.

        An eager request gets several of them, and `result.last` is true in the last one.
        Raises LocalProtocolError for something that is no `Request`.
        """
        check_kind("what is submitted", request, (Request,))
        if self._tap is not None:
            self._tap.input("submit", now, (request,))
        number = int.from_bytes(self._machines.entropy(6), "big")
        own = msgspec.structs.replace(request, id=number, here=())
        self._run(self._machines.accept(LOCAL, own, now), now)
        self._settle(now)
        return RequestId(number)

    @exclusive
    def cancel(self, request: RequestId, *, now: int) -> None:
        """Cancel a submitted request; it still gets a result, with 1021 unless it is over already."""
        if self._tap is not None:
            self._tap.input("cancel", now, (request,))
        self._run(self.coordinator.cancel(LOCAL, request, now), now)
        self._settle(now)

    @exclusive
    def offer(self, function: FunctionSpec, *, now: int) -> None:
        """Offer a function from now on, in place of any earlier one of that name.

        Raises LocalProtocolError for a function without a name or slots, for resources that are no tuple of texts, and
        (1014) beyond a limit; nothing has changed then.
        """
        check_kind("what is offered", function, (FunctionSpec,))
        _check_function(function)
        if self._tap is not None:
            self._tap.input("offer", now, (function,))
        actions = self.cluster.offer(function, now)
        self._machines.offered[function.name] = function
        self._run(self.worker.concurrency(function.name, function.concurrency, now), now)
        self._run(actions, now)
        self._settle(now)

    @exclusive
    def withdraw(self, function: str, *, now: int) -> None:
        """Stop offering a function. Running calls go on; queued ones are refused.

        Raises LocalProtocolError if it is not offered.
        """
        if self._tap is not None:
            self._tap.input("withdraw", now, (function,))
        actions = self.cluster.withdraw(function, now)
        self._machines.offered.pop(function, None)
        self._run(actions, now)
        self._run(self.worker.withdrawn(function, now), now)
        self._settle(now)

    @exclusive
    def set_resources(self, resources: tuple[str, ...], *, now: int) -> None:
        """Replace the node's own resources. Raises LocalProtocolError for a bare text, and (1014) beyond a limit."""
        check_texts("resources", resources)
        if self._tap is not None:
            self._tap.input("set_resources", now, (resources,))
        actions = self.cluster.set_resources(resources, now)
        self._machines.resources = resources
        self._run(actions, now)
        self._settle(now)

    @exclusive
    def advertise(self, addresses: tuple[Address, ...], *, now: int) -> None:
        """Set the addresses at which others can dial this node. Raises LocalProtocolError for a bare text."""
        check_texts("addresses", addresses)
        if self._tap is not None:
            self._tap.input("advertise", now, (addresses,))
        self._machines.addresses = addresses
        self._run(self.cluster.advertise(addresses, now), now)
        self._settle(now)

    @exclusive
    def leave(self, *, now: int) -> None:
        """Drain, then leave: refuse new calls, finish running ones (10 s), send Goodbye. Again: skip the wait."""
        if self._tap is not None:
            self._tap.input("leave", now, ())
        if self.draining:
            self._finish(now)
            return
        self._machines.draining = True
        self._run(self.cluster.drain(now), now)
        self._timers.set((TimerKind.DRAIN_GRACE, 0), now + self.config.limits.drain_grace)
        self._settle(now)

    # -- outputs: legal at any time ----------------------------------------------------------------------------------

    @exclusive
    def drain(self) -> list[Effect]:
        """Return all effects since the last `drain`, in the order of their causes."""
        self.replies.flush(self.worker.queued)
        self._end_links(self._now)
        log, self._log[:] = self._log[:], []
        self.left = self._finished
        if self._tap is not None:
            self._tap.drained(log)
        return log

    @property
    def draining(self) -> bool:
        """True once `leave` was called."""
        return self._machines.draining

    def next_timeout(self) -> int | None:
        """Return the latest time for the next `wake`, or None."""
        return self._timers.next()

    def view(self, *, now: int) -> NodeView:
        """Return the view of the cluster and of this node."""
        return self._machines.view(now)

    # -- internals ---------------------------------------------------------------------------------------------------

    def _settle(self, now: int) -> None:
        """Finish an input: close links that are done, and end draining once no work is left."""
        self._now = now
        if self.links.closing or self.links.ended:
            self._end_links(now)
        if self._machines.draining and not self._machines.busy:
            self._finish(now)

    def _end_links(self, now: int) -> None:
        """Hang up links that both sides have closed, and let go of all that belonged to ended links."""
        for link in list(self.links.closing):
            if self.links.sessions[link].stage is Stage.BOTH_CLOSING and not self._machines.busy_on(link):
                self.links.hang_up(link)
        while self.links.ended:
            session, clean = self.links.release()
            self._let_go(session, clean=clean, now=now)

    def _finish(self, now: int) -> None:
        """End draining: answer open requests, stop running calls, announce LEFT, close all links."""
        if self._finished:
            return
        self._finished = True
        self._timers.cancel((TimerKind.DRAIN_GRACE, 0))
        self.links.keep_order()
        self._run(self.coordinator.end_all(now), now)
        self._run(self.worker.stop_all(), now)
        self.replies.flush(self.worker.queued)
        self._run(self.cluster.leave(now), now)
        for link in list(self.links.sessions):
            self.links.goodbye(link, GoodbyeReason.LEAVING, now)
            self.links.hang_up(link)
        self._end_links(now)
        self._log.append(Notify(Left()))


def _check_config(config: NodeConfig) -> None:
    """Raise LocalProtocolError for a configuration whose fields are of wrong kinds."""
    check_kind("config", config, (NodeConfig,))
    check_kind("config.name", config.name, (str,))
    check_kind("config.cluster_id", config.cluster_id, (str,))
    check_texts("config.addresses", config.addresses)
    check_texts("config.seeds", config.seeds)
    check_texts("config.resources", config.resources)
    check_kind("config.limits", config.limits, (Limits,))


def _check_function(function: FunctionSpec) -> None:
    """Raise LocalProtocolError for a function that nobody could call."""
    name, slots = function.name, function.concurrency
    if type(name) is not str or not name:
        raise LocalProtocolError(f"the name of a function is {name!r:.60}: expected a text that is not empty")
    if type(slots) is not int or slots < 1:
        raise LocalProtocolError(
            f"function {name!r}: concurrency={slots!r:.40}: expected 1 or more, the number of its "
            "calls that run at once"
        )
    check_texts(f"function {name!r}: resources", function.resources)
