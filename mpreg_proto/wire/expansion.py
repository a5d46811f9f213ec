"""Replacement of the references in a call's arguments, within limits of size (docs/reference/limits.md).

Input: the encoded arguments, and the encoded results that they may refer to. Output: the arguments as a value. The
value of a reference is shared, so replacement costs nothing. But a function that returns its arguments multiplies them:
eight calls that each name the previous one ten times make 10**8 elements. So the whole is counted first, from the
encoded results, before any of it is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mpreg_proto.wire.decode import MalformedValue, count, malformed, outline, references
from mpreg_proto.wire.messages import ItemsParameter
from mpreg_proto.wire.references import Ref, resolve
from mpreg_proto.wire.value_limits import ValueTooLarge
from mpreg_proto.wire.values import ValueCodec


def expand(codec: ValueCodec, args: bytes, inputs: Mapping[str, bytes], *, size: int, elements: int) -> object:
    """Return the value of `args` with its references replaced from `inputs`.

    The values of all references, each counted as often as it appears, have at most `size` bytes and `elements` entries
    of containers. Raises what `ValueCodec.decode` raises. Inputs without a reference are not decoded.
    """
    try:
        uses = references(args)
    except Exception as error:
        raise malformed(error, len(args)) from error
    return codec.decode(args, inputs=_Inputs(codec, inputs, uses).counted(size, elements))


def is_whole_argument(args: bytes, parameter: ItemsParameter, name: str) -> bool:
    """Return whether `args` refer to `name` once, and that reference is the whole argument of `parameter`."""
    try:
        if sum(times for ref, times in references(args).items() if ref.name == name) != 1:
            return False
        given, named = outline(args)
        argument = given[parameter.place] if 0 <= parameter.place < len(given) else named.get(parameter.name)
        return argument == Ref(name)
    except Exception:  # they cannot be read, and their worker will say so
        return False


class _Inputs:
    """The values of the references of one call. Each input is decoded once, and only if a reference uses it."""

    def __init__(self, codec: ValueCodec, inputs: Mapping[str, bytes], uses: Mapping[Ref, int]) -> None:
        self._codec = codec
        self._inputs = inputs
        self._uses = {ref: times for ref, times in uses.items() if ref.name in inputs}
        self._decoded: dict[str, object] = {}

    def counted(self, size: int, elements: int) -> Mapping[str, object]:
        """Return the decoded inputs. Raises MalformedValue if the references stand for too much."""
        # Each element takes at least one byte, and a part is not longer than the whole.
        if sum(len(self._inputs[ref.name]) * times for ref, times in self._uses.items()) > min(size, elements):
            try:
                self._refuse_more(size, elements)
            except ValueTooLarge as excess:
                raise MalformedValue(str(excess), excess=excess) from None
        for ref in self._uses:
            self._value(ref.name)
        return self._decoded

    def _refuse_more(self, size: int, elements: int) -> None:
        whole = sum(len(self._inputs[ref.name]) * times for ref, times in self._uses.items() if not ref.path)
        if whole > size:
            raise ValueTooLarge("expansion", size, whole)
        came = entries = 0
        for encoded, times in self._parts():
            came += len(encoded) * times
            if came > size:
                raise ValueTooLarge("expansion", size, came)
            entries += count(encoded, len(encoded)) * times
            if entries > elements:
                raise ValueTooLarge("expansion_elements", elements, entries)

    def _parts(self) -> Iterator[tuple[bytes, int]]:
        """Yield the encoded value of each reference, and how often it appears.

        Whole results come first, because they are encoded already.
        """
        for ref, times in self._uses.items():
            if not ref.path:
                yield self._inputs[ref.name], times
        for ref, times in self._uses.items():
            if ref.path:
                self._value(ref.name)
                yield self._codec.encode(resolve(ref, self._decoded)), times

    def _value(self, name: str) -> object:
        if name not in self._decoded:
            self._decoded[name] = self._codec.decode(self._inputs[name])
        return self._decoded[name]
