"""One row of a trace: where a call was when, by the clock of the node that answers for the request."""

from __future__ import annotations

from mpreg_proto.requests.actions import LOCAL
from mpreg_proto.requests.outstanding import Attempt
from mpreg_proto.wire.messages import Done, Failed, Traced


def traced(attempt: Attempt, row: Done | Failed, now: int) -> Traced:
    """All times are nanoseconds since the request arrived.

    Only spans come over a link, so the way there is reckoned as half of what is left of the round trip. A worker may
    tell any numbers; what it says is held against how long it has had the call.
    """
    execution, name = attempt.execution, attempt.call
    left = now - attempt.sent
    ran = min(max(row.ran, 0), left)
    waited = min(max(row.waited, 0), left - ran)
    travelled = 0 if attempt.link == LOCAL else left - ran - waited
    moved = attempt.sent + travelled // 2 - execution.arrived
    started = moved + waited
    return Traced(
        name=name,
        node=attempt.candidate.shown,
        queued=execution.history.queued[name] - execution.arrived,
        moved=moved,
        started=started,
        ended=started + ran,
        tries=execution.history.tries[name],
        why=attempt.reason,
    )
