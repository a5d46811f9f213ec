"""Names for the numbers that travel through the core, so that a type checker tells them apart.

They are made by whoever owns the thing (links and runs by `Node`, member ids by the adapter's entropy) and never
reused within one life of a process.
"""

from __future__ import annotations

from typing import NewType

LinkId = NewType("LinkId", int)
"""One transport connection of this process, in either direction; counted up by the driver."""

MemberId = NewType("MemberId", bytes)
"""One life of one process: 16 bytes of entropy (docs/explanation/membership.md). A restart is a new member."""
MEMBER_ID_BYTES = 16

RequestId = NewType("RequestId", int)
"""A request in progress at the node that answers for it."""

RunId = NewType("RunId", int)
"""One execution of one function body on this node."""

Address = NewType("Address", str)
"""Where a node can be dialled, such as `ws://127.0.0.1:9001`. Opaque to the core: only adapters read it."""


def show(name: str, member: bytes) -> str:
    """A member as people see it: `name#a1b2` (the first two bytes of its id, hexadecimal)."""
    return f"{name}#{member[:2].hex()}"
