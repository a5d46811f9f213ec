"""Seeded random mutation of a corpus, for interpreters without atheris: no coverage, but any Python and no dependency.

Each input is one of the corpus, changed a few times: bits, bytes, limits of integers, pieces removed, doubled, moved,
or taken from another input. The same seed gives the same inputs in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mpreg_proto.rng import Rng

LONGEST = 4096
_BORDERS = (b"\0", b"\x7f", b"\x80", b"\xff", b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8)


def mutations(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield inputs without end: first the corpus as it is, then its mutations."""
    seeds = list(corpus) or [b""]
    yield from seeds
    rng = Rng(seed)
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(1 << rng.below(5)):
            _mutate(data, seeds, rng)
        yield bytes(data[:LONGEST])


def _mutate(data: bytearray, seeds: Sequence[bytes], rng: Rng) -> None:
    at = rng.below(len(data) + 1)
    span = min(1 << rng.below(6), len(data) - at)
    kind = rng.below(8)
    if kind == 0 and span:
        data[at] ^= 1 << rng.below(8)
    elif kind == 1 and span:
        data[at] = rng.below(256)
    elif kind == 2 and span:
        data[at] = (data[at] + rng.choice((1, 255, 16, 240))) % 256
    elif kind == 3:
        border = rng.choice(_BORDERS)
        data[at : at + len(border) * rng.below(2)] = border
    elif kind == 4:
        del data[at : at + span]
    elif kind == 5:
        data[at:at] = data[at : at + span]
    elif kind == 6:
        data[at:at] = bytes(rng.below(256) for _ in range(1 + rng.below(8)))
    else:
        other = rng.choice(seeds)
        start = rng.below(len(other) + 1)
        data[at : at + span] = other[start : start + (1 << rng.below(7))]
