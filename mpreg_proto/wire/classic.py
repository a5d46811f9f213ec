"""The classic dialect: JSON of the seed project on the link, native messages inside (docs/howto/call-from-json.md).

Each link has one `ClassicDialect`. It turns each JSON object into a `Request`, and each `Result` into the JSON that
answers the request. It numbers the requests of its link, because their `u` may be any text and may repeat. It replaces
references in arguments by typed ones (`Ref`), so that no later stage looks for names in data. It keeps only what an
answer needs.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Literal

import msgspec

from mpreg_proto.errors import ErrorCode, Fault, over_limit
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.sending import shorten_fault
from mpreg_proto.wire import jsonsteps, jsonvalues
from mpreg_proto.wire.dialects import BadRequest, error_path
from mpreg_proto.wire.messages import Call, Message, Refused, Request, Result, Traced
from mpreg_proto.wire.references import BadReference, scan_classic, scan_explicit
from mpreg_proto.wire.values import MalformedValue, UnsendableValue, ValueCodec

_SECOND = 1_000_000_000
DECODE_IN_STEPS_FROM = 64 * 1024
"""The length, in characters or bytes, from which a message is decoded in steps."""
_STEP = 64
"""The number of calls translated in one step."""
_MANY = 1024
"""The number of calls above which their shape is checked in steps."""
_ALWAYS_SENT = 1024
"""The bytes of an answer that is sent however many wait: error 1014 would not be shorter."""
LONGEST_TIMEOUT = 86_400
"""The longest `timeout` and `wait` of a classic request, in seconds."""


class _Command(msgspec.Struct):
    name: str
    fun: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    locs: list[str] = []


class _Rpc(msgspec.Struct):
    cmds: list[_Command]
    u: str = ""
    refs: Literal["classic", "explicit"] = "classic"
    want: list[str] | None = None
    timeout: float | None = None
    wait: float = 0
    on_error: Literal["fail", "partial"] = "fail"
    trace: bool = False


class _OpenRequest(msgspec.Struct, frozen=True):
    """The data needed to answer a request."""

    u: str
    size: int
    """The bytes of the request."""
    traced: bool = False
    partial: bool = False


class _RequestFault(Exception):
    def __init__(self, code: int, message: str, **details: object) -> None:
        super().__init__(message)
        self.fault = Fault(code, message, details)


class ClassicDialect:
    """The translation of one link. Requests are numbered from 1 in the order of their arrival."""

    __slots__ = ("_codec", "_limit", "_limits", "_number", "_open", "_size")

    def __init__(self, codec: ValueCodec, limit: int, limits: Limits = DEFAULT) -> None:
        """`limit`: the longest answer in bytes; error 1014 replaces a longer one."""
        self._limits = limits
        self._codec = codec
        self._limit = limit
        self._number = 0
        self._open: dict[int, _OpenRequest] = {}
        self._size = 0
        """The bytes of the open requests."""

    @property
    def in_flight(self) -> tuple[int, int]:
        """The requests that have no answer yet, and their bytes."""
        return len(self._open), self._size

    def decode(self, body: bytes | bytearray | memoryview | str) -> Request | BadRequest:
        """Return the request in one JSON message.

        Never raises: a message that is not a valid request becomes a `BadRequest`, which is to be answered.
        """
        steps = self.decode_in_steps(body)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                message: Request | BadRequest = stop.value
                return message

    def decode_in_steps(
        self, body: bytes | bytearray | memoryview | str
    ) -> Generator[None, None, Request | BadRequest]:
        """Do the same as `decode` with pauses: yield after every few milliseconds of work."""
        self._number += 1
        self._open[self._number] = _OpenRequest("", len(body))
        self._size += len(body)
        try:
            return (yield from self._request(body))
        except _RequestFault as error:
            return BadRequest(self._number, error.fault)

    def encode(self, message: Message, *, room: int | None = None) -> bytes | None:
        """Return the JSON of a request's final answer, or of the reason why the link ends; None for other messages.

        Error 1014 replaces an answer with results of more than `room` bytes, if there is one: `Limits.json_answers`
        without those that wait to be sent. An error is shortened.
        """
        if isinstance(message, Refused):
            return self._answer(Result(0, fault=message.fault), _OpenRequest("", 0)).encode()
        if not isinstance(message, Result) or not message.last:
            return None
        open_ = self._open.pop(message.id, None)
        if open_ is None:
            return None
        answer = self._answer(message, open_).encode()
        fault = self._refusal(message, len(answer), room)
        if fault is not None:
            answer = self._answer(Result(message.id, fault=fault), open_).encode()
            if len(answer) > self._limit:  # its `u` alone is too long: `Links.send` returns TooLong
                self._open[message.id] = open_
                return answer
        self._size -= open_.size
        return answer

    def _refusal(self, result: Result, size: int, room: int | None) -> Fault | None:
        """Return the error in place of an answer of `size` bytes that is too long, or for which no room is left."""
        if size > self._limit:
            details = {"limit": "message", "value": self._limit, "came": size, "maybe_executed": True}
            text = f"over the limit message: the answer has {size} bytes, at most {self._limit}"
            return Fault(ErrorCode.LIMIT_EXCEEDED, text, details)
        if room is None or size <= max(room, _ALWAYS_SENT):
            return None
        if result.fault is not None and not result.done:
            return shorten_fault(result.fault)
        most, kept = self._limits.json_answers, self._limits.json_answers - room
        details = {"limit": "json_answers", "value": most, "came": kept + size, "maybe_executed": True}
        text = (
            f"over the limit json_answers: an answer of {size} bytes came while {kept} bytes of others were not taken"
        )
        return Fault(ErrorCode.LIMIT_EXCEEDED, f"{text}; at most {most} are kept", details)

    def _request(self, body: bytes | bytearray | memoryview | str) -> Generator[None, None, Request]:
        excess: jsonvalues.MalformedJson | None = None
        try:
            tree = jsonvalues.loads(body) if len(body) < DECODE_IN_STEPS_FROM else (yield from jsonsteps.loads(body))
        except jsonvalues.MalformedJson as error:
            if error.limit is None:
                raise _RequestFault(ErrorCode.UNKNOWN_MESSAGE, f"not JSON that can be read: {error}") from None
            if error.tree is None:
                raise _over(error) from None
            tree, excess = error.tree, error  # checks that come before 1014 are reported first
        if not isinstance(tree, dict):
            raise _RequestFault(ErrorCode.UNKNOWN_MESSAGE, f"a message is a JSON object, not {_kind(tree)}")
        u = tree.get("u", "")
        if isinstance(u, str):
            self._open[self._number] = _OpenRequest(u, len(body))
        if tree.get("role") != "rpc":
            role = f"role {tree['role']!r:.60} is unknown" if "role" in tree else "there is no role"
            raise _RequestFault(ErrorCode.INVALID_ROLE, f'{role}; a request has "role":"rpc"')
        many = tree.get("cmds")
        if not isinstance(many, list) or len(many) <= _MANY:
            many = None
        try:
            rpc = msgspec.convert(tree if many is None else {**tree, "cmds": []}, _Rpc)
        except (msgspec.ValidationError, RecursionError) as error:
            raise _shape(str(error)) from None
        if many is not None:
            yield from _convert(many, rpc.cmds)
        self._open[self._number] = _OpenRequest(rpc.u, len(body), rpc.trace, rpc.on_error == "partial")
        return (yield from self._translate(rpc, excess))

    def _translate(self, rpc: _Rpc, excess: jsonvalues.MalformedJson | None) -> Generator[None, None, Request]:
        if rpc.timeout is not None and not 0 < rpc.timeout <= LONGEST_TIMEOUT:
            raise _RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"$.timeout: more than 0 and at most {LONGEST_TIMEOUT} seconds, not {rpc.timeout}",
                path="$.timeout",
            )
        if not 0 <= rpc.wait <= LONGEST_TIMEOUT:
            raise _RequestFault(
                ErrorCode.INVALID_REQUEST, f"$.wait: 0 to {LONGEST_TIMEOUT} seconds, not {rpc.wait}", path="$.wait"
            )
        if excess is not None:
            raise _over(excess)
        calls = yield from self._calls(rpc.cmds, rpc.refs)
        return Request(
            self._number,
            calls,
            timeout=None if rpc.timeout is None else max(1, int(rpc.timeout * _SECOND)),
            want=None if rpc.want is None else tuple(rpc.want),
            wait=int(rpc.wait * _SECOND),
            partial=rpc.on_error == "partial",
            trace=rpc.trace,
        )

    def _calls(self, commands: Sequence[_Command], refs: str) -> Generator[None, None, tuple[Call, ...]]:
        names = dict.fromkeys(command.name for command in commands)
        calls: list[Call] = []
        edges = 0
        for position, command in enumerate(commands):
            if position % _STEP == _STEP - 1:
                yield
            arguments = [command.args, command.kwargs]
            path = f"$.cmds[{position}]"
            try:
                scanned: object = arguments
                dependencies: tuple[str, ...] = ()
                if refs == "classic" and len(names) == 1:
                    pass  # there is no other call to refer to
                elif refs == "classic":
                    scanned, dependencies = scan_classic(arguments, names, command.name)
                else:
                    if "$ref" in command.kwargs or "$data" in command.kwargs:  # all keywords would be one reference
                        raise BadReference("$[1]", "no keyword is named $ref or $data")
                    scanned, dependencies = scan_explicit(arguments)
                edges += len(dependencies)
                if edges > self._limits.edges:  # refused below: keep no more of it
                    continue
                args = self._codec.encode(scanned)
            except BadReference as error:
                raise _RequestFault(
                    ErrorCode.INVALID_REQUEST,
                    f"{path}{_inside(error.path)}: {error.text}",
                    path=path + _inside(error.path),
                ) from None
            except UnsendableValue as error:
                place = path + _inside(error.path)
                code = ErrorCode.INVALID_REQUEST if error.limit is None else ErrorCode.LIMIT_EXCEEDED
                raise _RequestFault(code, f"{place}: {error.reason}", path=place, **(error.limit or {})) from None
            calls.append(
                Call(command.name, command.fun, args, dependencies, tuple(sorted(dict.fromkeys(command.locs))))
            )
        if edges > self._limits.edges:
            for position, command in enumerate(commands):  # 1010 is reported before 1014
                if not command.name or not command.fun:
                    path = f"$.cmds[{position}].{'fun' if command.name else 'name'}"
                    raise _RequestFault(ErrorCode.INVALID_REQUEST, f"{path}: a name is not empty", path=path)
            raise _over_limit("edges", self._limits.edges, edges)
        return tuple(calls)

    def _answer(self, result: Result, open_: _OpenRequest) -> str:
        fault = result.fault
        failed = {row.name: row.fault for row in result.failed}
        values: dict[str, object] = {}
        for row in result.done:
            try:
                values[row.name] = jsonvalues.to_json(self._codec.decode(row.value), self._codec)
            except (UnsendableValue, MalformedValue) as error:
                failed[row.name] = _unsendable_result(row.name, error)
                fault = fault or failed[row.name]
        answer: dict[str, object] = {"r": values, "error": None, "u": open_.u}
        if fault is not None:
            if not (open_.partial and (result.done or failed)):
                answer["r"], failed = None, {}  # also for a result without a JSON form, as for any failed call
            answer["error"] = self._error(fault, failed)
        if open_.traced:
            answer["trace"] = [_seconds(row) for row in result.trace]
        return jsonvalues.dumps(answer)

    def _error(self, fault: Fault, failed: dict[str, Fault]) -> dict[str, object]:
        details = self._details(fault)
        others = {
            name: {"code": other.code, "message": other.message, "details": self._details(other)}
            for name, other in failed.items()
            if name != fault.details.get("call")
        }
        if others:
            details["failed"] = others
        return {"code": fault.code, "message": fault.message, "details": details}

    def _details(self, fault: Fault) -> dict[str, object]:
        """Return the details of a fault as JSON; empty if they are not plain data, because their node is broken."""
        try:
            tree = jsonvalues.to_json(fault.details, self._codec)
        except UnsendableValue:
            return {}
        assert isinstance(tree, dict), "a dict stays one"
        return tree


def _unsendable_result(name: str, error: UnsendableValue | MalformedValue) -> Fault:
    text = f"the result of call {name!r} cannot be sent as JSON: {error}"
    # The function has run. Whether it is idempotent is not known here, and only maybe_executed=False is a promise.
    details = {"call": name, "type": type(error).__name__, "message": str(error), "maybe_executed": True}
    return Fault(ErrorCode.EXECUTION_FAILED, text, details)


def _over_limit(limit: str, value: int, came: int) -> _RequestFault:
    fault = over_limit(limit, value, came)
    return _RequestFault(fault.code, fault.message, **fault.details)


def _over(error: jsonvalues.MalformedJson) -> _RequestFault:
    return _RequestFault(ErrorCode.LIMIT_EXCEEDED, f"over a limit: {error}", **(error.limit or {}))


def _seconds(row: Traced) -> dict[str, object]:
    return {
        "name": row.name,
        "node": row.node,
        "queued": row.queued / _SECOND,
        "moved": row.moved / _SECOND,
        "started": row.started / _SECOND,
        "ended": row.ended / _SECOND,
        "tries": row.tries,
        "why": row.why,
    }


def _shape(message: str) -> _RequestFault:
    path, text = error_path(message)
    return _RequestFault(ErrorCode.INVALID_REQUEST, f"{path}: {text}", path=path)


def _convert(many: list[Any], made: list[_Command]) -> Generator[None, None, None]:
    """Check the shape of many calls in steps."""
    for start in range(0, len(many), _MANY):
        try:
            made += msgspec.convert(many[start : start + _MANY], list[_Command])
        except (msgspec.ValidationError, RecursionError) as error:
            path, text = error_path(str(error))
            index, _, rest = path.removeprefix("$[").partition("]")
            where = f"$.cmds[{start + int(index)}]{rest}" if index.isdigit() else "$.cmds"
            raise _RequestFault(ErrorCode.INVALID_REQUEST, f"{where}: {text}", path=where) from None
        yield


def _inside(path: str) -> str:
    """Return a path within `[args, kwargs]` as one within the command: `$[0][2].x` becomes `.args[2].x`."""
    return path.replace("$[0]", ".args", 1).replace("$[1]", ".kwargs", 1).removeprefix("$")


def _kind(tree: object) -> str:
    names = {list: "an array", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(tree), "null")
