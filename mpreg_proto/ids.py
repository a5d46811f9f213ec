"""Types for the ids that travel through the core, so that a type checker can distinguish them.

The driver numbers links, the core numbers requests and runs, and the adapter's entropy makes member ids. No id is
reused within one life of a process.
"""

from __future__ import annotations

import re
from typing import NewType

LinkId = NewType("LinkId", int)
"""One transport connection of this process, in either direction; counted up by the driver."""

MemberId = NewType("MemberId", bytes)
"""One life of one process: 16 bytes of entropy (docs/explanation/membership.md). A restart is a new member."""
MEMBER_ID_BYTES = 16

RequestId = NewType("RequestId", int)
"""A request in progress at its coordinator."""

RunId = NewType("RunId", int)
"""One execution of one function body on this node."""

Address = NewType("Address", str)
"""The address at which a node can be dialled, such as `ws://127.0.0.1:9001`. Only adapters read its content."""


_SCHEME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*")
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:@/?#]+)(?::([0-9]{1,5}))?")
_LONGEST_ADDRESS = 2048


def is_dialable(address: str) -> bool:
    """Return whether a text has the form of an address, `scheme://host`, then perhaps `:port` and a path.

    Other members send such texts. One that is not dialable never reaches a driver: a host may be missing, a port may be
    over 65,535, or there may be spaces or a user. The scheme may be any, as networks of users have their own.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or _SCHEME.fullmatch(scheme) is None:
        return False
    if len(address) > _LONGEST_ADDRESS or not address.isprintable() or " " in address or "#" in address:
        return False
    found = _AUTHORITY.fullmatch(re.split("[/?]", rest, maxsplit=1)[0])
    return found is not None and (found[1] is None or 0 < int(found[1]) < 65_536)


def show(name: str, member: bytes) -> str:
    """Return a member's name for people: `name#a1b2` (the first two bytes of its id, hexadecimal)."""
    return f"{name}#{member[:2].hex()}"
