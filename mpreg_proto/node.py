"""One node of the cluster, without a socket, a clock or a thread.

Inputs come as method calls, effects go out by `drain()`. `Node` is the interface of an embedder: inputs from the world,
commands of the process, outputs. Behind it is router.py: each input goes to the machine that handles it, and the
actions that it returns are carried out. Not thread-safe; never awaits; inputs run to completion and never raise for
what a peer did. docs/howto/embed.md describes the loop that drives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import msgspec

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.cluster import Cluster
from mpreg_proto.config import NodeConfig
from mpreg_proto.effects import OUTCOMES, Effect, Framing, Notify, Outcome, Report, Returned
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.guard import FURTHEST, check_kind, check_request, check_text, check_texts, check_time, exclusive, shown
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
from mpreg_proto.wire.handshake import Authentication
from mpreg_proto.wire.messages import GoodbyeReason, ItemsParameter, Message, Request
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
        """Raises LocalProtocolError for a member id that is not 16 bytes, or arguments of wrong kinds."""
        if type(me) is not bytes or len(me) != MEMBER_ID_BYTES:
            raise LocalProtocolError(f"me={shown(me)}: expected {MEMBER_ID_BYTES} bytes, such as os.urandom(16)")
        config = _check_config(config)
        check_time("now", now)
        if not isinstance(rng, Rng):
            raise LocalProtocolError(f"rng={shown(rng)}: expected a Rng, such as Rng(seed)")
        if not callable(entropy):
            raise LocalProtocolError(f"entropy={shown(entropy)}: expected a function, such as os.urandom")
        if codec is not None and not isinstance(codec, ValueCodec):
            raise LocalProtocolError(f"codec={shown(codec)}: expected a ValueCodec")
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
        self._start_draining = runner.start_draining
        self._router = Router(machines, runner)
        self._run(machines.start_as(me, now, last_number=0), now)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled: two nodes would have one id, and a copy would share parts of this one."""
        raise TypeError("cannot copy or pickle a Node: its copy would be the same member; make another Node")

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
    def link_opened(
        self,
        link: LinkId,
        *,
        framing: Framing,
        dialled: Address | None,
        now: int,
        client: LinkId | None = None,
        verdict: Authentication = Authentication.NODE,
    ) -> None:
        """Add an open transport. `dialled` is the address of a `Dial`, None for an accepted one.

        Links with the same number as `client`, of any link so far, take turns as one client; None is the own number.
        `verdict` is the driver's verdict on the peer. Raises LocalProtocolError if the number `link` was used before
        or is below 1, and for a `dialled` that is no text; nothing has changed then.
        """
        self.links.check_new(link, framing, dialled, verdict)
        if self._tap is not None:
            self._tap.input("link_opened", now, (link, framing, dialled, verdict, client))
        if self._finished:  # the dial was in progress, or the peer has no Goodbye yet
            self.links.decline(link)
            return
        self.links.opened(link, framing=framing, dialled=dialled, now=now, client=client, verdict=verdict)
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
        """Handle one message of a link with Framing.OBJECTS, as in `Send.message` at the other end.

        Raises LocalProtocolError for a link that is not open or has another framing, and for something that is no
        message; nothing has changed then.
        """
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
        self.links.require(link)
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
        """Handle a `Dial` that failed; ignored if the core has already counted it as failed.

        Raises LocalProtocolError for an address that is no text.
        """
        check_kind("address", address, (str,))
        if self._tap is not None:
            self._tap.input("dial_failed", now, (address,))
        self._run(self.cluster.dial_failed(address, now), now)
        self._settle(now)

    @exclusive
    def progress(self, link: LinkId, *, now: int) -> None:
        """Record a sign of life: bytes of an incomplete message came on a link, or the peer took bytes.

        Byte streams need it only for bytes that the peer took, as `receive` gets every byte that comes, and not for
        those that a lower `backlog` shows. That the system took a short message, such as a ping, is no sign of life: it
        does so for a peer that is gone. Raises LocalProtocolError for a link that is not open.
        """
        self.links.require(link)
        if self._tap is not None:
            self._tap.input("progress", now, (link,))
        self.links.progress(link, now)

    @exclusive
    def backlog(self, link: LinkId, queued: int, *, now: int) -> None:
        """Handle the backlog of a link in bytes, whenever it has changed by much; each 0, even if more bytes follow.

        From `Limits.backlog` on a JSON client is not read (`Pause`). A link whose backlog has not become smaller for
        `Limits.stalled`, without a call of `progress`, is hung up. A call is optional for an adapter that bounds its
        buffers itself. Raises LocalProtocolError for a link that is not open, and for a number below 0.
        """
        self.links.require(link)
        if type(queued) is not int or not 0 <= queued < FURTHEST:
            raise LocalProtocolError(f"queued={shown(queued)}: expected a number of bytes, 0 or more")
        if self._tap is not None:
            self._tap.input("backlog", now, (link, queued))
        self.cluster.backlog(link, queued)
        self.links.backlog(link, queued, now)

    @exclusive
    def finished(self, run: RunId, outcome: Outcome, *, now: int, began: int | None = None) -> None:
        """Handle the end of a `Run`, by itself or after a `Cancel`; exactly once for each run.

        `began` is the time when its body really began, if that was later than its `Run`: placement uses how long calls
        take. Raises LocalProtocolError, with nothing changed, for a run that never began or has ended, for something
        that is no `Outcome`, for an outcome whose texts are none, and for a `began` that is no time.
        """
        if type(run) is not int:
            check_kind("the number of a run", run, (int,))
        if began is not None:
            check_time("began", began)
        if type(outcome) is not Returned:
            _check_outcome(outcome)
        if self._tap is not None:
            self._tap.input("finished", now, (run, outcome, began))
        self._run(self.worker.finished(run, outcome, now, began=began), now)
        self._settle(now)

    @exclusive
    def yielded(self, run: RunId, items: Sequence[Any], *, now: int) -> None:
        """Handle the next items of a generator, at most as many as its `Run` and its `Demand`s allow.

        Raises LocalProtocolError, with nothing changed, for more, for a run that never began or has ended, and for one
        that is no generator.
        """
        check_kind("the number of a run", run, (int,))
        check_kind("the items of a run", items, (list, tuple))
        if self._tap is not None:
            self._tap.input("yielded", now, (run, items))
        self._run(self.worker.yielded(run, items), now)
        self._settle(now)

    @exclusive
    def took(self, run: RunId, items: int, *, now: int) -> None:
        """Handle that the function of a `fed` run has taken so many items of its iterator.

        Raises LocalProtocolError, with nothing changed, for more items than it was given by `Feed`s, for a run that
        never began or has ended, and for one that is not `fed`.
        """
        check_kind("the number of a run", run, (int,))
        check_kind("a number of items", items, (int,))
        if self._tap is not None:
            self._tap.input("took", now, (run, items))
        self._run(self.worker.took(run, items), now)
        self._settle(now)

    @exclusive
    def reported(self, run: RunId, report: Report, *, now: int) -> None:
        """Handle how far a `Run` with `reports` is. Its caller gets at most ten reports in a second, and the last one.

        Of a run without `reports` it does nothing. Raises LocalProtocolError, with nothing changed, for a run that
        never began or has ended, and for a report that cannot be sent.
        """
        check_kind("the number of a run", run, (int,))
        _check_report(report)
        if self._tap is not None:
            self._tap.input("reported", now, (run, report))
        self._run(self.worker.reported(run, report, now), now)
        self._settle(now)

    @exclusive
    def wake(self, *, now: int) -> None:
        """Run the timers that are due at `now`, if any; all that has happened before must be reported already."""
        if self._tap is not None:
            self._tap.input("wake", now, ())
        for key in self._timers.due(now):
            kind = key[0]
            if kind == TimerKind.DECODE:
                link = LinkId(int(key[1]))
                self._process(link, self.links.continue_decoding(link, now), now)
            elif kind in LINK_TIMERS:
                self.links.wake(key, now)
                if self.links.quiet:
                    self._probe_quiet_links(now)
            elif kind in REQUEST_TIMERS:
                self._run(self.coordinator.wake(key, now), now)
            elif kind == TimerKind.REPORT:
                self._run(self.worker.wake(key, now), now)
            elif kind == TimerKind.DRAIN_GRACE:
                self._finish(now)
            else:
                self._run(self.cluster.wake(key, now), now)
        self._settle(now)

    def _probe_quiet_links(self, now: int) -> None:
        """Ask others about the members whose links bring nothing although calls are out on them."""
        for link in list(self.links.quiet):
            session = self.links.sessions.get(link)
            if session is not None and session.member is not None:
                self._run(self.cluster.probe(session.member, now), now)
        self.links.quiet.clear()

    # -- commands from the process: may raise LocalProtocolError, then nothing has changed ---------------------------

    @exclusive
    def submit(self, request: Request, *, now: int) -> RequestId:
        """Run `request` as if a client had sent it; the result comes as `Notify(RequestFinished(id, result))`.

        An eager request gets several of them, and `result.last` is true in the last one. Its progress is not reported,
        and generators give lists.
        Raises LocalProtocolError for something that is no `Request`, or that has a field of another type.
        """
        check_request(request, encodable=True)
        if self._tap is not None:
            self._tap.input("submit", now, (request,))
        number = int.from_bytes(self._machines.entropy(6), "big")
        own = msgspec.structs.replace(request, id=number, here=(), progress=False, streams=())
        self._run(self._machines.accept(LOCAL, own, now), now)
        self._settle(now)
        return RequestId(number)

    @exclusive
    def cancel(self, request: RequestId, *, now: int) -> None:
        """Cancel a submitted request; it still gets a result, with 1021 unless it is over already."""
        check_kind("the number of a request", request, (int,))
        if self._tap is not None:
            self._tap.input("cancel", now, (request,))
        self._run(self.coordinator.cancel(LOCAL, request, now), now)
        self._settle(now)

    @exclusive
    def offer(self, function: FunctionSpec, *, now: int) -> None:
        """Offer a function from now on, in place of any earlier one of that name.

        Raises LocalProtocolError for a function without a name or slots, for a field of another type, and (1014) beyond
        a limit; nothing has changed then.
        """
        function = _check_function(function)
        if self._tap is not None:
            self._tap.input("offer", now, (function,))
        actions = self.cluster.offer(function, now)
        self._machines.offered[function.name] = function
        queue = _ALL if function.inline else function.queue
        slots, generator, consumes = function.concurrency, function.streaming, function.consumes
        self._run(
            self.worker.concurrency(function.name, slots, now, queue=queue, generator=generator, consumes=consumes),
            now,
        )
        self._run(actions, now)
        self._settle(now)

    @exclusive
    def withdraw(self, function: str, *, now: int) -> None:
        """Stop offering a function. Running calls go on; queued ones are refused.

        Raises LocalProtocolError if it is not offered.
        """
        check_kind("the name of a function", function, (str,))
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
        resources = check_texts("resources", resources)
        if self._tap is not None:
            self._tap.input("set_resources", now, (resources,))
        actions = self.cluster.set_resources(resources, now)
        self._machines.resources = resources
        self._run(actions, now)
        self._settle(now)

    @exclusive
    def advertise(self, addresses: tuple[Address, ...], *, now: int) -> None:
        """Set the addresses at which others can dial this node. Raises LocalProtocolError for a bare text."""
        addresses = tuple([Address(one) for one in check_texts("addresses", addresses)])
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
        self._start_draining(now)
        self._settle(now)

    # -- outputs: legal at any time ----------------------------------------------------------------------------------

    @exclusive
    def drain(self) -> list[Effect]:
        """Return all effects since the last `drain`, in the order of their causes."""
        self.replies.flush(self.worker.queued)
        self._end_links(self._now)
        self.links.drained()
        log = self._log[:]
        if self._tap is not None:
            self._tap.drained(log)
        self._log.clear()
        self.left = self._finished
        return log

    @property
    def draining(self) -> bool:
        """True once `leave` was called."""
        return self._machines.draining

    @exclusive
    def next_timeout(self) -> int | None:
        """Return the latest time for the next `wake`, or None. A node that has left needs none."""
        return None if self._finished else self._timers.next()

    @exclusive
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


def _check_config(config: NodeConfig) -> NodeConfig:
    """Return a configuration with tuples. Raises LocalProtocolError for one whose fields are of wrong kinds."""
    check_kind("config", config, (NodeConfig,))
    check_text("config.name", config.name)
    check_text("config.cluster_id", config.cluster_id)
    check_kind("config.limits", config.limits, (Limits,))
    return msgspec.structs.replace(
        config,
        addresses=check_texts("config.addresses", config.addresses),
        seeds=check_texts("config.seeds", config.seeds),
        resources=check_texts("config.resources", config.resources),
    )


_ALL = 1 << 30
"""The queue of a function that is inline: its calls end within the input that brings them."""


def _check_function(function: FunctionSpec) -> FunctionSpec:
    """Return a function with a tuple of resources. Raises LocalProtocolError for one that nobody could call."""
    check_kind("what is offered", function, (FunctionSpec,))
    name, slots = function.name, function.concurrency
    if type(name) is not str or not name:
        raise LocalProtocolError(f"the name of a function is {shown(name)}: expected a text that is not empty")
    if type(slots) is not int or slots < 1:
        raise LocalProtocolError(
            f"function {name!r}: concurrency={shown(slots)}: expected 1 or more, the number of its "
            "calls that run at once"
        )
    if type(function.queue) is not int or function.queue < 0:
        raise LocalProtocolError(f"function {name!r}: queue={shown(function.queue)}: expected 0 or more")
    for field in ("name", "version", "signature", "doc"):
        check_text(f"function {name!r}: {field}", getattr(function, field))
    for field in ("idempotent", "streaming", "inline"):
        check_kind(f"function {name!r}: {field}", getattr(function, field), (bool,))
    check_kind(f"function {name!r}: consumes", function.consumes, (ItemsParameter, type(None)))
    resources = check_texts(f"function {name!r}: resources", function.resources)
    return function if function.resources == resources else msgspec.structs.replace(function, resources=resources)


def _check_outcome(outcome: Outcome) -> None:
    """Raise LocalProtocolError for what is no outcome, or has something else in place of a text.

    A `Returned` may have anything, so it needs no check.
    """
    check_kind("the outcome of a run", outcome, OUTCOMES)
    for field in outcome.__struct_fields__:
        text = getattr(outcome, field)
        if not isinstance(text, str):  # of any subclass, as the texts of users' exceptions may be
            raise LocalProtocolError(
                f"{type(outcome).__name__}.{field}: expected a text, got {type(text).__name__} ({shown(text)})"
            )


_FARTHEST: int = 1 << 63
"""The numbers of a report are nearer to 0, as a message carries them in 64 bits."""


def _check_report(report: Report) -> None:
    """Raise LocalProtocolError unless it is a `Report` whose numbers a message can carry."""
    check_kind("a report", report, (Report,))
    for what, value in (("done", report.done), ("total", 0 if report.total is None else report.total)):
        if type(value) not in (int, float) or not -_FARTHEST < value < _FARTHEST:
            raise LocalProtocolError(f"a report: {what}={shown(value)}: expected a number of at most 64 bits")
    if not isinstance(report.text, str):
        raise LocalProtocolError(f"a report: text={shown(report.text)}: expected a text")
