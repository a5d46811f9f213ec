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
from mpreg_proto.effects import Effect, Framing, HangUp, Notify, Outcome
from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import Address, LinkId, MemberId, RequestId, RunId
from mpreg_proto.notices import Left
from mpreg_proto.requests.actions import LOCAL
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.relay import Relay
from mpreg_proto.rng import Entropy, Rng
from mpreg_proto.router import ActionRunner, Machines, Router
from mpreg_proto.timers import LINK_TIMERS, REQUEST_TIMERS, TimerKind
from mpreg_proto.view import NodeView
from mpreg_proto.wire.messages import GoodbyeReason, Message, Request
from mpreg_proto.wire.session import Received, Stage
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
        self.config = config
        self._tap = tap
        self.left = False
        """True once `leave` is over: the process may end."""
        machines = self._machines = Machines(config, rng=rng, entropy=entropy, codec=codec or ValueCodec())
        self.links = machines.links
        self.replies = machines.replies
        self.worker = machines.worker
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

    def link_opened(self, link: LinkId, *, framing: Framing, dialled: Address | None, now: int) -> None:
        """Add an open transport. `dialled` is the address of a `Dial`, None for an accepted one.

        Raises LocalProtocolError if `link` is open already; nothing has changed then.
        """
        if self._tap is not None:
            self._tap.input("link_opened", now, (link, framing, dialled))
        if self.left:  # the dial was in progress, or the peer has no Goodbye yet
            self._log.append(HangUp(link, CloseCode.GOING_AWAY))
            return
        self.links.opened(link, framing=framing, dialled=dialled, now=now)

    def receive(self, link: LinkId, data: bytes | bytearray | memoryview | str, *, now: int) -> None:
        """Handle bytes of a stream, or one whole message of a link that keeps message boundaries."""
        if self._tap is not None:
            self._tap.input("receive", now, (link, data))
        self._process(link, self.links.receive(link, data, now), now)

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

    def link_closed(self, link: LinkId, *, now: int) -> None:
        """Handle the end of a transport, for any reason; exactly once for each link."""
        if self._tap is not None:
            self._tap.input("link_closed", now, (link,))
        clean = link in self.links.closing
        session = self.links.closed(link)
        if session is None:
            return
        self.replies.forget(link)
        if session.member is not None:
            self._run(self.cluster.link_closed(link, clean=clean, now=now), now)
            self._run(self.coordinator.offers_changed(now, functions=(), members=(session.member,)), now)
        elif session.dialled is not None:
            self._run(self.cluster.dial_failed(session.dialled, now), now)
        self._run(self.coordinator.link_lost(link, now), now)
        self._run(self.worker.link_lost(link, now), now)
        self._run(self.relay.link_lost(link), now)
        self._settle(now)

    def dial_failed(self, address: Address, *, now: int) -> None:
        """Handle a `Dial` that failed."""
        if self._tap is not None:
            self._tap.input("dial_failed", now, (address,))
        self._run(self.cluster.dial_failed(address, now), now)
        self._settle(now)

    def progress(self, link: LinkId, *, now: int) -> None:
        """Record a sign of life: bytes of an incomplete message came on a link, or the peer took bytes.

        A call is optional for an adapter. Byte streams need it only for bytes that the peer took, as `receive` gets
        every byte that comes.
        """
        if self._tap is not None:
            self._tap.input("progress", now, (link,))
        self.links.progress(link, now)

    def backlog(self, link: LinkId, queued: int, *, now: int) -> None:
        """Record the backlog of a link in bytes; 0 once all is sent. A call is optional for an adapter."""
        if self._tap is not None:
            self._tap.input("backlog", now, (link, queued))
        self.cluster.backlog(link, queued)

    def finished(self, run: RunId, outcome: Outcome, *, now: int, began: int | None = None) -> None:
        """Handle the end of a `Run`, by itself or after a `Cancel`; exactly once for each run.

        `began` is the time when its body really began, if that was later than its `Run`: placement uses how long calls
        take.
        """
        if self._tap is not None:
            self._tap.input("finished", now, (run, outcome, began))
        self._run(self.worker.finished(run, outcome, now, began=began), now)
        self._settle(now)

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

    def submit(self, request: Request, *, now: int) -> RequestId:
        """Run `request` as if a client had sent it; the result comes as `Notify(RequestFinished(id, result))`."""
        if self._tap is not None:
            self._tap.input("submit", now, (request,))
        number = int.from_bytes(self._machines.entropy(6), "big")
        own = msgspec.structs.replace(request, id=number, here=())
        self._run(self._machines.accept(LOCAL, own, now), now)
        self._settle(now)
        return RequestId(number)

    def cancel(self, request: RequestId, *, now: int) -> None:
        """Cancel a submitted request; it still gets a result, with 1021 unless it is over already."""
        if self._tap is not None:
            self._tap.input("cancel", now, (request,))
        self._run(self.coordinator.cancel(LOCAL, request, now), now)
        self._settle(now)

    def offer(self, function: FunctionSpec, *, now: int) -> None:
        """Offer a function from now on, in place of any earlier one of that name."""
        if self._tap is not None:
            self._tap.input("offer", now, (function,))
        actions = self.cluster.offer(function, now)
        self._machines.offered[function.name] = function
        self._run(self.worker.concurrency(function.name, function.concurrency, now), now)
        self._run(actions, now)
        self._settle(now)

    def withdraw(self, function: str, *, now: int) -> None:
        """Stop offering a function. Running calls go on; queued ones are refused."""
        if self._tap is not None:
            self._tap.input("withdraw", now, (function,))
        actions = self.cluster.withdraw(function, now)
        self._machines.offered.pop(function, None)
        self._run(actions, now)
        self._run(self.worker.withdrawn(function, now), now)
        self._settle(now)

    def set_resources(self, resources: tuple[str, ...], *, now: int) -> None:
        """Replace the node's own resources."""
        if self._tap is not None:
            self._tap.input("set_resources", now, (resources,))
        actions = self.cluster.set_resources(resources, now)
        self._machines.resources = resources
        self._run(actions, now)
        self._settle(now)

    def advertise(self, addresses: tuple[Address, ...], *, now: int) -> None:
        """Set the addresses at which others can dial this node."""
        if self._tap is not None:
            self._tap.input("advertise", now, (addresses,))
        self._machines.addresses = addresses
        self._run(self.cluster.advertise(addresses, now), now)
        self._settle(now)

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

    def drain(self) -> list[Effect]:
        """Return all effects since the last `drain`, in the order of their causes."""
        self.replies.flush(self.worker.queued)
        if self.links.closing:
            self._close_links()
        log, self._log[:] = self._log[:], []
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
        if self.links.closing:
            self._close_links()
        if self._machines.draining and not self._machines.busy:
            self._finish(now)

    def _close_links(self) -> None:
        for link in list(self.links.closing):
            if self.links.sessions[link].stage is Stage.BOTH_CLOSING and not self._machines.busy_on(link):
                self.links.hang_up(link)

    def _finish(self, now: int) -> None:
        """End draining: answer open requests, stop running calls, announce LEFT, close all links."""
        if self.left:
            return
        self.left = True
        self._timers.cancel((TimerKind.DRAIN_GRACE, 0))
        self.links.keep_order()
        self._run(self.coordinator.end_all(now), now)
        self._run(self.worker.stop_all(), now)
        self.replies.flush(self.worker.queued)
        self._run(self.cluster.leave(now), now)
        for link in list(self.links.sessions):
            self.links.goodbye(link, GoodbyeReason.LEAVING, now)
            self.links.hang_up(link)
        self._log.append(Notify(Left()))
