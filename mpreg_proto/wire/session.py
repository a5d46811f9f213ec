"""One link: bytes in to messages out, messages in to bytes out, and the stages of its life.

`Node` and `ClientSession` own one `Session` a link. It knows the framing, picks the dialect from the first body, holds
the handshake's outcome and when the peer was last heard; what a message means it does not know. It never touches a
socket: bytes come to `receive` and go out as the chunks that `chunks` returns.

A link goes through these stages; a pair that is not in the table is a bug of ours or a violation of the peer's, never a
silent pass:
"""

from __future__ import annotations

import enum

from mpreg_proto.errors import Fault, LocalProtocolError, RemoteProtocolError
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.wire import dialects
from mpreg_proto.wire.classic import ClassicDialect, begins_json
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.framing import LONGEST_FRAME, FrameError, FrameReader, Framing, prefix
from mpreg_proto.wire.handshake import Agreed, agree
from mpreg_proto.wire.messages import Hello, Message, Refused
from mpreg_proto.wire.values import ValueCodec


class Stage(enum.Enum):
    """How far a link is."""

    OPENING = enum.auto()
    """Nothing but a hello (or, classic, a first message) may come."""
    OPEN = enum.auto()
    WE_LEAVE = enum.auto()
    """Our goodbye is out: we send answers only."""
    THEY_LEAVE = enum.auto()
    BOTH_LEAVE = enum.auto()
    """Closes as soon as nothing is pending on it."""
    ENDED = enum.auto()


class Cause(enum.Enum):
    """What moves a link on."""

    AGREED = enum.auto()
    GOODBYE_SENT = enum.auto()
    GOODBYE_CAME = enum.auto()
    HUNG_UP = enum.auto()


STAGES: dict[tuple[Stage, Cause], Stage] = {
    (Stage.OPENING, Cause.AGREED): Stage.OPEN,
    (Stage.OPEN, Cause.GOODBYE_SENT): Stage.WE_LEAVE,
    (Stage.OPEN, Cause.GOODBYE_CAME): Stage.THEY_LEAVE,
    (Stage.WE_LEAVE, Cause.GOODBYE_CAME): Stage.BOTH_LEAVE,
    (Stage.THEY_LEAVE, Cause.GOODBYE_SENT): Stage.BOTH_LEAVE,
    (Stage.OPENING, Cause.HUNG_UP): Stage.ENDED,
    (Stage.OPEN, Cause.HUNG_UP): Stage.ENDED,
    (Stage.WE_LEAVE, Cause.HUNG_UP): Stage.ENDED,
    (Stage.THEY_LEAVE, Cause.HUNG_UP): Stage.ENDED,
    (Stage.BOTH_LEAVE, Cause.HUNG_UP): Stage.ENDED,
}

CLOSE_CODES = {1040: 1002, 1010: 1002, 1000: 1002, 1014: 1009, 1005: 1008}
"""WebSocket's close code (RFC 6455, 7.4.1) for an error that ends a link; every other is 1008, policy violation."""


class Received(list[Message | BadRequest]):
    """The messages of one `receive`, in order, and the violation that came after them, if any."""

    violation: Fault | None = None


class Session:
    """One link's codec and stage. `mine` is this side's hello; `dialled` is the address if this side dialled."""

    __slots__ = (
        "_classic",
        "_codec",
        "_limits",
        "_reader",
        "agreed",
        "asked",
        "asked_at",
        "busy",
        "dialled",
        "framing",
        "heard",
        "limit",
        "link",
        "mine",
        "pinged",
        "stage",
        "theirs",
        "trip",
    )

    def __init__(
        self,
        link: LinkId,
        *,
        framing: Framing,
        dialled: Address | None,
        mine: Hello,
        codec: ValueCodec,
        limits: Limits,
        now: int,
    ) -> None:
        self.link = link
        self.framing = framing
        self.dialled = dialled
        self.mine = mine
        self.theirs: Hello | None = None
        self.agreed: Agreed | None = None
        self.stage = Stage.OPENING
        self.heard = now
        self.busy = now
        """When anything but pings last came."""
        self.pinged = False
        self.asked = 0
        """The number of the ping that an answer is awaited for, 0 if none is; and when it was sent."""
        self.asked_at = 0
        self.trip: int | None = None
        """How long the latest answered ping took there and back."""
        self.limit = min(limits.message, LONGEST_FRAME)
        """Bytes of the longest message either way."""
        self._codec = codec
        self._limits = limits
        # What follows a node's hello in the same piece may already be longer than a client's message.
        first = min(limits.node_message, LONGEST_FRAME) if dialled is not None and mine.member else self.limit
        self._reader = FrameReader(first) if framing is Framing.STREAM else None
        self._classic: ClassicDialect | None = None
        if framing is Framing.CLASSIC_MESSAGES:
            self._open_classic()

    @property
    def classic(self) -> bool:
        """Whether the peer speaks the seed's JSON; it is then a client that never says hello or goodbye."""
        return self._classic is not None

    @property
    def member(self) -> MemberId | None:
        """The peer's member id once the hellos agreed; None for clients."""
        return MemberId(self.theirs.member) if self.theirs is not None and self.theirs.member else None

    @property
    def closing(self) -> bool:
        """Whether one side or both have said goodbye."""
        return self.stage not in (Stage.OPENING, Stage.OPEN)

    def receive(self, data: bytes | bytearray | memoryview | str, now: int) -> Received:
        """The messages that `data` completes. After a violation the session is of no further use; hang up."""
        self.heard = now
        self.pinged = False
        received = Received()
        try:
            if self._reader is None:
                self._check_size(data)
                received.append(self._decode(data))
                return received
            assert not isinstance(data, str), "byte streams carry bytes"
            for body in self._reader.feed(data):
                received.append(self._decode(body))
        except FrameError as error:
            try:
                for body in error.bodies:
                    received.append(self._decode(body))
                received.violation = Fault(error.code, error.text, error.details)
            except RemoteProtocolError as earlier:
                received.violation = Fault(earlier.code, str(earlier), earlier.details)
        except RemoteProtocolError as error:
            received.violation = Fault(error.code, str(error), error.details)
        return received

    def handle(self, message: Message, now: int) -> Received:
        """The same for a message that was never encoded (Framing.OBJECTS)."""
        self.heard = now
        self.pinged = False
        received = Received()
        try:
            received.append(self._admit(message))
        except RemoteProtocolError as error:
            received.violation = Fault(error.code, str(error), error.details)
        return received

    def encode(self, message: Message) -> bytes | None:
        """The body of `message`, whatever its length; None if the peer's dialect has no such message."""
        return dialects.encode(message) if self._classic is None else self._classic.encode(message)

    def chunks(self, body: bytes) -> tuple[bytes, ...]:
        """The chunks that carry a body to the peer; it must not be over `limit`."""
        return (body,) if self._reader is None else (prefix(len(body)), body)

    def move(self, cause: Cause) -> None:
        """Go to the next stage. Raises LocalProtocolError for a step the table does not have; nothing has changed."""
        following = STAGES.get((self.stage, cause))
        if following is None:
            raise LocalProtocolError(f"a link that is {self.stage.name} cannot take {cause.name}")
        self.stage = following

    def _decode(self, body: bytes | bytearray | memoryview | str) -> Message | BadRequest:
        if self._classic is not None:
            return self._classic.decode(body)
        if isinstance(body, str):
            raise RemoteProtocolError("a native link carries binary messages, not text")
        if self.stage is Stage.OPENING and self.dialled is None and self._reader is not None and begins_json(body):
            return self._open_classic().decode(body)
        return self._admit(dialects.decode(body))

    def _admit(self, message: Message | BadRequest) -> Message | BadRequest:
        if isinstance(message, Hello) is not (self.stage is Stage.OPENING) and not isinstance(message, Refused):
            raise RemoteProtocolError("the first message of a link, and only that, is a hello")
        if isinstance(message, Hello):
            self._settle(message)
        return message

    def _settle(self, theirs: Hello) -> None:
        agreed = agree(self.mine, theirs)
        if isinstance(agreed, Fault):
            raise RemoteProtocolError(agreed.message, code=agreed.code, details=agreed.details)
        self.theirs = theirs
        self.agreed = agreed
        if self.member is not None and self.mine.member:
            self.limit = min(self._limits.node_message, LONGEST_FRAME)
        if self._reader is not None:
            self._reader.limit = self.limit
        self.move(Cause.AGREED)

    def _check_size(self, message: bytes | bytearray | memoryview | str) -> None:
        size = len(message)
        if isinstance(message, str) and 4 * size > self.limit:  # up to 4 bytes a character
            size = len(message.encode())
        if size > self.limit:
            details: dict[str, object] = {"limit": "message", "value": self.limit, "came": size}
            text = f"a message of {size} bytes is over the limit of {self.limit}"
            raise RemoteProtocolError(text, code=1014, details=details)

    def _open_classic(self) -> ClassicDialect:
        self._classic = ClassicDialect(self._codec, self.limit)
        self.move(Cause.AGREED)
        return self._classic
