"""The known gaps: bounds and parts of invariants that this version does not guarantee yet.

Each row states what is missing and what is checked instead. Reports print the table, so that a reader does not mistake
a looser bound for the bound of the design.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mpreg_transports.testing.simulation.durations import SECOND


class KnownGap(msgspec.Struct, frozen=True):
    """One row: the number of an invariant, the missing part, and the check that replaces it."""

    invariant: int
    missing: str
    meanwhile: str


SETTLED_AFTER = 15 * SECOND
"""The time after the last fault in which all correct nodes get one view (P11 of docs/explanation/membership.md)."""
SEEDS_AFTER = 40 * SECOND
"""The same bound for components that are connected only by an address, of a seed or of an earlier life. Such an address
is tried rarely: in a larger cluster each member tries each of them once in five seconds."""
STABLE_AFTER = 15 * SECOND
"""The time after the last fault after which no call fails because an existing node is missing in the view: the view is
complete by then."""

KNOWN_GAPS: tuple[KnownGap, ...] = (
    KnownGap(
        12,
        "the answers to the requests that a native client has in flight are kept whole until it takes them, however"
        " long they are, until large values move in chunks (guarantees)",
        "the credit of the client, and the longest message",
    ),
)


def table(rows: Iterable[KnownGap] = KNOWN_GAPS) -> list[str]:
    """Return the table for reports, one line for each row."""
    return [f"known gap: invariant {row.invariant}: {row.missing}; meanwhile: {row.meanwhile}" for row in rows]
