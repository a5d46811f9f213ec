"""The effect of message order: three sets of merge rules, over all small sets of messages, as a table.

    python -m tests.merge_laws

The rules repeat those of their projects, in a few lines each and without details (timers, addresses, broadcasts):
memberlist (`aliveNode`, `suspectNode`, `deadNode` in its state.go), foca (`Member::can_change`, SWIM section 4.2), and
the lexicographic maximum, which this project uses (docs/explanation/membership.md). A message is about one member:
ALIVE, SUSPECT, DEAD or LEFT at one of four incarnations. Each set is applied in all its orders. It differs if two
orders end in different cells, and it differs in up or down if one of these is routable and another is not.
tests/properties/test_merge_laws.py tests the real `Members` with the same sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, permutations, product
from typing import NamedTuple

from mpreg_proto.notices import Standing

INCARNATIONS = 4
STANDINGS = (Standing.ALIVE, Standing.SUSPECT, Standing.DEAD, Standing.LEFT)


class Cell(NamedTuple):
    """A belief about the member, or the content of a message about it: the two have one shape."""

    incarnation: int
    standing: Standing


Rules = Callable[[Cell | None, Cell], Cell | None]
"""A function from the belief before a message, and the message, to the belief after it. None: an unknown member."""

MESSAGES = tuple(Cell(*row) for row in product(range(INCARNATIONS), STANDINGS))
KNOWN = Cell(0, Standing.ALIVE)
"""The start of each run: the member has joined. An unknown member is the other start."""


def memberlist(held: Cell | None, said: Cell) -> Cell | None:
    """Alive needs a later incarnation, the others none earlier. Suspect moves only an alive member; dead stays dead.

    So a suspicion of a later incarnation has no effect on a suspect member, nor a death on a dead member. Only an alive
    makes an unknown member known.
    """
    if held is None:
        return said if said.standing is Standing.ALIVE else None
    if said.standing is Standing.ALIVE:
        return said if said.incarnation > held.incarnation else held
    if said.incarnation < held.incarnation:
        return held
    if said.standing is Standing.SUSPECT:
        return said if held.standing is Standing.ALIVE else held
    return held if held.standing >= Standing.DEAD else said


def foca(held: Cell | None, said: Cell) -> Cell | None:
    """Down is final, whatever its incarnation, and keeps that; foca has no LEFT, so both are Down here."""
    if said.standing is Standing.LEFT:
        said = Cell(said.incarnation, Standing.DEAD)
    if held is None:
        return said
    if held.standing is Standing.DEAD:
        return held
    if said.standing is Standing.DEAD:
        return said
    outdoes = said.incarnation > held.incarnation
    if held.standing is Standing.ALIVE and said.standing is Standing.SUSPECT:
        outdoes = said.incarnation >= held.incarnation
    return said if outdoes else held


def maximum(held: Cell | None, said: Cell) -> Cell | None:
    """Return the greater pair of (incarnation, standing)."""
    return said if held is None or said > held else held


RULES: dict[str, Rules] = {"memberlist": memberlist, "foca": foca, "lexicographic maximum": maximum}


class Count(NamedTuple):
    """The number of message sets, and how many of them end by order in different cells, and in up as well as down."""

    sets: int
    differing: int
    up_or_down: int


def sets(size: int) -> Iterator[tuple[Cell, ...]]:
    """Return all sets of so many different messages."""
    return combinations(MESSAGES, size)


def ends(rules: Rules, messages: tuple[Cell, ...], start: Cell | None) -> list[Cell | None]:
    """Return the end of each order of `messages`."""
    found: list[Cell | None] = []
    for order in permutations(messages):
        held = start
        for said in order:
            held = rules(held, said)
        found.append(held)
    return found


def up(cell: Cell | None) -> bool:
    """Return whether calls would be sent to the member."""
    return cell is not None and cell.standing <= Standing.SUSPECT


def count(rules: Rules, size: int, start: Cell | None) -> Count:
    """Try all sets of `size` messages in all orders."""
    total = differing = up_or_down = 0
    for messages in sets(size):
        found = ends(rules, messages, start)
        total += 1
        differing += any(cell != found[0] for cell in found)
        up_or_down += any(up(cell) != up(found[0]) for cell in found)
    return Count(total, differing, up_or_down)


def table() -> str:
    """Return the table of docs/explanation/membership.md."""
    lines = [
        f"{'sets whose end depends on the order':<38}{'messages':>9}{'sets':>7}{'differ':>9}{'up or down':>12}",
    ]
    for start, words in ((KNOWN, "a known member, ALIVE at 0"), (None, "an unknown member")):
        lines.append(f"-- {words}")
        for name, rules in RULES.items():
            for size in (2, 3):
                got = count(rules, size, start)
                shares = f"{got.differing / got.sets:>9.1%}{got.up_or_down / got.sets:>12.1%}"
                lines.append(f"{name:<38}{size:>9}{got.sets:>7}{shares}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
