"""All links of one node: their sessions, and the handshakes, pings, goodbyes and violations that keep or end them.

The owner, `Node` or `ClientSession`, passes the inputs of links to `Links`. It also passes each message in its turn,
before it handles the message itself, so the effect of bytes never depends on how they were cut. Effects go into the log
that both share. `Links` uses no more of members than their ids, and does not interpret requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never, get_args

from mpreg_proto.effects import Effect, Framing, HangUp, KeepAlive, Lane, Notify, Pause, Resume, Send
from mpreg_proto.errors import CloseCode, ErrorCode, Fault, LocalProtocolError
from mpreg_proto.guard import FURTHEST, check_data, check_kind, check_text, shown
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import LinkClosed, LinkEndCause
from mpreg_proto.sending import LINK_GONE, SENT, LinkGone, SendOutcome, Sent, TooLong, shorten_fault
from mpreg_proto.timers import LINK_TIMERS, Key, TimerKind, Timers
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.handshake import Authentication
from mpreg_proto.wire.messages import (
    BucketHashes,
    DialBack,
    Digest,
    Fetch,
    Goodbye,
    GoodbyeReason,
    Gossip,
    Hello,
    IndirectAck,
    Message,
    Ping,
    PingReq,
    Pong,
    Pull,
    Refused,
)
from mpreg_proto.wire.session import CLOSE_CODES, Cause, PauseReason, Received, Session, Stage
from mpreg_proto.wire.values import ValueCodec

_CLOSED_KEPT = 4096
"""Numbers of closed links that are remembered, to notice their reuse."""
MAX_CONTROL_BYTES = 16 * 1024
"""The longest message in `Lane.CONTROL`, in bytes: bulk anti-entropy waits with the values."""
_FLOOD = 16
"""The answers for each request of its credit that a native client may get while `Limits.client_answers` are unsent."""
_MESSAGES: tuple[type, ...] = get_args(Message)
_CONTROL_LANE = frozenset(
    (Hello, Ping, Pong, Gossip, Digest, Fetch, BucketHashes, Pull, DialBack, PingReq, IndirectAck)
)


class Links:
    """The sessions of a node, by link. Timers that it sets: LINK_TIMERS."""

    def __init__(
        self,
        hello: Callable[[], Hello],
        *,
        codec: ValueCodec,
        timers: Timers,
        limits: Limits,
        log: list[Effect],
        busy_on: Callable[[LinkId], bool] = lambda link: False,
        frozen_after: int | None = None,
    ) -> None:
        """`busy_on` returns whether calls or answers are still pending on a link; such a link is not closed.

        `frozen_after` is the silence after which a link with calls on it is given up, in ns; None: as any link.
        """
        self._hello = hello
        self._busy_on = busy_on
        self._codec = codec
        self._timers = timers
        self._limits = limits
        self._credit = limits.credit
        self._log = log
        self._frozen_after = frozen_after
        self._last_ping = 0
        self.quiet: dict[LinkId, None] = {}
        """Links with calls on them that have just been pinged for their silence; for the owner, who clears it."""
        self.sessions: dict[LinkId, Session] = {}
        self.closing: dict[LinkId, None] = {}
        """Links on which either side has sent a goodbye."""
        self.ended: dict[LinkId, None] = {}
        """Links that this node has just ended; the owner calls `release` for each before it ends its input."""
        self._hung_up: dict[LinkId, None] = {}
        """Released links whose transport is still open: `link_closed` must follow."""
        self._closed: dict[LinkId, None] = {}
        """The links that were closed last, whose numbers must not come back."""
        self._keep_order = False
        self._undrained: dict[LinkId, int] = {}
        """The bytes for JSON clients in the log: their driver has not got them yet."""
        self.tap: Callable[[LinkId, Message | BadRequest], None] | None = None
        """Called with each message for the owner, before the owner handles it. For simulators, which get decoded
        messages with any framing. It must not call the node.
        """

    def opened(
        self,
        link: LinkId,
        *,
        framing: Framing,
        dialled: Address | None,
        now: int,
        client: LinkId | None = None,
        verdict: Authentication = Authentication.NODE,
    ) -> None:
        """Take an open transport. Raises LocalProtocolError for a number that was used before; nothing has changed."""
        self.check_new(link, framing, dialled, verdict)
        session = Session(
            link,
            framing=framing,
            dialled=dialled,
            local_hello=self._hello(),
            codec=self._codec,
            limits=self._limits,
            now=now,
            verdict=verdict,
        )
        if client is not None:
            session.client = client
        self.sessions[link] = session
        if dialled is not None or not session.classic:
            self._timers.set((TimerKind.HANDSHAKE, link), now + self._limits.handshake)
        if dialled is not None:
            self.send_or_close(link, session.local_hello)
        elif framing is Framing.CLASSIC_MESSAGES:
            self.start_keepalive(session, now)

    def decline(self, link: LinkId) -> None:
        """Hang up an open transport that came too late, after `check_new`."""
        self._hung_up[link] = None
        self._log.append(HangUp(link, CloseCode.GOING_AWAY, self._limits.hang_up))

    def check_new(
        self,
        link: LinkId,
        framing: Framing,
        dialled: Address | None,
        verdict: Authentication = Authentication.NODE,
    ) -> None:
        """Raise LocalProtocolError for what no new link has, such as a number that was used before."""
        check_kind("the number of a link", link, (int,))
        if not 0 < link < FURTHEST:
            raise LocalProtocolError(f"link {shown(link)}: expected 1, 2, 3, ...; 0 is the process itself")
        if type(framing) is not Framing:
            raise LocalProtocolError(f"framing={shown(framing)}: expected one of Framing")
        if type(verdict) is not Authentication:
            raise LocalProtocolError(f"verdict={shown(verdict)}: expected one of Authentication")
        if dialled is not None:
            check_text("the address of a link that was dialled", dialled)
        if link in self.sessions or link in self._hung_up:
            raise LocalProtocolError(f"link {link} is open already: give each connection a number of its own")
        if link in self._closed:
            raise LocalProtocolError(f"link {link} has been used before: give each connection a number of its own")

    def require(self, link: LinkId) -> Session | None:
        """Return the session of an open transport, None if this node has ended it.

        Raises LocalProtocolError unless the transport is open.
        """
        if type(link) is int:
            session = self.sessions.get(link)
            if session is not None or link in self._hung_up:
                return session
            if link in self._closed:
                raise LocalProtocolError(f"link {link} is closed already")
        raise LocalProtocolError(f"link {shown(link)} was never opened; call link_opened first")

    def receive(self, link: LinkId, data: bytes | bytearray | memoryview | str, now: int) -> Received:
        """Return what `data` completes: messages, each for `handle_control`, and a violation, if any, for `refuse`.

        Returns nothing for a link that this node has ended. Only the activity and the handshake take effect at once.
        Raises LocalProtocolError, with nothing changed, for an unknown link and for data that no transport delivers.
        """
        session = self.sessions.get(link) if type(link) is int else None
        if session is None:
            self.require(link)
        if type(data) is not bytes:
            check_data(data, stream=session is not None and session.framing is Framing.STREAM)
        if session is None:
            return Received()
        if session.framing is Framing.OBJECTS:
            raise LocalProtocolError(f"link {link} has Framing.OBJECTS: its messages enter by handle")
        received = session.receive(data, now)
        if session.classic:
            self._classic_received(session, now)
            self._check_in_flight(session)
        return received

    def _classic_received(self, session: Session, now: int) -> None:
        link = session.link
        if session.dialled is None:
            self._timers.cancel((TimerKind.HANDSHAKE, link))
        if session.decoding and (TimerKind.DECODE, link) not in self._timers:
            self._timers.set((TimerKind.DECODE, link), now)
            self._pause(session, PauseReason.DECODING)

    def continue_decoding(self, link: LinkId, now: int) -> Received:
        """Decode more of a long message, see `Session.continue_decoding`. Other inputs are handled in between."""
        session = self.sessions.get(link)
        if session is None or not session.decoding:
            return Received()
        received, more = session.continue_decoding()
        self._check_in_flight(session)
        if more:
            self._timers.set((TimerKind.DECODE, link), now)
        else:
            self._resume(session, PauseReason.DECODING)
            session.touch(now)
        return received

    # -- flow control -------------------------------------------------------------------------------------------------

    def _check_in_flight(self, session: Session) -> None:
        """Pause a JSON client that has as many requests in flight as it may have; resume it at half of them.

        A native client has a credit in place of that (`Limits.credit`), so that it is always read.
        """
        (count, size), (most, longest) = session.in_flight, self._credit
        if count >= most or size >= longest:
            self._pause(session, PauseReason.REQUESTS)
        elif 2 * count <= most and 2 * size <= longest:
            self._resume(session, PauseReason.REQUESTS)

    def is_flooded(self, session: Session) -> bool:
        """Return whether a native client leaves so much unread that new requests and queries are refused."""
        return session.backlog >= self._limits.client_answers and session.member is None and not session.classic

    def _check_flood(self, session: Session) -> bool:
        """End the link of a native client that goes on to ask for answers while it leaves very many unread.

        Returns whether the link has ended. A client that keeps to its credit gets far fewer in that time: a refusal
        reaches it only after all that was unsent before it.
        """
        session.flooding += 1
        if session.flooding <= _FLOOD * self._credit[0] + _FLOOD:
            return False
        text = f"{session.flooding} answers came on top of {session.backlog} bytes that it has not taken"
        self.hang_up(session.link, CloseCode.POLICY_VIOLATION, cause=LinkEndCause.VIOLATION, reason=text)
        return True

    def drained(self) -> None:
        """Note that the driver has got all that was sent: it reports what it cannot send at once (`backlog`)."""
        if self._undrained:
            self._undrained.clear()

    def backlog(self, link: LinkId, queued: int, now: int) -> None:
        """Handle the backlog of a link: pause a JSON client that reads too slowly, end a link whose peer takes nothing.

        A backlog that has become shorter is a sign of life while more than a control message waits: only then did the
        peer make room for it. Shorter ones prove nothing, however a driver cuts them: the system takes pings and gossip
        for a peer that is gone.
        """
        session = self.sessions.get(link)
        if session is None:
            return
        if queued < session.backlog:
            session.last_progress = now
            if queued > MAX_CONTROL_BYTES:
                session.touch(now)
        session.backlog = queued
        if not queued:
            self._timers.cancel((TimerKind.STALLED, link))
        elif (TimerKind.STALLED, link) not in self._timers:
            session.last_progress = now
            self._timers.set((TimerKind.STALLED, link), now + self._limits.stalled)
        if queued < self._limits.client_answers:
            session.flooding = 0
        if queued >= self._limits.backlog and session.classic:
            self._pause(session, PauseReason.BACKLOG)
        elif queued <= self._limits.backlog // 2:
            self._resume(session, PauseReason.BACKLOG)

    def _pause(self, session: Session, reason: PauseReason) -> None:
        if not session.paused:
            self._log.append(Pause(session.link))
        session.paused[reason] = None

    def _resume(self, session: Session, reason: PauseReason) -> None:
        if reason in session.paused:
            del session.paused[reason]
            if not session.paused:
                self._log.append(Resume(session.link))

    def _stalled_due(self, session: Session, now: int) -> None:
        """End a link whose peer has taken none of the unsent bytes for `Limits.stalled`."""
        due = session.last_progress + self._limits.stalled
        if now < due:
            self._timers.set((TimerKind.STALLED, session.link), due)
            return
        taken = f"took none of {session.backlog} bytes for {self._limits.stalled / 1e9:g} s"
        self.hang_up(session.link, CloseCode.TRY_AGAIN_LATER, cause=LinkEndCause.STALLED, reason=taken)

    # -- messages -----------------------------------------------------------------------------------------------------

    def handle(self, link: LinkId, message: Message, now: int) -> Received:
        """Take a message that was never encoded (Framing.OBJECTS), as `receive` takes bytes."""
        session = self.require(link)
        check_kind("a message", message, _MESSAGES)
        if session is None:
            return Received()
        if session.framing is not Framing.OBJECTS:
            raise LocalProtocolError(f"link {link} has {session.framing}: its messages enter as bytes, by receive")
        return session.handle(message, now)

    def handle_control(self, link: LinkId, message: Message | BadRequest, now: int) -> bool:
        """Handle a message, in its turn, if it is about the link itself.

        Returns whether the owner should handle it; False once an earlier message has ended the link.
        """
        session = self.sessions.get(link)
        if session is None or session.stage is Stage.ENDED:
            return False
        handler = _CONTROL_HANDLERS.get(type(message))
        if handler is None:
            session.last_used = now
        elif not handler(self, session, message, now):
            return False
        if self.tap is not None:
            self.tap(link, message)
        return True

    def closed(self, link: LinkId) -> Session | None:
        """Remove a link whose transport has ended; return its session, None if this node had ended it.

        Raises LocalProtocolError for a link that is not open; nothing has changed then.
        """
        self.require(link)
        self._closed[link] = None
        if len(self._closed) > _CLOSED_KEPT:
            del self._closed[next(iter(self._closed))]
        if link in self._hung_up:
            del self._hung_up[link]
            return None
        session = self.sessions.pop(link)
        self.closing.pop(link, None)
        self._end(session, LinkEndCause.ORDERLY, "")
        return session

    def release(self) -> tuple[Session, bool]:
        """Remove one link of `ended`, which is not empty; return its session, and whether a goodbye came before."""
        link = next(iter(self.ended))
        del self.ended[link]
        self._hung_up[link] = None
        clean = link in self.closing
        self.closing.pop(link, None)
        return self.sessions.pop(link), clean

    def encode(self, link: LinkId, message: Message) -> bytes | None:
        """Return the body for `send` of a message; None for a link without bytes, and for one that has ended."""
        session = self.sessions.get(link)
        if session is None or session.stage is Stage.ENDED or session.framing is Framing.OBJECTS:
            return None
        return session.encode(message)

    def send(self, link: LinkId, message: Message, body: bytes | None = None) -> SendOutcome:
        """Send `message`, whole or not at all. The caller handles the outcome; see sending.py.

        `body`: what `encode` has returned for it.
        """
        session = self.sessions.get(link)
        if session is None or session.stage is Stage.ENDED:
            return LINK_GONE
        if session.backlog and self.is_flooded(session) and self._check_flood(session):
            return LINK_GONE
        control = type(message) in _CONTROL_LANE and not self._keep_order
        if session.framing is Framing.OBJECTS:
            self._log.append(Send(link, (), message, Lane.CONTROL if control else Lane.CONTENT))
            return SENT
        if session.classic:
            return self._send_classic(session, message)
        if body is None:
            body = session.encode(message)
            assert body is not None, "the native dialect has all messages"
        if len(body) > session.limit:
            return TooLong(len(body), session.limit)
        lane = Lane.CONTROL if control and len(body) <= MAX_CONTROL_BYTES else Lane.CONTENT
        self._log.append(Send(link, session.chunks(body), None, lane))
        return SENT

    def _send_classic(self, session: Session, message: Message) -> SendOutcome:
        """Send what the classic dialect has for a message. An answer for which no room is left becomes 1014."""
        link = session.link
        waiting = self._undrained.get(link, 0)
        body = session.encode(message, room=max(0, self._limits.json_answers - session.backlog - waiting))
        if body is None:
            return SENT
        if len(body) > session.limit:
            return TooLong(len(body), session.limit)
        self._undrained[link] = waiting + len(body)
        self._log.append(Send(link, session.chunks(body), None, Lane.CONTENT))
        if PauseReason.REQUESTS in session.paused:
            self._check_in_flight(session)
        return SENT

    def send_or_close(self, link: LinkId, message: Message) -> None:
        """Send a message that the link cannot go on without, or a cancellation. A message that is too long ends it.

        Does nothing on a link that has ended.
        """
        outcome = self.send(link, message)
        match outcome:
            case Sent() | LinkGone():
                pass
            case TooLong():
                self.close_too_long(link, message, outcome)
            case _:
                assert_never(outcome)

    def close_too_long(self, link: LinkId, message: Message, outcome: TooLong) -> None:
        """End a link on which a required message is too long and cannot be shortened."""
        kind = type(message).__name__
        self.hang_up(
            link,
            CloseCode.MESSAGE_TOO_BIG,
            cause=LinkEndCause.TOO_LONG,
            reason=f"a {kind} of {outcome.size} bytes is over the limit message of {outcome.limit}",
        )

    def is_open(self, link: LinkId) -> bool:
        """Return whether a message can be sent on a link: the link exists, and this node has not closed it."""
        session = self.sessions.get(link)
        return session is not None and session.stage is not Stage.ENDED

    def keep_order(self) -> None:
        """Let no message overtake another one from now on.

        Peers must not learn that this node has left before they receive its last results.
        """
        self._keep_order = True

    def limit(self, link: LinkId) -> int:
        """Return the longest message that `link` takes, in bytes; 0 for a link that has ended."""
        session = self.sessions.get(link)
        return 0 if session is None else session.limit

    def goodbye(self, link: LinkId, reason: GoodbyeReason, now: int) -> None:
        """Begin to close a link on purpose: this node still sends answers on it, but nothing new."""
        session = self.sessions.get(link)
        if session is None or session.stage not in (Stage.OPEN, Stage.REMOTE_CLOSING):
            return
        if session.classic:
            self.hang_up(link, CloseCode.NORMAL)
            return
        self.send_or_close(link, Goodbye(reason))
        if not self.is_open(link):
            return
        session.transition(Cause.GOODBYE_SENT)
        self.closing[link] = None
        self._timers.set((TimerKind.GOODBYE, link), now + self._limits.goodbye)

    def refuse(self, link: LinkId, fault: Fault) -> None:
        """End a link with the reason, because its peer broke the protocol."""
        session = self.sessions.get(link)
        if session is None or session.stage is Stage.ENDED:
            return
        outcome = self.send(link, Refused(fault))
        match outcome:
            case Sent() | LinkGone():
                pass
            case TooLong():
                self.send_or_close(link, Refused(shorten_fault(fault)))
            case _:
                assert_never(outcome)
        code = CLOSE_CODES.get(fault.code, CloseCode.POLICY_VIOLATION)
        self.hang_up(link, code, cause=LinkEndCause.VIOLATION, reason=fault.message)

    def hang_up(
        self,
        link: LinkId,
        code: CloseCode = CloseCode.NORMAL,
        *,
        cause: LinkEndCause = LinkEndCause.ORDERLY,
        reason: str = "",
    ) -> None:
        """Close a link after what was sent. Everything that still arrives on it is ignored."""
        session = self.sessions.get(link)
        if session is not None and session.stage is not Stage.ENDED:
            self._end(session, cause, reason)
            self.ended[link] = None
            self._log.append(HangUp(link, code, self._limits.hang_up))

    def _end(self, session: Session, cause: LinkEndCause, reason: str) -> None:
        """End a session: nothing is sent or received any more. An orderly end before the handshake gives no notice."""
        session.transition(Cause.HUNG_UP)
        for kind in LINK_TIMERS:
            self._timers.cancel((kind, session.link))
        session.discard_decoding()
        if session.paused:
            session.paused = {}
            self._log.append(Resume(session.link))
        peer = session.remote_hello.name if session.remote_hello is not None else session.dialled or ""
        if cause is not LinkEndCause.ORDERLY or session.remote_hello is not None:
            self._log.append(Notify(LinkClosed(session.link, peer, reason, cause)))

    def wake(self, key: Key, now: int) -> None:
        """Handle a due timer of a link."""
        link = LinkId(int(key[1]))
        session = self.sessions.get(link)
        if session is None or session.stage is Stage.ENDED:  # by another timer that was due at the same time
            return
        if key[0] == TimerKind.HANDSHAKE:
            self.refuse(link, Fault(ErrorCode.INVALID_REQUEST, f"no hello within {self._limits.handshake / 1e9:g} s"))
        elif key[0] == TimerKind.GOODBYE:
            self._goodbye_due(link, now)
        elif key[0] == TimerKind.STALLED:
            self._stalled_due(session, now)
        else:
            self._check_keepalive(session, now)

    def start_keepalive(self, session: Session, now: int) -> None:
        """Start to ask for a sign of life when this link is silent. JSON on a byte stream has no means for that."""
        if not session.classic or session.framing is Framing.CLASSIC_MESSAGES:
            self._timers.set((TimerKind.PING, session.link), now + self._limits.ping_every)

    def watch(self, link: LinkId, now: int) -> None:
        """Ask a link for a sign of life soon: a call went out on it."""
        session = self.sessions.get(link)
        if session is not None and not session.watched and (TimerKind.PING, link) in self._timers:
            session.watched = True
            self._timers.set((TimerKind.PING, link), now + self._limits.ping_busy)

    def silent(self, link: LinkId, now: int) -> bool:
        """Return whether a link has moved no byte for `Limits.frozen_after` although a call is out on it."""
        session = self.sessions.get(link)
        if session is None or not session.watched or now - session.last_activity < self._limits.frozen_after:
            return False
        return self._busy_on(link)

    def ping(self, link: LinkId, now: int) -> None:
        """Ping a link now; `handle_control` passes its `Pong` to the owner."""
        session = self.sessions.get(link)
        if session is not None and session.stage is not Stage.ENDED:
            self._last_ping += 1
            session.rtt_ping, session.rtt_ping_at = self._last_ping, now
            self.send_or_close(link, Ping(self._last_ping))

    def progress(self, link: LinkId, now: int) -> None:
        """Record a sign of life: bytes arrived that complete no message, or the peer took bytes of this node."""
        session = self.sessions.get(link)
        if session is not None:
            session.last_progress = now
            session.touch(now)

    def last_activity(self, link: LinkId) -> int:
        """Return when a link last moved a byte, either way; for a link that has ended, a time before all others."""
        session = self.sessions.get(link)
        return -(1 << 63) if session is None else session.last_activity

    def rtt(self, link: LinkId | None) -> int | None:
        """Return the round-trip time of the latest answered ping of a link; None if there is none."""
        session = None if link is None else self.sessions.get(link)
        return None if session is None else session.rtt

    def idle(self, link: LinkId, now: int) -> bool:
        """Return whether nothing but pings came over a link for `Limits.link_idle`."""
        session = self.sessions.get(link)
        return session is not None and session.last_used + self._limits.link_idle <= now

    def _goodbye_due(self, link: LinkId, now: int) -> None:
        """Close a link whose peer has not closed it. A link with pending work stays: that has its own deadlines.

        So does one that brings more than pings: what its peer sent before its goodbye may take long on a slow link.
        """
        session = self.sessions[link]
        moved = session.last_activity if session.receiving else session.last_used
        if self._busy_on(link) or (session.stage is Stage.LOCAL_CLOSING and now - moved < self._limits.goodbye):
            self._timers.set((TimerKind.GOODBYE, link), now + self._limits.goodbye)
        else:
            self.hang_up(link)

    def _check_keepalive(self, session: Session, now: int) -> None:
        if session.paused:  # nothing is read from it meanwhile
            session.touch(now)
        silent = now - session.last_activity
        busy = session.watched = session.watched and self._busy_on(session.link)
        gone, every = self._limits.gone_after, self._limits.ping_every
        if busy:
            every = min(every, self._limits.ping_busy)
            gone = gone if self._frozen_after is None else min(gone, self._frozen_after)
            if silent >= self._limits.frozen_after and self._answers_elsewhere(session):
                gone = min(gone, self._limits.frozen_after)
        answer = max(0, self._limits.frozen_after - every)  # the time that it has to answer a ping that came late
        slack = gone // 8
        # This timer runs late: bytes that arrived meanwhile are still unread.
        if silent > gone + slack and not session.grace_given:
            session.grace_given = True
            self._timers.set((TimerKind.PING, session.link), now + slack)
            return
        if silent >= gone and (not busy or (session.keepalive_sent and now >= session.asked_at + answer)):
            reason = f"silent for {silent / 1e9:g} s"
            cause = LinkEndCause.SILENT if silent >= self._limits.gone_after else LinkEndCause.UNRESPONSIVE
            self.hang_up(session.link, CloseCode.GOING_AWAY, cause=cause, reason=reason)
            return
        if silent >= every and not session.keepalive_sent:
            session.keepalive_sent = True
            if busy:
                self.quiet[session.link] = None
            self._ask_for_life(session)
            session.asked_at = now
            if not self.is_open(session.link):
                return
        due = session.last_activity + (gone if session.keepalive_sent else every)
        if busy and session.keepalive_sent:
            due = max(due, session.asked_at + answer)
        self._timers.set((TimerKind.PING, session.link), min(due, now + every) if busy else due)

    def _answers_elsewhere(self, session: Session) -> bool:
        """Return whether the member of a silent link has sent something over another link since this one was pinged.

        Then its link is half-open: a peer that has noticed that first has dialled a new one. A link with a backlog is
        perhaps only slow.
        """
        if session.member is None or not session.keepalive_sent or session.backlog:
            return False
        others = (one for one in self.sessions.values() if one.member == session.member and one is not session)
        return any(one.last_activity > session.asked_at for one in others)

    def _ask_for_life(self, session: Session) -> None:
        if session.classic:
            self._log.append(KeepAlive(session.link))
        else:
            self._last_ping += 1
            self.send_or_close(session.link, Ping(self._last_ping))

    def _on_hello(self, session: Session, message: Hello, now: int) -> bool:
        self._timers.cancel((TimerKind.HANDSHAKE, session.link))
        if session.dialled is None:
            self.send_or_close(session.link, session.local_hello)
        self.start_keepalive(session, now)
        return True

    def _on_ping(self, session: Session, message: Ping, now: int) -> bool:
        self.send_or_close(session.link, Pong(message.number))
        return False

    def _on_pong(self, session: Session, message: Pong, now: int) -> bool:
        if message.number != session.rtt_ping:
            return False
        session.rtt_ping = 0
        session.rtt = now - session.rtt_ping_at
        return session.member is not None

    def _on_goodbye(self, session: Session, message: Goodbye, now: int) -> bool:
        if session.stage in (Stage.OPEN, Stage.LOCAL_CLOSING):
            session.transition(Cause.GOODBYE_RECEIVED)
            self.goodbye(session.link, GoodbyeReason.NONE, now)
            self.closing[session.link] = None
        return True

    def _on_refused(self, session: Session, message: Refused, now: int) -> bool:
        self.hang_up(session.link, cause=LinkEndCause.REFUSED, reason=message.fault.message)
        return True


_CONTROL_HANDLERS: dict[type, Callable[[Links, Session, Any, int], bool]] = {
    Hello: Links._on_hello,
    Ping: Links._on_ping,
    Pong: Links._on_pong,
    Goodbye: Links._on_goodbye,
    Refused: Links._on_refused,
}
"""Handlers of messages about the link itself. Each returns True if the owner handles the message too."""
