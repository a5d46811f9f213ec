"""What this version does not promise yet: bounds and parts of invariants that other issues bring.

Each row says what is missing and what is asked meanwhile. Reports print the table, so that nobody takes a bound that
is looser than the design's for the design's.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mpreg_transports.testing.simulation.durations import SECOND


class KnownGap(msgspec.Struct, frozen=True):
    """One row: an invariant's number, what is missing and who brings it, what is asked for in its place."""

    invariant: int
    missing: str
    meanwhile: str


SETTLED_AFTER = 15 * SECOND
"""How long after the last fault all correct nodes have one view (P11 of docs/explanation/membership.md)."""
SEEDS_AFTER = 40 * SECOND
"""The same where an address is all that leads across, of a seed or of an earlier life: it is tried but rarely, in a
larger cluster by each of its members once in five seconds for each of these."""
STABLE_AFTER = 15 * SECOND
"""How long after the last fault a call may not fail for want of a node that is there, as the view is whole by then."""

KNOWN_GAPS: tuple[KnownGap, ...] = (
    KnownGap(
        12,
        "requests of one link have no bound of their own, no link is paused, unsent bytes have none in the core"
        " (guarantees)",
        "the node's own bound on requests",
    ),
)


def table(rows: Iterable[KnownGap] = KNOWN_GAPS) -> list[str]:
    """A line a row, for reports."""
    return [f"known gap: invariant {row.invariant}: {row.missing}; meanwhile: {row.meanwhile}" for row in rows]
