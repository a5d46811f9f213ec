"""The outcomes of sending a message: `Sent`, `TooLong` or `LinkGone`. Each sender handles all three.

`Links.send` returns one of them. `mypy` checks that each `match` over an outcome names all three, and a test checks
that no outcome is dropped. This module also shortens a fault whose text alone is longer than a message may be.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mpreg_proto.errors import Fault, over_limit

SHORT_TEXT: Final = 1_000
"""The most characters of the message of a shortened fault; a detail has at most a third of it."""
MINIMAL_TEXT: Final = 100


class Sent(msgspec.Struct, frozen=True, gc=False):
    """The message was sent, or the peer's dialect has no such message and needs none."""


class TooLong(msgspec.Struct, frozen=True, gc=False):
    """The message has `size` bytes, more than the `limit` of the link: nothing was sent."""

    size: int
    limit: int

    def fault(self, *, maybe_executed: bool) -> Fault:
        """Return error 1014 for the message."""
        return over_limit("message", self.limit, self.size).with_details(maybe_executed=maybe_executed)


class LinkGone(msgspec.Struct, frozen=True, gc=False):
    """The link has ended, or this node has closed it: nothing was sent."""


SendOutcome = Sent | TooLong | LinkGone
SENT: Final = Sent()
LINK_GONE: Final = LinkGone()


def shorten_fault(fault: Fault, most: int = SHORT_TEXT) -> Fault:
    """Return the same error with less text: its code, the beginning of its message, and its short details."""
    longest = most // 3
    details = {
        key: value
        for key, value in fault.details.items()
        if len(key) <= longest
        and (
            value is None
            or isinstance(value, (bool, float))
            or (isinstance(value, int) and abs(value) < 1 << 63)
            or (isinstance(value, str) and len(value) <= longest)
        )
    }
    message = fault.message
    if len(message) > most:
        message = f"{message[:most]}... ({len(message)} characters)"
    return Fault(fault.code, message, {**details, "shortened": True})
