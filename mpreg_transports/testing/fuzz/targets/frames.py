"""Length-prefixed frames: any split gives the same bodies and the same fault, and at most one frame is buffered.

Input: two bytes for the limit, then the cuts, then the stream itself. The oracle reads the whole stream at once, byte
by byte as the format defines it (docs/reference/messages.md).
"""

from __future__ import annotations

from mpreg_proto.wire.framing import FrameError, FrameReader
from mpreg_transports.testing.fuzz.draws import Draws

_LIMITS = (0, 1, 5, 16, 100, 4096, 5000, 1 << 25)


def harness(data: bytes) -> None:
    """Feed the stream in drawn pieces of drawn buffer types, and compare with the oracle."""
    draws = Draws(data)
    limit = draws.pick(_LIMITS)
    cuts = [draws.byte() for _ in range(draws.below(16))]
    stream = draws.rest()
    if len(stream) > 40 and limit >= 4096:  # bodies long enough to be shared instead of copied
        stream = stream[:20] + bytes(4096) + stream[20:]
    expected, fault = oracle(stream, limit)
    reader = FrameReader(limit)
    found: list[bytes] = []
    came: int | None = None
    position = 0
    for cut in [*cuts, len(stream)]:
        piece = bytearray(stream[position : position + cut])
        position += len(piece)
        try:
            bodies = reader.feed((bytes, bytearray, memoryview)[cut % 3](piece))
        except FrameError as error:
            bodies, came = error.bodies, error.code
        kept = [bytes(body) for body in bodies]
        piece[:] = b"\xee" * len(piece)  # its owner reuses it
        assert [bytes(body) for body in bodies] == kept, "a body changed with the buffer that it came in"
        found += kept
        assert reader.buffered <= limit + 4, f"{reader.buffered} bytes held with a limit of {limit}"
        if came is not None:
            _is_dead(reader, came)
            break
    assert (found, came) == (expected, fault), f"{found}, {came} instead of {expected}, {fault}"


def oracle(stream: bytes, limit: int) -> tuple[list[bytes], int | None]:
    """Return the bodies in a whole stream, and the code of the fault that ends it."""
    bodies: list[bytes] = []
    position = 0
    while position < len(stream):
        if stream[position] > 1:
            return bodies, 1000
        if len(stream) - position < 4:
            break
        length = int.from_bytes(stream[position : position + 4], "big")
        if length > limit:
            return bodies, 1014
        if position + 4 + length > len(stream):
            break
        bodies.append(stream[position + 4 : position + 4 + length])
        position += 4 + length
    return bodies, None


def _is_dead(reader: FrameReader, code: int) -> None:
    try:
        reader.feed(b"\x00\x00\x00\x01x")
    except FrameError as again:
        assert (again.code, again.bodies, reader.buffered) == (code, [], 0)
    else:
        raise AssertionError("a reader goes on after its fault")
