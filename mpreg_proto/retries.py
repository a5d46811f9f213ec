"""The policy by which a client repeats a request that a node has refused: `retry=True` (docs/howto/errors.md).

Only a refusal is repeated: the node was overloaded or draining, and promises that nothing that must not run twice has
started. The pause doubles with each repeat, with full jitter (AWS, "Exponential backoff and jitter"), and comes on top
of the node's own `retry_after`. A budget bounds all repeats of a client, as in Finagle's RetryBudget and gRPC's retry
throttling (A6): clients that repeat without one keep an overloaded cluster overloaded. Nothing here sends anything.
"""

from __future__ import annotations

from typing import Any, Final

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.wire.messages import Result

RESERVE: Final = 10
"""The repeats that a client may make before it has made any call, so that its first calls can be repeated."""
CALLS_PER_REPEAT: Final = 10
"""The calls that pay for one repeat."""
MOST_SAVED: Final = 100
"""The most repeats that a client saves up: an overload must not meet a burst of them after a long calm."""
FIRST_PAUSE: Final = 50 * MILLISECOND
"""The longest pause before the first repeat, in ns, beside `retry_after`; it doubles with each further one."""
LONGEST_PAUSE: Final = 5 * SECOND
_LONGEST_WISH: Final = 86_400
"""The longest `retry_after` in seconds: a longer one is beyond each deadline too."""
_REPEATED: Final = (ErrorCode.OVERLOADED, ErrorCode.DRAINING)


class RetryBudget:
    """A token bucket: each call adds a token, each repeat takes `CALLS_PER_REPEAT`."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = RESERVE * CALLS_PER_REPEAT

    def add_call(self) -> None:
        """Record a call of the client, whether it may be repeated or not."""
        self._tokens = min(self._tokens + 1, MOST_SAVED * CALLS_PER_REPEAT)

    def spend(self) -> bool:
        """Take the tokens of one repeat. Return False, with nothing taken, if there are too few."""
        if self._tokens < CALLS_PER_REPEAT:
            return False
        self._tokens -= CALLS_PER_REPEAT
        return True


def is_repeatable(result: Result) -> bool:
    """Return whether `result` is a refusal (1022, 1024) after which the whole request may be sent again."""
    fault = result.fault
    if fault is None or fault.code not in _REPEATED or result.done:
        return False
    return fault.details.get("maybe_executed") is False  # a promise of the node; no word is no promise


def pause(fault: Fault, repeats: int, fraction: float) -> int:
    """Return the pause before the next repeat in ns, after `repeats` earlier ones. `fraction` is a draw, 0 to 1."""
    longest = min(FIRST_PAUSE << min(repeats, 16), LONGEST_PAUSE)
    return _retry_after(fault) + int(longest * fraction)


def _retry_after(fault: Fault) -> int:
    """Return the pause that the node asks for in ns; 0 for none, or for one that is no time."""
    seconds: Any = fault.details.get("retry_after")
    if type(seconds) not in (int, float) or not seconds > 0:
        return 0
    return int(min(seconds, _LONGEST_WISH) * SECOND)
