"""A call's arguments with its references replaced, and how much that may give (docs/reference/limits.md).

In: the encoded arguments and the encoded results that they may refer to. Out: the arguments as a value. What a
reference stands for is shared, so replacing costs nothing; but a function that gives its arguments back multiplies
them, and eight calls that each name the former ten times are 10**8 elements. So the whole is counted first, from the
encoded results, before any of it is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mpreg_proto.wire.decode import MalformedValue, count, malformed, references
from mpreg_proto.wire.references import Ref, resolve
from mpreg_proto.wire.value_limits import ValueTooLarge
from mpreg_proto.wire.values import ValueCodec


def expand(codec: ValueCodec, args: bytes, inputs: Mapping[str, bytes], *, size: int, elements: int) -> object:
    """The value of `args`, whose references stand for `inputs`.

    All that the references stand for, each as often as it appears, has at most `size` bytes and `elements` entries of
    containers. Raises what `ValueCodec.decode` raises; inputs that nothing refers to are not looked at.
    """
    try:
        uses = references(args)
    except Exception as error:
        raise malformed(error, len(args)) from error
    return codec.decode(args, inputs=_Inputs(codec, inputs, uses).counted(size, elements))


class _Inputs:
    """What the references of one call stand for. Each input is decoded once, and only if it is referred to."""

    def __init__(self, codec: ValueCodec, inputs: Mapping[str, bytes], uses: Mapping[Ref, int]) -> None:
        self._codec = codec
        self._inputs = inputs
        self._uses = {ref: times for ref, times in uses.items() if ref.name in inputs}
        self._decoded: dict[str, object] = {}

    def counted(self, size: int, elements: int) -> Mapping[str, object]:
        """The inputs, decoded. Raises MalformedValue if the references stand for too much."""
        # Each element takes a byte or more, and a part is no longer than the whole.
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
        """What each reference stands for, encoded, and how often it appears. Whole results first: they are there."""
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
