"""Every bound of the core, in one place (docs/reference/limits.md).

Durations are integer nanoseconds, sizes are bytes, counts are counts. A bound that is reached always ends in a
typed error (1014 with `limit`, `value` and `came` in its details) or in one closed link, never in unbounded memory.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

Span: TypeAlias = int
"""A span of time in nanoseconds."""

MILLISECOND = 1_000_000
SECOND = 1_000_000_000
HOUR = 3600 * SECOND

MAX_HOPS = 4
"""Nodes that one message may be passed on by."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds and periods of one node or client; replace single ones with `Limits(calls=100)`.

    Raises TypeError for what is not a whole number, and ValueError for one that is not more than 0 (`failovers`,
    `failover_pause` and `drain_grace` may be 0), or for a shorter span than a millisecond, which means something else.
    """

    message: int = 16 * 1024 * 1024
    """Longest message from or to a client, and, until values move in chunks, between nodes it is `node_message`."""
    node_message: int = 31 * 1024 * 1024
    """Longest message between nodes. Reasonable: what a frame can carry, as a value travels inside its message."""
    calls: int = 10_000
    """Calls in one request."""
    edges: int = 100_000
    """References between calls in one request: of each call the calls that it waits for."""
    expansion: int = 64 * 1024 * 1024
    """Bytes that all references in the arguments of one call may stand for, each as often as it appears."""
    expansion_elements: int = 1_000_000
    """Entries of lists, tuples and sets, and keys and values of maps, that they may stand for."""
    inputs: int = 512 * 1024 * 1024
    """Bytes of memory that the inputs of all running calls of a node may take, roughly; more calls wait for their end.
    One call may always run."""
    values: int = 1024 * 1024 * 1024
    """Bytes of results that a node keeps for one request at a time: what calls wait for, what will be answered."""
    name_length: int = 256
    """Characters in the name of a call, function or resource, and in a version that a call pins."""
    requests: int = 8_192
    """Requests in flight that a node answers for; then 1022."""
    calls_per_worker: int = 256
    """Calls outstanding at one member from which on placement counts it as full."""
    default_timeout: Span = 60 * SECOND
    """Deadline of a request that names none."""
    longest_timeout: Span = 24 * HOUR
    handshake: Span = 5 * SECOND
    """From a link's opening until both hellos are in."""
    ping_every: Span = 10 * SECOND
    """Silence after which a link is pinged."""
    gone_after: Span = 20 * SECOND
    """Silence after which a link is given up. Reasonable: two to three times `ping_every`."""
    goodbye: Span = 10 * SECOND
    """How long a link that is closing on purpose waits for its peer; one with calls on it stays until they end."""
    drain_grace: Span = 10 * SECOND
    """How long running calls may go on after `leave()`."""
    link_wait: Span = SECOND
    """How long a call waits for a link to the member it was placed on."""
    unreachable: Span = 30 * SECOND
    """How long an undialable member is reached by relay, or skipped."""
    failovers: int = 2
    """How many nodes an idempotent call may lose and be started again elsewhere."""
    failover_pause: Span = 100 * MILLISECOND
    """How long an idempotent call waits at most before it is started again after a loss; four times as long after each
    more, up to 5 s; 0 is not at all."""
    dial_first: Span = 200 * MILLISECOND
    dial_longest: Span = 5 * SECOND
    """Reconnect backoff: doubled from `dial_first` up to this, with full jitter."""
    dials: int = 8
    """Dials under way at once."""
    gossip_interval: Span = 30 * SECOND
    """How often a node compares its state with one neighbour (anti-entropy)."""
    slow_link: int = 1024 * 1024
    """Bytes that wait to leave on a link to a node, from which on it is told which catalogues changed, and not how."""
    link_idle: Span = 30 * SECOND
    """How long a link to a member that is no neighbour may lie idle before it is closed."""
    members: int = 16_384
    """Members alive or suspect that are remembered."""
    dead_members: int = 4_096
    retired_members: int = 100_000
    functions: int = 10_000
    """Functions that one member may offer."""
    resources: int = 10_000
    """Resources that one member may hold."""
    changes: int = 256
    """Changes of each member's catalogue that are kept to be served as deltas."""

    def __post_init__(self) -> None:
        for name, kind in Limits.__annotations__.items():
            _check(name, getattr(self, name), is_span=kind == "Span")


_MAY_BE_ZERO = ("failovers", "failover_pause", "drain_grace")


def _check(name: str, value: object, *, is_span: bool) -> None:
    """Raises TypeError or ValueError for a limit that cannot be meant."""
    if type(value) is not int:
        seconds = repr(value) if type(value) is float else "5"
        hint = f", such as {name}=int({seconds} * SECOND) (from mpreg_proto.limits import SECOND)" if is_span else ""
        expected = "a whole number of nanoseconds" if is_span else "a whole number"
        raise TypeError(f"{name}={value!r:.60}: expected {expected}, got {type(value).__name__}{hint}")
    least = 0 if name in _MAY_BE_ZERO else 1
    if value < least:
        raise ValueError(f"{name}={value}: expected {least} or more")
    if is_span and 0 < value < MILLISECOND:
        raise ValueError(
            f"{name}={value} is a span of {value} nanoseconds; for seconds write {name}={value} * SECOND "
            "(from mpreg_proto.limits import SECOND), and no span is under a millisecond"
        )


DEFAULT = Limits()
