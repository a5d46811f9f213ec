"""Strict JSON to trees, and users' values to JSON (docs/howto/call-from-json.md).

Texts come from classic links, `POST /rpc` and files, and their trees go to wire/classic.py. Results come from
functions. A value that JSON cannot express gets the nearest form, or is refused with its path. Nothing becomes NaN,
infinity, a duplicate key or half of a surrogate pair, in either direction. Integers are exact; 1, 1.0 and true stay
distinct.

The key of a map becomes text if it would as a value (Decimal, dates, bytes, registered types such as UUID). An integer
becomes its digits. Other keys are refused, and so are two keys of one map that become the same text.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import Counter, OrderedDict, defaultdict
from datetime import date, datetime, time, timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from math import isfinite, isinf
from typing import Any, Final

from mpreg_proto.describe import exception_text, short_name
from mpreg_proto.wire.encode_errors import LONE_SURROGATE, UnsendableValue, is_text, unknown
from mpreg_proto.wire.extensions import iso
from mpreg_proto.wire.value_limits import MAX_CONTAINERS, MAX_DEPTH, ValueTooLarge, measure, measure_one, ordered, step
from mpreg_proto.wire.values import ValueCodec

_CANNOT: Final = "cannot be sent as JSON"

BYTE_ORDER_MARK: Final = "\ufeff"
"""A mark that some editors write before a text; it has no meaning in UTF-8 (RFC 8259, section 8.1)."""
_SMALL: Final = 1024  # a text this short can hold neither a key nor an array that is over its limit
ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
# CPython reads and writes longer integers only in quadratic time, or not at all (sys.set_int_max_str_digits).
_DIGITS: Final = 4300
_EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_SHORT: Final = 2000  # bits: `str` writes so many with any value of that limit
# About 1,000,000 digits; writing them blocks the event loop of a node for 0.2 s.
_MOST_BITS: Final = 3_321_928


class MalformedJson(Exception):
    """The text is not strict JSON.

    `at` is the offset of the fault if it is known, in characters, or in bytes for invalid UTF-8. If a limit is the
    reason, `limit` holds the details of error 1014, and `tree` what was read, or None if the limit ended the reading.
    """

    def __init__(
        self, reason: str, at: int | None = None, *, excess: ValueTooLarge | None = None, tree: object = None
    ) -> None:
        super().__init__(reason if at is None else f"{reason} (at {at})")
        self.reason = reason
        self.at = at
        self.tree = tree
        self.limit: dict[str, object] | None = None if excess is None else excess.details


def loads(text: str | bytes | bytearray | memoryview) -> Any:
    """Return the tree of one JSON text, which may begin with a byte order mark.

    Raises MalformedJson, and nothing else, for any text.
    """
    tree: Any = None
    marked = False
    try:
        if not isinstance(text, str):
            text = str(text, "utf-8")
        elif not is_text(text):
            raise MalformedJson(LONE_SURROGATE)
        marked = text.startswith(BYTE_ORDER_MARK)
        tree = _decode(text[1:] if marked else text)
        if len(text) > _SMALL or text.count("[") + text.count("{") > MAX_DEPTH:
            measure(tree)
        if "\\u" in text and ESCAPED_SURROGATE.search(text) and has_lone_surrogate(tree):
            raise MalformedJson(LONE_SURROGATE)
    except ValueTooLarge as excess:
        raise MalformedJson(str(excess), excess=excess, tree=tree) from None
    except (ValueError, RecursionError, MemoryError, MalformedJson) as error:
        raise malformed(error, marked) from None
    return tree


def malformed(error: ValueError | RecursionError | MemoryError | MalformedJson, skipped: int = 0) -> MalformedJson:
    """Return the fault of a text for an error of the parser, which did not read the first `skipped` characters."""
    if isinstance(error, MalformedJson):
        return error
    if isinstance(error, UnicodeDecodeError):
        return MalformedJson("not UTF-8", error.start)
    if isinstance(error, json.JSONDecodeError):
        return MalformedJson(error.msg, error.pos + skipped)
    if isinstance(error, RecursionError):
        depth = ValueTooLarge("nesting", MAX_DEPTH, MAX_DEPTH + 1)
        return MalformedJson(str(depth), excess=depth)
    if isinstance(error, MemoryError):
        return MalformedJson("there is not enough memory to read it")
    return MalformedJson(f"an integer of more than {_DIGITS} digits")  # CPython's limit


def to_json(value: object, codec: ValueCodec) -> object:
    """Return a tree of dict, list, str, int, float, bool and None that stands for `value`; it may share parts with it.

    Raises UnsendableValue with the path of the part that has no JSON form.
    """
    try:
        return _Conversion(codec).tree(value, 0)
    except _NoJsonForm as fault:
        raise UnsendableValue("$" + fault.path, fault.type_name, fault.reason, excess=fault.excess) from None


def dumps(tree: object) -> str:
    """Return compact JSON of a tree such as `to_json` makes.

    Half of a surrogate pair, as in an error text that quotes one, becomes U+FFFD. Raises ValueError for NaN and
    infinities, and TypeError for anything that is not a tree: such input is a defect.
    """
    try:
        text = _encode(tree)
    except ValueError:  # CPython's limit of digits, or a float that the next line refuses again
        text = _written(tree)
    return text if is_text(text) else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class _NoJsonForm(Exception):
    """A part of a value has no JSON form. `path` grows while the exception propagates: other values cost nothing."""

    def __init__(self, value: object, reason: str, *, excess: ValueTooLarge | None = None) -> None:
        super().__init__(reason)
        self.path = ""
        self.type_name = short_name(type(value))
        self.reason = reason
        self.excess = excess


class _Conversion:
    """The conversion of a value to a tree, with the registry of one codec."""

    __slots__ = ("_codec", "_containers")

    def __init__(self, codec: ValueCodec) -> None:
        self._codec = codec
        self._containers = 0

    def tree(self, value: Any, depth: int) -> object:
        """Return the tree of `value`, which lies within `depth` containers."""
        kind = type(value)
        if kind is str:
            if not is_text(value):
                raise _NoJsonForm(value, LONE_SURROGATE)
            return value
        if value is None or kind is bool:
            return value
        if kind is int:
            return _checked(value)
        if kind is float:
            if not isfinite(value):
                raise _NoJsonForm(value, f"{value} {_CANNOT}")
            return value
        if kind is list:
            return self._array(value, value, depth)
        if kind is dict:
            return self._object(value, depth)
        return self._other(value, depth)

    def _other(self, value: Any, depth: int) -> object:
        try:
            text = _text(value)
            if text is not None:
                return text
            if isinstance(value, tuple) and type(value) is tuple:
                return self._array(value, list(value), depth)
            if type(value) in (set, frozenset):
                return self._array(value, ordered(value, self._codec.unfold), depth)
            made = dict(value) if type(value) in _DICTS else self._codec.json_form(value)
        except _NoJsonForm:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever registered types raise
            raise _NoJsonForm(value, f"{_CANNOT}: {exception_text(error)}") from error
        if made is value:
            raise _NoJsonForm(value, f"{_CANNOT}: {unknown(value)}")
        self._bound(value, depth)
        return self.tree(made, depth + 1)

    def _bound(self, value: Any, depth: int) -> None:
        """Refuse a container that is nested too deep, is too large, or is one container too many in the whole value."""
        self._containers += 1
        try:
            if self._containers > MAX_CONTAINERS:
                raise ValueTooLarge("containers", MAX_CONTAINERS, self._containers)
            if depth >= MAX_DEPTH:
                raise ValueTooLarge("nesting", MAX_DEPTH, depth + 1)
            if isinstance(value, (list, tuple, dict, set, frozenset)):
                measure_one(value)
        except ValueTooLarge as excess:
            raise _NoJsonForm(value, str(excess), excess=excess) from None

    def _array(self, value: Any, items: list[Any], depth: int) -> list[Any]:
        self._bound(value, depth)
        made: list[Any] = []
        kinds = set(map(type, items))
        if kinds == {int} and max(items).bit_length() <= _SHORT and min(items).bit_length() <= _SHORT:
            return items
        if (kinds == {float} and all(map(isfinite, items))) or (kinds == {str} and all(map(str.isascii, items))):
            return items
        try:
            for item in items:
                made.append(self.tree(item, depth + 1))
        except _NoJsonForm as fault:
            fault.path = f"[{len(made)}]{fault.path}"
            raise
        return made

    def _object(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        self._bound(value, depth)
        made: dict[str, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                text = key if type(key) is str and is_text(key) else self._key(key, depth)
                if text in made:
                    raise _NoJsonForm(key, f"two keys would both be {text[:40]!a} in JSON")
                made[text] = self.tree(item, depth + 1)
        except _NoJsonForm as fault:
            fault.path = step(key) + fault.path
            raise
        return made

    def _key(self, key: object, depth: int) -> str:
        made = digits(_checked(key)) if type(key) is int else self.tree(key, depth + 1)
        if not isinstance(made, str):
            raise _NoJsonForm(key, f"as a key it {_CANNOT}")
        return made


_DICTS: Final = frozenset({OrderedDict, defaultdict, Counter})


def _text(value: Any) -> str | None:
    """Return the text that stands for a value of Python's own types; None if there is none."""
    if isinstance(value, (bytes, bytearray, memoryview)) and type(value) in (bytes, bytearray, memoryview):
        return b64encode(value).decode("ascii")
    kind = type(value)
    if kind is datetime or kind is time:
        return iso(value).removesuffix("f")
    if kind is date:
        return str(value.isoformat())
    if kind is timedelta:
        return duration(value)
    if kind is Decimal:
        if not value.is_finite():
            raise _NoJsonForm(value, f"{value} {_CANNOT}")
        return str(value)
    return None


def _checked(value: int) -> int:
    if value.bit_length() > _MOST_BITS:
        raise _NoJsonForm(value, f"an integer of so many digits {_CANNOT}")
    return value


def duration(value: timedelta) -> str:
    """Return ISO 8601 text, such as `P1DT2H0.5S`; a negative duration begins with a sign, as in ISO 8601-2."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06d}".rstrip("0") if value.microseconds else ""
    days = f"{value.days}D" if value.days else ""
    clock = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    if seconds or fraction or not (days or clock):
        clock += f"{seconds}{fraction}S"
    return f"{sign}P{days}{'T' + clock if clock else ''}"


def digits(value: int) -> str:
    """Return the decimal digits of an integer of any size, in nearly linear time.

    Halves the integer until `Decimal` can take the parts (as CPython's own _pylong.int_to_decimal_string since 3.12).
    """
    if value.bit_length() <= _SHORT:
        return str(value)
    powers: dict[int, Decimal] = {}

    def power(exponent: int) -> Decimal:
        found = powers.get(exponent)
        if found is None:
            half = exponent // 2
            found = (
                _EXACT.multiply(power(half), power(exponent - half)) if exponent > _SHORT else Decimal(1 << exponent)
            )
            powers[exponent] = found
        return found

    def convert(part: int, bits: int) -> Decimal:
        if bits <= _SHORT:
            return Decimal(part)
        half = bits // 2
        high = part >> half
        return _EXACT.add(
            _EXACT.multiply(convert(high, bits - half), power(half)), convert(part - (high << half), half)
        )

    text = str(convert(abs(value), value.bit_length()))
    return f"-{text}" if value < 0 else text


def _written(tree: Any) -> str:
    """Encode like `_encode`, with integers of any size. Slow: only for trees with large integers."""
    if isinstance(tree, dict):
        return "{" + ",".join([f"{_encode(key)}:{_written(item)}" for key, item in tree.items()]) + "}"
    if isinstance(tree, (list, tuple)):
        return "[" + ",".join([_written(item) for item in tree]) + "]"
    return digits(tree) if type(tree) is int else _encode(tree)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        known: set[str] = set()
        for key, _ in pairs:
            if key in known:
                raise duplicate(key)
            known.add(key)
    return made


def duplicate(key: str) -> MalformedJson:
    """Return the fault of an object that has a key twice."""
    return MalformedJson(f"two keys of one object are {key[:40]!a}")


def has_lone_surrogate(tree: object) -> bool:
    """Return whether a text in a tree holds half of a surrogate pair."""
    return not is_text(_encode(tree))


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise MalformedJson(f"{text[:40]} is beyond the range of numbers")
    return value


def _refuse_constant(name: str) -> float:
    raise MalformedJson(f"{name} is not JSON")


DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant)
"""CPython's parser, made strict."""
_decode: Final = DECODER.decode
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
