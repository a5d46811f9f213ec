"""Similar names for the text of an error, with work that hardly grows with the number of names.

Names are kept sorted, both forwards and backwards. A name is compared with a few neighbours in both orders, which begin
or end alike, and with the names that are left when one character is removed; never with all of them (`difflib` would
take seconds for a thousand).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterable
from typing import Final

_AROUND: Final = 4
"""The number of neighbours on each side that are compared."""
_LONGEST: Final = 64
"""The longest name, in characters, of which each character in turn is removed."""
_CUTOFF: Final = 0.6


class Names:
    """A sorted set of names."""

    __slots__ = ("_backwards", "_forwards")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._forwards = sorted(names)
        self._backwards = sorted([name[::-1] for name in self._forwards])

    def add(self, name: str) -> None:
        """Add a name that is not in the set."""
        insort(self._forwards, name)
        insort(self._backwards, name[::-1])

    def remove(self, name: str) -> None:
        """Remove a name that is in the set."""
        del self._forwards[bisect_left(self._forwards, name)]
        del self._backwards[bisect_left(self._backwards, name[::-1])]

    def near(self, name: str, there: Container[str]) -> list[str]:
        """Return the names to compare with `name`, which is not among them; `there` holds all names of the set."""
        found = dict.fromkeys(_neighbours(self._forwards, name))
        found.update(dict.fromkeys([one[::-1] for one in _neighbours(self._backwards, name[::-1])]))
        for place in range(len(name) if len(name) <= _LONGEST else 0):
            shorter = name[:place] + name[place + 1 :]
            if shorter in there:
                found[shorter] = None
        found.pop(name, None)
        return list(found)


def most_alike(name: str, others: list[str], most: int) -> list[str]:
    """Return those of `others` that are similar to `name`, the best first."""
    scored = [(likeness(name, other), other) for other in others]
    scored.sort(key=lambda row: (-row[0], row[1]))
    return [other for score, other in scored[:most] if score]


def likeness(one: str, other: str) -> float:
    """Return the likeness of two names, up to 1; 0 if they have too few characters in common."""
    common = sum([min(one.count(letter), other.count(letter)) for letter in dict.fromkeys(one)])
    share = 2 * common / ((len(one) + len(other)) or 1)
    if share < _CUTOFF:
        return 0.0
    begin = _common_prefix(one, other)
    end = min(_common_prefix(one[::-1], other[::-1]), min(len(one), len(other)) - begin)
    return (share + (begin + end) / max(len(one), len(other), 1)) / 2


def _neighbours(names: list[str], name: str) -> list[str]:
    place = bisect_left(names, name)
    return names[max(0, place - _AROUND) : place + _AROUND + 1]


def _common_prefix(one: str, other: str) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
