"""All bounds of the core, in one place (docs/reference/limits.md).

Durations are integer nanoseconds, sizes are bytes, counts are plain numbers. A bound that is reached always ends in a
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
"""The most nodes that may relay one message."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds and periods of one node or client; change single ones with `Limits(calls=100)`.

    Raises TypeError for a value that is not a whole number. Raises ValueError for a value below 1 (`failovers`,
    `failover_pause` and `drain_grace` may be 0), and for a span under a millisecond, most likely in another unit, or
    over 292 years.
    """

    message: int = 16 * 1024 * 1024
    """The longest message from or to a client. Between nodes it is `node_message`, until values move in chunks."""
    node_message: int = 31 * 1024 * 1024
    """The longest message between nodes. Reasonable: what a frame can carry, as a value travels inside its message."""
    unauthenticated: int = 64 * 1024
    """The longest message of a peer that has proved nothing where it has to. All that it sends is refused."""
    calls: int = 10_000
    """Calls in one request."""
    edges: int = 100_000
    """References between calls in one request: the dependencies of all its calls together."""
    expansion: int = 64 * 1024 * 1024
    """Bytes that all references in the arguments of one call may stand for, each counted as often as it appears."""
    expansion_elements: int = 1_000_000
    """Entries of lists, tuples and sets, and keys and values of maps, that these references may stand for."""
    inputs: int = 512 * 1024 * 1024
    """Bytes of memory that the inputs of all running calls of a node may take, roughly. More calls stay queued until
    others end. One call may always run."""
    values: int = 1024 * 1024 * 1024
    """Bytes of results that a node keeps for one request at a time: inputs of waiting calls, and results to return."""
    name_length: int = 256
    """Characters in the name of a call, function or resource, and in a version that a call pins."""
    requests: int = 8_192
    """Requests in flight at one coordinator. One client has at most as many as there is room for more; others of it end
    with 1022."""
    client_requests: int = 1_024
    """Requests of one client in flight on one link, and at most half of `requests`: more wait at a native client, and
    the link of a JSON client is not read."""
    client_bytes: int = 32 * 1024 * 1024
    """Bytes of these requests, encoded. A single one may be longer."""
    client_answers: int = 256 * 1024 * 1024
    """The unsent bytes from which new requests of a native client end with 1022. Its link is read all the same."""
    calls_per_worker: int = 256
    """Outstanding calls at one member from which placement treats it as full."""
    default_timeout: Span = 60 * SECOND
    """The deadline of a request that sets none."""
    longest_timeout: Span = 24 * HOUR
    handshake: Span = 5 * SECOND
    """The time from the opening of a link until both hellos have arrived."""
    ping_every: Span = 10 * SECOND
    """The silence after which a link is pinged."""
    ping_busy: Span = SECOND
    """The silence after which a link with calls on it is pinged."""
    frozen_after: Span = 3 * SECOND
    """The silence after which a client with calls on its link goes to its next address, if it has one. A node prefers
    other members from then on to one whose link is silent."""
    lost_link: Span = SECOND
    """The longest time for which a client's request whose link was lost waits for another link, to be sent again."""
    gone_after: Span = 20 * SECOND
    """The silence after which a link is closed. Reasonable: two to three times `ping_every`."""
    goodbye: Span = 10 * SECOND
    """The time that a closing link waits for its peer; a link with calls on it stays until they end."""
    hang_up: Span = 3 * SECOND
    """The time for which a link that is hung up waits for a peer that takes nothing of what was sent before."""
    backlog: int = 32 * 1024 * 1024
    """The unsent bytes from which the link of a JSON client is not read, until half of them are sent. Reasonable: over
    `message`, so that a client that receives one long answer is still read: its pings would get no answer."""
    json_answers: int = 48 * 1024 * 1024
    """The unsent bytes that are kept for a JSON client. An answer beyond that becomes error 1014. Reasonable: `backlog`
    and `message` together."""
    stalled: Span = 10 * SECOND
    """The time after which a link is closed whose peer takes none of the unsent bytes."""
    drain_grace: Span = 10 * SECOND
    """The longest time that running calls may go on after `leave()`."""
    link_wait: Span = SECOND
    """The longest time that a call waits for a link to the member on which it was placed."""
    unreachable: Span = 30 * SECOND
    """The time for which an undialable member is reached by relay, or skipped."""
    failovers: int = 2
    """The number of nodes that an idempotent call may lose and still be started again elsewhere."""
    failover_pause: Span = 100 * MILLISECOND
    """The longest pause before an idempotent call is started again after a loss. It is four times as long after each
    further loss, up to 5 s; 0 means no pause."""
    dial_first: Span = 200 * MILLISECOND
    dial_longest: Span = 5 * SECOND
    """The longest reconnect backoff. It doubles from `dial_first` up to this, with full jitter."""
    dial: Span = 10 * SECOND
    """The time after which a dial without an answer has failed."""
    dials: int = 8
    """Dials in progress at the same time."""
    gossip_interval: Span = 30 * SECOND
    """The period at which a node compares its state with one neighbour (anti-entropy)."""
    slow_link: int = 1024 * 1024
    """The backlog in bytes from which a link to a node carries only which catalogues changed, not the changes."""
    link_idle: Span = 30 * SECOND
    """The time after which an idle link to a member that is no neighbour is closed."""
    members: int = 16_384
    """ALIVE and SUSPECT members that a node remembers."""
    dead_members: int = 4_096
    """DEAD and LEFT members that a node remembers; it retires the oldest above that."""
    retired_members: int = 100_000
    dead_for: Span = 24 * HOUR
    """The time after which a DEAD or LEFT member is retired, so that only its id is kept."""
    retired_for: Span = 7 * 24 * HOUR
    """The time after which a retired id is forgotten. Reasonable: longer than any node can be cut off."""
    rare_from: Span = 600 * SECOND
    """The silence after which the address of a seed or of a dead member is dialled rarely."""
    rare_dial: Span = 30 * SECOND
    """The interval, in the whole cluster, between dials of such an address."""
    full_digest: int = 64
    """Members up to which a comparison of states begins with a digest of all; with more it begins with hashes."""
    functions: int = 10_000
    """Functions that one member may offer."""
    resources: int = 10_000
    """Resources that one member may hold, and that one call may ask for."""
    changes: int = 256
    """Changes of each member's catalogue that a node keeps to send as deltas."""

    @property
    def credit(self) -> tuple[int, int]:
        """The requests that a client may have in flight on one link, and their bytes: what a node announces."""
        return min(self.client_requests, (self.requests + 1) // 2), self.client_bytes

    def __post_init__(self) -> None:
        for name, kind in Limits.__annotations__.items():
            _check(name, getattr(self, name), is_span=kind == "Span")


_MAY_BE_ZERO = ("failovers", "failover_pause", "drain_grace")


def _check(name: str, value: object, *, is_span: bool) -> None:
    """Raise TypeError or ValueError for an invalid limit."""
    if type(value) is not int:
        seconds = repr(value) if type(value) is float else "5"
        hint = f", such as {name}=int({seconds} * SECOND) (from mpreg_proto.limits import SECOND)" if is_span else ""
        expected = "a whole number of nanoseconds" if is_span else "a whole number"
        raise TypeError(f"{name}={value!r:.60}: expected {expected}, got {type(value).__name__}{hint}")
    least = 0 if name in _MAY_BE_ZERO else 1
    if value < least:
        raise ValueError(f"{name}={value}: expected {least} or more")
    if is_span and value >= 1 << 63:
        raise ValueError(f"{name}={hex(value):.40}: expected nanoseconds, at most {(1 << 63) - 1} (292 years)")
    if is_span and 0 < value < MILLISECOND:
        raise ValueError(
            f"{name}={value} is a span of {value} nanoseconds; for seconds write {name}={value} * SECOND "
            "(from mpreg_proto.limits import SECOND), and no span is under a millisecond"
        )


DEFAULT = Limits()
