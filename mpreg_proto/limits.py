"""Every bound of the core, in one place (docs/reference/limits.md).

Durations are integer nanoseconds, sizes are bytes, counts are counts. A bound that is reached always ends in a
typed error (1014 with `limit`, `value` and `came` in its details) or in one closed link, never in unbounded memory.
"""

from __future__ import annotations

import msgspec

MILLISECOND = 1_000_000
SECOND = 1_000_000_000
HOUR = 3600 * SECOND


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds and periods of one node or client; replace single ones with `Limits(calls=100)`."""

    message: int = 16 * 1024 * 1024
    """Longest message from or to a client, and, until values move in chunks, between nodes it is `node_message`."""
    node_message: int = 31 * 1024 * 1024
    """Longest message between nodes. Reasonable: what a frame can carry, as a value travels inside its message."""
    calls: int = 10_000
    """Calls in one request."""
    edges: int = 100_000
    """References between calls in one request: of each call the calls that it waits for."""
    name_length: int = 256
    """Characters in the name of a call, function or resource."""
    requests: int = 8_192
    """Requests in flight that a node answers for; then 1022."""
    calls_per_worker: int = 256
    """Calls outstanding at one member from which on placement counts it as full."""
    default_timeout: int = 60 * SECOND
    """Deadline of a request that names none."""
    longest_timeout: int = 24 * HOUR
    handshake: int = 5 * SECOND
    """From a link's opening until both hellos are in."""
    ping_every: int = 10 * SECOND
    """Silence after which a link is pinged."""
    gone_after: int = 20 * SECOND
    """Silence after which a link is given up. Reasonable: two to three times `ping_every`."""
    goodbye: int = 10 * SECOND
    """How long a link that is closing on purpose waits for its peer; one with calls on it stays until they end."""
    drain_grace: int = 10 * SECOND
    """How long running calls may go on after `leave()`."""
    link_wait: int = SECOND
    """How long a call waits for a link to the member it was placed on."""
    unreachable: int = 30 * SECOND
    """How long a member that no link could be had to is relayed to, or is no candidate."""
    failovers: int = 2
    """How many nodes an idempotent call may lose and be started again elsewhere."""
    failover_pause: int = 100 * MILLISECOND
    """How long an idempotent call waits at most before it is started again after a loss; four times as long after each
    more, up to 5 s; 0 is not at all."""
    dial_first: int = 200 * MILLISECOND
    dial_longest: int = 5 * SECOND
    """Reconnect backoff: doubled from `dial_first` up to this, with full jitter."""
    dials: int = 8
    """Dials under way at once."""
    gossip_interval: int = 30 * SECOND
    """How often what is known is compared with one neighbour, to mend what broken links have lost."""
    slow_link: int = 1024 * 1024
    """Bytes that wait to leave on a link to a node, from which on it is told which catalogues changed, and not how."""
    link_idle: int = 30 * SECOND
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


DEFAULT = Limits()
