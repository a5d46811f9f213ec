"""What this version does not promise yet: bounds and parts of invariants that other issues bring.

Each row says what is missing and what is asked meanwhile. Reports print the table, so that nobody takes a bound that
is looser than the design's for the design's.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mpreg_transports.testing.spans import SECOND


class Pending(msgspec.Struct, frozen=True):
    """One row: an invariant's number, what is missing and who brings it, what is asked for in its place."""

    invariant: int
    missing: str
    meanwhile: str


SETTLED_AFTER = 45 * SECOND
"""How long after the last fault all correct nodes have one view (P11 of docs/explanation/membership.md)."""
QUIET_AFTER = 60 * SECOND
"""How long after the last fault a call may not fail for want of a node that is there."""

PENDING: tuple[Pending, ...] = (
    Pending(
        6,
        "a refusal carries no newer catalogue head (issue 5: gossip, overlay, repair)",
        "the refusal itself; heads come as news",
    ),
    Pending(
        12,
        "requests of one link have no bound of their own, no link is paused, unsent bytes have no bound (guarantees)",
        "the node's own bound on requests",
    ),
    Pending(
        13,
        "silent members are found by pings after 20 s and news has no periodic repair (issue 5: probing, repair)",
        f"one view {SETTLED_AFTER // SECOND} s after the last fault instead of 15 s",
    ),
    Pending(
        14,
        "as 13: half-open links are found by pings alone",
        f"calls are judged {QUIET_AFTER // SECOND} s after the last fault; before, only what their own node offers",
    ),
)


def table(rows: Iterable[Pending] = PENDING) -> list[str]:
    """A line a row, for reports."""
    return [f"pending: invariant {row.invariant}: {row.missing}; meanwhile: {row.meanwhile}" for row in rows]
