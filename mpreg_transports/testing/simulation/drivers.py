"""The driver of a simulated node: the loop around the core, and how badly it does its work.

The core does not depend on a good driver. It lets go of a link with its `HangUp`, whenever `link_closed` comes; it
counts a dial without an answer as failed after `Limits.dial`; and it needs no report of a backlog.
"""

from __future__ import annotations

import msgspec

from mpreg_transports.testing.simulation.checks import check_number


class DriverFaults(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """How late or incompletely a node's driver works. The default is a driver without faults.

    A delay is the longest one, in seconds; each single delay is drawn between 0 and it.
    """

    closes_late: float = 0.0
    """The delay of `link_closed`, after the end of a transport or after a `HangUp`."""
    hangs_up_late: float = 0.0
    """The delay with which a `HangUp` is carried out; until then data arrives on the link."""
    fails_late: float = 0.0
    """The delay of `dial_failed`. It may be longer than `Limits.dial`, and come during the next dial."""
    forgets_dials: float = 0.0
    """The share of failed dials of which `dial_failed` never comes."""
    reports_backlog: bool = True
    """Whether `backlog` is called. `progress` always is: without it a peer that takes a long message slowly counts as
    silent, which docs/howto/embed.md allows."""

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for a value of the wrong kind."""
        for name in ("closes_late", "hangs_up_late", "fails_late"):
            check_number(name, getattr(self, name))
        check_number("forgets_dials", self.forgets_dials, most=1)


GOOD = DriverFaults()
