"""The session of one link: bytes to messages, messages to bytes, and the stages of the link.

`Node` and `ClientSession` have one `Session` for each link. It handles the framing, selects the dialect by the first
body, and holds the result of the handshake and the time of the last activity. It does not interpret messages. It never
touches a socket: bytes enter by `receive` and leave as the chunks that `chunks` returns.

The table `STAGES` has all steps from one stage of a link to the next. A step that is not in it is a defect of this code
or a violation by the peer, and is never ignored.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Generator, Mapping
from typing import Final

from mpreg_proto.errors import CloseCode, ErrorCode, Fault, LocalProtocolError, RemoteProtocolError
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.wire import dialects
from mpreg_proto.wire.classic import DECODE_IN_STEPS_FROM, ClassicDialect
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.framing import LONGEST_FRAME, FrameError, FrameReader, Framing, prefix
from mpreg_proto.wire.handshake import NOT_AUTHENTICATED, Agreed, Authentication, Feature, agree, refusal
from mpreg_proto.wire.messages import Hello, Message, Refused, Request
from mpreg_proto.wire.values import ValueCodec

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Stage(enum.Enum):
    """The stage of a link."""

    OPENING = enum.auto()
    """Nothing but a hello (or, in the classic dialect, a first message) may arrive."""
    OPEN = enum.auto()
    LOCAL_CLOSING = enum.auto()
    """This side has sent its goodbye: it sends only answers."""
    REMOTE_CLOSING = enum.auto()
    BOTH_CLOSING = enum.auto()
    """The link closes as soon as nothing is pending on it."""
    ENDED = enum.auto()


class Cause(enum.Enum):
    """The cause of a step to another stage."""

    AGREED = enum.auto()
    GOODBYE_SENT = enum.auto()
    GOODBYE_RECEIVED = enum.auto()
    HUNG_UP = enum.auto()


STAGES: dict[tuple[Stage, Cause], Stage] = {
    (Stage.OPENING, Cause.AGREED): Stage.OPEN,
    (Stage.OPEN, Cause.GOODBYE_SENT): Stage.LOCAL_CLOSING,
    (Stage.OPEN, Cause.GOODBYE_RECEIVED): Stage.REMOTE_CLOSING,
    (Stage.LOCAL_CLOSING, Cause.GOODBYE_RECEIVED): Stage.BOTH_CLOSING,
    (Stage.REMOTE_CLOSING, Cause.GOODBYE_SENT): Stage.BOTH_CLOSING,
    (Stage.OPENING, Cause.HUNG_UP): Stage.ENDED,
    (Stage.OPEN, Cause.HUNG_UP): Stage.ENDED,
    (Stage.LOCAL_CLOSING, Cause.HUNG_UP): Stage.ENDED,
    (Stage.REMOTE_CLOSING, Cause.HUNG_UP): Stage.ENDED,
    (Stage.BOTH_CLOSING, Cause.HUNG_UP): Stage.ENDED,
}

CLOSE_CODES: Final[Mapping[int, CloseCode]] = {
    ErrorCode.VERSION_MISMATCH: CloseCode.PROTOCOL_ERROR,
    ErrorCode.INVALID_REQUEST: CloseCode.PROTOCOL_ERROR,
    ErrorCode.UNKNOWN_MESSAGE: CloseCode.PROTOCOL_ERROR,
    ErrorCode.LIMIT_EXCEEDED: CloseCode.MESSAGE_TOO_BIG,
    ErrorCode.CLUSTER_MISMATCH: CloseCode.POLICY_VIOLATION,
}
"""The WebSocket close code (RFC 6455, 7.4.1) for each error that ends a link; for others 1008, policy violation."""


class PauseReason(enum.Enum):
    """The reasons for which a link is not read for a while."""

    DECODING = "decoding"
    """A long message is decoded in steps."""
    BACKLOG = "backlog"
    """Its JSON client takes its answers too slowly."""
    REQUESTS = "requests"
    """Its JSON client has as many requests in flight as it may have."""


class Received(list[Message | BadRequest]):
    """The messages of one `receive`, in order, and the violation that followed them, if any."""

    violation: Fault | None = None


class Session:
    """The state of one link. `local_hello` is this side's hello; `dialled` is the address if this side dialled.

    `verdict` is the adapter's verdict on the peer.
    """

    __slots__ = (
        "_bodies_behind",
        "_classic",
        "_codec",
        "_limits",
        "_reader",
        "_serves_client",
        "_steps",
        "agreed",
        "asked_at",
        "backlog",
        "classic",
        "client",
        "dialled",
        "flooding",
        "framing",
        "grace_given",
        "keepalive_sent",
        "last_activity",
        "last_progress",
        "last_used",
        "limit",
        "link",
        "local_hello",
        "member",
        "paused",
        "remote_hello",
        "request_sizes",
        "rtt",
        "rtt_ping",
        "rtt_ping_at",
        "stage",
        "verdict",
        "watched",
    )

    def __init__(
        self,
        link: LinkId,
        *,
        framing: Framing,
        dialled: Address | None,
        local_hello: Hello,
        codec: ValueCodec,
        limits: Limits,
        now: int,
        verdict: Authentication = Authentication.NODE,
    ) -> None:
        self.link: LinkId = link
        self.client: LinkId = link
        """The number under which its requests take turns with those of others."""
        self.verdict: Authentication = verdict
        self.framing: Framing = framing
        self.dialled: Address | None = dialled
        self.local_hello: Hello = local_hello
        self.remote_hello: Hello | None = None
        self.member: MemberId | None = None
        """The peer's member id once the hellos agree; None for clients."""
        self.classic: bool = False
        """True if the peer uses the classic dialect; it is then a client that never sends a hello or goodbye."""
        self.agreed: Agreed | None = None
        self.stage: Stage = Stage.OPENING
        self.last_activity: int = now
        """The time when a byte last arrived or the peer last took one, in ns."""
        self.last_used: int = now
        """The time when anything but pings last arrived, in ns."""
        self.backlog: int = 0
        """The bytes that wait to be sent, as the driver reported last."""
        self.last_progress: int = now
        """The time when the peer last took some of the backlog, in ns."""
        self.paused: dict[PauseReason, None] = {}
        """The reasons for which the link is not read now."""
        self.request_sizes: deque[int] | None = None
        """The lengths of the requests of a native client that were received and are not handled yet, in order."""
        self.flooding: int = 0
        """The messages to a native client since its backlog has exceeded `Limits.client_answers`."""
        self._serves_client = False
        self.watched: bool = False
        """True if a call went out on it lately: it is asked for a sign of life sooner."""
        self.keepalive_sent: bool = False
        self.asked_at: int = now
        """The time when it was last pinged for its silence, in ns."""
        self.grace_given: bool = False
        """True if the link got more time, because its silence was noticed so late that this node must have stalled."""
        self.rtt_ping: int = 0
        """The number of the ping without an answer, 0 if there is none; `rtt_ping_at` is the time when it was sent."""
        self.rtt_ping_at: int = 0
        self.rtt: int | None = None
        """The round-trip time of the latest answered ping."""
        self.limit: int = min(limits.message, LONGEST_FRAME)
        """The longest message in either direction, in bytes."""
        if verdict is Authentication.NONE:
            self.limit = min(self.limit, limits.unauthenticated)
        self._codec = codec
        self._limits = limits
        # The bytes after a node's hello in the same piece may already be longer than a client's message.
        first = min(limits.node_message, LONGEST_FRAME) if dialled is not None and local_hello.member else self.limit
        self._reader = FrameReader(first) if framing is Framing.STREAM else None
        self._classic: ClassicDialect | None = None
        self._steps: Generator[None, None, Request | BadRequest] | None = None
        """The long classic message that is being decoded; `_bodies_behind` holds the bodies that came after it."""
        self._bodies_behind: deque[bytes | bytearray | memoryview | str] | None = None
        if framing is Framing.CLASSIC_MESSAGES:
            self._open_classic()

    @property
    def closing(self) -> bool:
        """True if a side has sent a goodbye, or the link has ended."""
        return self.stage not in (Stage.OPENING, Stage.OPEN)

    @property
    def receiving(self) -> bool:
        """True if a part of a message has arrived; on links that keep message boundaries that is not known."""
        return self._reader is not None and self._reader.buffered > 0

    def touch(self, now: int) -> None:
        """Record activity: bytes arrived, or the peer took some."""
        self.last_activity = now
        self.keepalive_sent = self.grace_given = False

    def receive(self, data: bytes | bytearray | memoryview | str, now: int) -> Received:
        """Return the messages that `data` completes. After a violation the session cannot be used again; hang up."""
        self.touch(now)
        received = Received()
        try:
            if self._reader is None:
                self._check_size(data)
                self._admit_body(data, received)
                return received
            assert not isinstance(data, str), "byte streams carry bytes"
            for body in self._reader.feed(data):
                self._admit_body(body, received)
        except FrameError as error:
            try:
                for body in error.bodies:
                    self._admit_body(body, received)
                received.violation = Fault(error.code, error.text, error.details)
            except RemoteProtocolError as earlier:
                received.violation = Fault(earlier.code, str(earlier), earlier.details)
        except RemoteProtocolError as error:
            received.violation = Fault(error.code, str(error), error.details)
        return received

    def has(self, feature: Feature) -> bool:
        """Return whether both ends have a feature of the protocol."""
        return self.agreed is not None and feature in self.agreed.features

    @property
    def decoding(self) -> bool:
        """True if a long message is being decoded: call `continue_decoding`."""
        return self._steps is not None

    def continue_decoding(self) -> tuple[Received, bool]:
        """Decode the long message for some milliseconds.

        Returns the message and the bodies that came after it, once it is done, and whether a long message is still
        being decoded.
        """
        received = Received()
        if self._steps is None:
            return received, False
        try:
            next(self._steps)
        except StopIteration as stop:
            received.append(self._admit_classic(stop.value))
            self._steps = None
            behind, self._bodies_behind = self._bodies_behind or (), None
            for body in behind:
                self._admit_body(body, received)
        return received, self.decoding

    def discard_decoding(self) -> None:
        """Discard the message that is being decoded, and the bodies after it."""
        self._steps = self._bodies_behind = None

    def handle(self, message: Message, now: int) -> Received:
        """Take a message that was never encoded (Framing.OBJECTS), as `receive` takes bytes."""
        self.touch(now)
        received = Received()
        try:
            received.append(self._admit(message, 0))
        except RemoteProtocolError as error:
            received.violation = Fault(error.code, str(error), error.details)
        return received

    def encode(self, message: Message, *, room: int | None = None) -> bytes | None:
        """Return the body of `message`, of any length; None if the peer's dialect has no such message.

        `room`: the bytes that may still be kept for a JSON client. 1014 replaces a longer answer.
        """
        return dialects.encode(message) if self._classic is None else self._classic.encode(message, room=room)

    @property
    def in_flight(self) -> tuple[int, int]:
        """The requests of a JSON client that have no answer yet, and their bytes."""
        return (0, 0) if self._classic is None else self._classic.in_flight

    def chunks(self, body: bytes) -> tuple[bytes, ...]:
        """Return the chunks that carry a body to the peer; the body must not be over `limit`."""
        return (body,) if self._reader is None else (prefix(len(body)), body)

    def transition(self, cause: Cause) -> None:
        """Go to the next stage. Raises LocalProtocolError for a step that STAGES lacks; nothing has changed then."""
        following = STAGES.get((self.stage, cause))
        if following is None:
            raise LocalProtocolError(f"a link that is {self.stage.name} cannot take {cause.name}")
        self.stage = following

    def _admit_body(self, body: bytes | bytearray | memoryview | str, received: Received) -> None:
        """Decode one body at once, or begin to decode it, or keep it behind one that is being decoded."""
        if self.remote_hello is not None and not isinstance(body, str):  # a native link: by far the most common case
            if len(body) > dialects.LONG and self.member is None:
                dialects.check_client_message(body)
            received.append(self._admit(dialects.decode(body, self._limits), len(body)))
        elif self._steps is not None:
            if self._bodies_behind is None:
                self._bodies_behind = deque()
            self._bodies_behind.append(body)
        elif len(body) >= DECODE_IN_STEPS_FROM and self._is_classic(body):
            classic = self._classic or self._open_classic()
            self._steps = classic.decode_in_steps(body)
        else:
            received.append(self._decode(body))

    def _is_classic(self, body: bytes | bytearray | memoryview | str) -> bool:
        """Return whether a body is in the classic dialect; the first body of a raw link determines that."""
        return self._classic is not None or (
            not isinstance(body, str)
            and self.stage is Stage.OPENING
            and self.dialled is None
            and self._reader is not None
            and bytes(body[:4]).removeprefix(_BYTE_ORDER_MARK)[:1] == b"{"
        )

    def _decode(self, body: bytes | bytearray | memoryview | str) -> Message | BadRequest:
        if self._classic is not None:
            return self._admit_classic(self._classic.decode(body))
        if isinstance(body, str):
            raise RemoteProtocolError("a native link carries binary messages, not text")
        if self._is_classic(body):
            return self._admit_classic(self._open_classic().decode(body))
        return self._admit(dialects.decode(body, self._limits), len(body))

    def _admit(self, message: Message | BadRequest, size: int) -> Message | BadRequest:
        if isinstance(message, Hello) is not (self.stage is Stage.OPENING) and not isinstance(message, Refused):
            raise RemoteProtocolError("the first message of a link, and only that, is a hello")
        if isinstance(message, Hello):
            self._settle(message)
        elif self._serves_client and type(message) is Request:
            if self.request_sizes is None:
                self.request_sizes = deque()
            self.request_sizes.append(size)
        return message

    def _admit_classic(self, message: Request | BadRequest) -> Request | BadRequest:
        """Return a classic request if its client may send any, else its refusal."""
        if self.verdict is Authentication.NONE and isinstance(message, Request):
            return BadRequest(message.id, NOT_AUTHENTICATED)
        return message

    def _settle(self, theirs: Hello) -> None:
        agreed = refusal(self.verdict, theirs) or agree(self.local_hello, theirs)
        if isinstance(agreed, Fault):
            raise RemoteProtocolError(agreed.message, code=agreed.code, details=agreed.details)
        self.remote_hello = theirs
        self.member = MemberId(theirs.member) if theirs.member else None
        self.agreed = agreed
        self._serves_client = bool(self.local_hello.member) and self.member is None
        if self.member is not None and self.local_hello.member:
            self.limit = min(self._limits.node_message, LONGEST_FRAME)
        if self._reader is not None:
            self._reader.limit = self.limit
        self.transition(Cause.AGREED)

    def _check_size(self, message: bytes | bytearray | memoryview | str) -> None:
        size = len(message)
        if isinstance(message, str) and 4 * size > self.limit:  # up to 4 bytes per character
            size = len(message.encode())
        if size > self.limit:
            details: dict[str, object] = {"limit": "message", "value": self.limit, "came": size}
            text = f"a message of {size} bytes is over the limit of {self.limit}"
            raise RemoteProtocolError(text, code=ErrorCode.LIMIT_EXCEEDED, details=details)

    def _open_classic(self) -> ClassicDialect:
        self._classic = ClassicDialect(self._codec, self.limit, self._limits)
        self.classic = True
        self.transition(Cause.AGREED)
        return self._classic
