"""All errors: one table of codes, one exception class for each (docs/reference/errors.md).

A `Fault` is an error as a value: machines keep, return and send it. A `RequestError` is the same error as an exception.
Both use the same table, so an error is the same whether it was made here or came over a link. Misuse of the core by its
own process (`LocalProtocolError`) and invalid input from a peer (`RemoteProtocolError`) are other families. The second
never leaves the core: it becomes a closed link and a notice.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar, Final

import msgspec


class ErrorCode(IntEnum):
    """The number of each error; the exception class of the same name gives its meaning."""

    UNKNOWN_MESSAGE = 1000
    COMMAND_NOT_FOUND = 1001
    INTERNAL = 1002
    EXECUTION_FAILED = 1003
    INVALID_ROLE = 1004
    CLUSTER_MISMATCH = 1005
    INVALID_REQUEST = 1010
    DUPLICATE_NAME = 1011
    CYCLIC_REFERENCE = 1012
    UNRESOLVED_REFERENCE = 1013
    LIMIT_EXCEEDED = 1014
    DEADLINE_EXCEEDED = 1020
    CANCELLED = 1021
    OVERLOADED = 1022
    OUTCOME_UNKNOWN = 1023
    DRAINING = 1024
    UNAUTHENTICATED = 1030
    FORBIDDEN = 1031
    VERSION_MISMATCH = 1040


class CloseCode(IntEnum):
    """The WebSocket close codes that this protocol uses (RFC 6455, 7.4.1; 1013: IANA's registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013


class MpregError(Exception):
    """The base class of everything that mpreg raises on purpose."""


class ProtocolError(MpregError):
    """An input or a message that the protocol does not allow.

    `code` is an `ErrorCode`, `at` a path or place if one is known, and `details` are as in a `Fault`.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = ErrorCode.INVALID_REQUEST,
        at: str = "",
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.at = at
        self.details: dict[str, object] = details if details is not None else {}


class LocalProtocolError(ProtocolError):
    """The caller misused the core (unknown link, function offered twice, ...). Nothing has changed."""

    state_unchanged: ClassVar[bool] = True


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. Raised and caught inside the core; the link that it came from ends."""

    state_unchanged: ClassVar[bool] = False


class Fault(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One typed error as a value, the form in which it is kept and sent.

    `details` holds only plain data (text, numbers, lists, maps), so that every dialect can carry it.
    """

    code: int
    message: str
    details: dict[str, Any] = {}

    def with_details(self, **more: object) -> Fault:
        """Return the same fault with `more` added to its details."""
        return Fault(self.code, self.message, {**self.details, **more})


class RequestError(MpregError):
    """A request, or one call of it, ended in an error.

    `repeat_safe` is the code's column in the table. `safe_to_repeat` also considers `details["maybe_executed"]`, which
    covers the whole request: false is a promise that no non-idempotent call of it has started.
    """

    default_code: ClassVar[int] = ErrorCode.INTERNAL
    kind: ClassVar[str] = "internal"
    """The name of the code, as in the table."""
    repeat_safe: ClassVar[bool] = False
    state_unchanged: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        cls.kind = ErrorCode(cls.default_code).name.lower()

    def __init__(self, message: str, *, code: int | None = None, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code: int = self.default_code if code is None else code
        self.message = message
        self.details: dict[str, Any] = details if details is not None else {}

    @property
    def safe_to_repeat(self) -> bool:
        """True if sending the same request again cannot make anything happen twice."""
        return self.repeat_safe and not self.details.get("maybe_executed", False)

    @property
    def fault(self) -> Fault:
        """The same error as a value."""
        return Fault(self.code, self.message, self.details)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.code, self.message, self.details)


class UnknownMessage(RequestError):
    """1000: not JSON, or not an object."""

    default_code: ClassVar[int] = ErrorCode.UNKNOWN_MESSAGE


class CommandNotFound(RequestError):
    """1001: no node offers the function, or none that offers it holds the resources."""

    default_code: ClassVar[int] = ErrorCode.COMMAND_NOT_FOUND
    repeat_safe: ClassVar[bool] = True


class InternalError(RequestError):
    """1002: a defect of mpreg."""

    default_code: ClassVar[int] = ErrorCode.INTERNAL


class ExecutionFailed(RequestError):
    """1003: the function raised, or its result cannot be sent. Details: call, function, node, type, message."""

    default_code: ClassVar[int] = ErrorCode.EXECUTION_FAILED


class InvalidRole(RequestError):
    """1004: `role` is absent or unknown."""

    default_code: ClassVar[int] = ErrorCode.INVALID_ROLE


class ClusterMismatch(RequestError):
    """1005: the two sides of a link belong to different clusters."""

    default_code: ClassVar[int] = ErrorCode.CLUSTER_MISMATCH


class GraphError(RequestError):
    """1010 to 1013: the calls of the request do not form a valid graph.

    Raised where the graph is built, and sent by a node that receives an invalid one.
    """

    default_code: ClassVar[int] = ErrorCode.INVALID_REQUEST


class InvalidRequest(GraphError):
    """1010: any other fault in the shape of a request; the message has a path such as `$.cmds[2].args`."""


class DuplicateName(GraphError):
    """1011: two calls have the same name."""

    default_code: ClassVar[int] = ErrorCode.DUPLICATE_NAME


class CyclicReference(GraphError):
    """1012: calls depend on each other in a cycle; details list the cycle in order."""

    default_code: ClassVar[int] = ErrorCode.CYCLIC_REFERENCE


class UnresolvedReference(GraphError):
    """1013: a reference or `want` names no call, or a path does not exist in the value."""

    default_code: ClassVar[int] = ErrorCode.UNRESOLVED_REFERENCE


class LimitExceeded(RequestError):
    """1014: a limit is exceeded; details: the limit, its value, and what came."""

    default_code: ClassVar[int] = ErrorCode.LIMIT_EXCEEDED


class DeadlineExceeded(RequestError, TimeoutError):
    """1020: the deadline has passed."""

    default_code: ClassVar[int] = ErrorCode.DEADLINE_EXCEEDED


class Cancelled(RequestError):
    """1021: cancelled by the caller, or not run because an input is missing."""

    default_code: ClassVar[int] = ErrorCode.CANCELLED


class Overloaded(RequestError):
    """1022: too much is in flight; details: retry_after, in seconds."""

    default_code: ClassVar[int] = ErrorCode.OVERLOADED
    repeat_safe: ClassVar[bool] = True


class OutcomeUnknown(RequestError):
    """1023: the node or executor of a call was lost after the call may have started; its function is not idempotent."""

    default_code: ClassVar[int] = ErrorCode.OUTCOME_UNKNOWN


class Draining(RequestError):
    """1024: the node is leaving."""

    default_code: ClassVar[int] = ErrorCode.DRAINING
    repeat_safe: ClassVar[bool] = True


class Unauthenticated(RequestError):
    """1030: the caller is not authenticated."""

    default_code: ClassVar[int] = ErrorCode.UNAUTHENTICATED


class Forbidden(RequestError, PermissionError):
    """1031: the caller has no permission."""

    default_code: ClassVar[int] = ErrorCode.FORBIDDEN


class VersionMismatch(RequestError):
    """1040: no common protocol version, or a message of a kind that was not agreed on."""

    default_code: ClassVar[int] = ErrorCode.VERSION_MISMATCH


KINDS: Final[tuple[type[RequestError], ...]] = (
    UnknownMessage,
    CommandNotFound,
    InternalError,
    ExecutionFailed,
    InvalidRole,
    ClusterMismatch,
    InvalidRequest,
    DuplicateName,
    CyclicReference,
    UnresolvedReference,
    LimitExceeded,
    DeadlineExceeded,
    Cancelled,
    Overloaded,
    OutcomeUnknown,
    Draining,
    Unauthenticated,
    Forbidden,
    VersionMismatch,
)
BY_CODE: Final[dict[int, type[RequestError]]] = {kind.default_code: kind for kind in KINDS}


def exception_for(fault: Fault) -> RequestError:
    """Return the exception for `fault`: the class of its code, or `RequestError` for a code of a newer version."""
    return BY_CODE.get(fault.code, RequestError)(fault.message, code=fault.code, details=fault.details)


def over_limit(limit: str, value: int, came: int) -> Fault:
    """Return error 1014 with the limit's name, its value, and what came; lengths are in the limit's own unit."""
    return Fault(
        ErrorCode.LIMIT_EXCEEDED,
        f"over the limit {limit}: {came}, at most {value}",
        {"limit": limit, "value": value, "came": came},
    )


def _rebuild(code: int, message: str, details: dict[str, Any]) -> RequestError:
    return exception_for(Fault(code, message, details))
