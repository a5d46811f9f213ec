"""The fifteen invariants of docs/explanation/testing.md, for `Simulation(watchers=invariants())`.

Safety (1 to 12) is checked for the state that an event touched, and on a sweep for all state. Liveness (13 to 15) is
checked by `Simulation.judge`, after the faults have stopped. Each invariant or group has a file and an oracle of its
own, which reads only the tables of the code under test. One list serves one simulation.
"""

from __future__ import annotations

from mpreg_transports.testing.invariants.arrival import ImmediateErrors
from mpreg_transports.testing.invariants.availability import Availability
from mpreg_transports.testing.invariants.bounds import ResourceBounds
from mpreg_transports.testing.invariants.callers import CallerGone
from mpreg_transports.testing.invariants.cancellation import CancelledCallsStop, CancelPropagation, GracefulLeave
from mpreg_transports.testing.invariants.catalogue import ReplicaConsistency
from mpreg_transports.testing.invariants.completion import SingleCompletion
from mpreg_transports.testing.invariants.convergence import StateCleanup, ViewConvergence
from mpreg_transports.testing.invariants.credit import ClientCredit
from mpreg_transports.testing.invariants.detection import FailureDetection
from mpreg_transports.testing.invariants.digests import BucketDigests
from mpreg_transports.testing.invariants.execution import AtMostOnceExecution, DeadlineEnforcement, DependencyOrder
from mpreg_transports.testing.invariants.links import LinkRetention, LinkSilence
from mpreg_transports.testing.invariants.losses import OutcomeCodes
from mpreg_transports.testing.invariants.membership import DeterministicMerge, MonotonicCells, OwnerOnlyIncarnation
from mpreg_transports.testing.invariants.other_callers import JsonAnswers, OwnRequestCompletion, QueryAnswers
from mpreg_transports.testing.invariants.placement import ValidPlacement, WorkerAdmission
from mpreg_transports.testing.invariants.progress import (
    CallFailover,
    LinkClosing,
    LostMemberCleanup,
    PendingCallProgress,
    QueueProgress,
)
from mpreg_transports.testing.invariants.relay import DispatchTracking, RelayedCancellation
from mpreg_transports.testing.invariants.repeats import ClientRepeats
from mpreg_transports.testing.invariants.replies import RemainingTimeout, ReplyAccuracy, ReplyCompleteness
from mpreg_transports.testing.invariants.results import SequentialEquivalence
from mpreg_transports.testing.invariants.rings import RingObservers
from mpreg_transports.testing.invariants.routes import DispatchRoute
from mpreg_transports.testing.invariants.sequential import Pure
from mpreg_transports.testing.invariants.slow_peers import NoLostCalls, SlowPeerTolerance
from mpreg_transports.testing.invariants.streams import CallProgressReports, StreamedItems
from mpreg_transports.testing.invariants.suspicion import RingConnectivity, SuspicionAccuracy
from mpreg_transports.testing.invariants.tables import TableConsistency
from mpreg_transports.testing.invariants.waiting import PendingWait
from mpreg_transports.testing.simulation.watchers import Watcher

INVARIANTS: dict[int, str] = {
    1: "a liveness cell never decreases",
    2: "only the owner raises its incarnation or marks itself LEFT",
    3: "the same claims give the same view",
    4: "a copy of a catalogue has the hash that its owner's had at that version",
    5: "the chosen node had, in the view of the coordinator, the function and the resources, and was routable",
    6: "the node that runs a call checks it again; a call that does not fit is refused and never run",
    7: "a call starts only after all its dependencies; each result is delivered once",
    8: "results equal those of a sequential oracle",
    9: "each request ends exactly once, by its deadline plus 250 ms",
    10: "a body starts at most once unless it is idempotent; `maybe_executed: false` is true",
    11: "nothing starts after its deadline",
    12: "buffers, tables, timers and queues stay within limits; queued calls start in order of"
    " arrival, and none waits beside a free slot",
    13: "15 s after the faults: correct members see each other ALIVE and crashed ones DEAD, hold"
    " the same catalogues and have one view; no member is suspected without a reason",
    14: "a call that one correct node could serve throughout succeeds",
    15: "after the faults: nothing remains of requests, calls and links that have ended",
}
"""The invariants by number, as text for reports."""


def invariants(*, pure: Pure | None = None) -> list[Watcher]:
    """Return new watchers for all fifteen invariants.

    `pure` maps names to functions whose results may be checked by a second call. With None these are the functions of
    the specs that provably hold no state.
    """
    return [
        MonotonicCells(),
        OwnerOnlyIncarnation(),
        DeterministicMerge(),
        ReplicaConsistency(),
        ValidPlacement(),
        WorkerAdmission(),
        DependencyOrder(),
        SequentialEquivalence(pure),
        SingleCompletion(),
        AtMostOnceExecution(),
        DeadlineEnforcement(),
        ResourceBounds(),
        ViewConvergence(),
        Availability(),
        StateCleanup(),
        # Checks that planted bugs (tests/mutants) have shown to be missing above.
        ReplyCompleteness(),
        ReplyAccuracy(),
        RemainingTimeout(),
        CancelledCallsStop(),
        CancelPropagation(),
        GracefulLeave(),
        QueueProgress(),
        PendingCallProgress(),
        LostMemberCleanup(),
        LinkClosing(),
        CallFailover(),
        SuspicionAccuracy(),
        RingConnectivity(),
        RelayedCancellation(),
        DispatchTracking(),
        SlowPeerTolerance(),
        NoLostCalls(),
        LinkSilence(),
        LinkRetention(),
        DispatchRoute(),
        PendingWait(),
        ImmediateErrors(),
        OutcomeCodes(),
        ClientRepeats(),
        CallerGone(),
        RingObservers(),
        BucketDigests(),
        FailureDetection(),
        ClientCredit(),
        StreamedItems(),
        CallProgressReports(),
        TableConsistency(),
        # Callers that are no native clients.
        OwnRequestCompletion(pure),
        QueryAnswers(),
        JsonAnswers(pure),
    ]
