"""Types for the ids that travel through the core, so that a type checker can distinguish them.

The driver numbers links, the core numbers requests and runs, and the adapter's entropy makes member ids. No id is
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
"""A request in progress at its coordinator."""

RunId = NewType("RunId", int)
"""One execution of one function body on this node."""

Address = NewType("Address", str)
"""The address at which a node can be dialled, such as `ws://127.0.0.1:9001`. Only adapters read its content."""


def show(name: str, member: bytes) -> str:
    """Return a member's name for people: `name#a1b2` (the first two bytes of its id, hexadecimal)."""
    return f"{name}#{member[:2].hex()}"
