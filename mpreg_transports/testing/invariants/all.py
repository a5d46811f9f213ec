"""The fifteen invariants of docs/explanation/testing.md, for `Simulation(watchers=invariants())`.

Safety (1 to 12) is looked at where an event touched something, and everywhere on a sweep; liveness (13 to 15) when the
simulation is judged after its faults have stopped. Each has a file of its idea (invariants_*.py) and an oracle of its
own that asks the code under test for nothing but its tables. One list serves one simulation.
"""

from __future__ import annotations

from mpreg_transports.testing.invariants.availability import Availability
from mpreg_transports.testing.invariants.bounds import ResourceBounds
from mpreg_transports.testing.invariants.cancellation import CancelledCallsStop, CancelPropagation, GracefulLeave
from mpreg_transports.testing.invariants.catalogue import ReplicaConsistency
from mpreg_transports.testing.invariants.completion import SingleCompletion
from mpreg_transports.testing.invariants.convergence import StateCleanup, ViewConvergence
from mpreg_transports.testing.invariants.execution import AtMostOnceExecution, DeadlineEnforcement, DependencyOrder
from mpreg_transports.testing.invariants.membership import DeterministicMerge, MonotonicCells, OwnerOnlyIncarnation
from mpreg_transports.testing.invariants.placement import ValidPlacement, WorkerAdmission
from mpreg_transports.testing.invariants.progress import (
    CallFailover,
    LinkClosing,
    LostMemberCleanup,
    PendingCallProgress,
    QueueProgress,
)
from mpreg_transports.testing.invariants.relay import DispatchTracking, RelayedCancellation
from mpreg_transports.testing.invariants.replies import RemainingTimeout, ReplyAccuracy, ReplyCompleteness
from mpreg_transports.testing.invariants.results import SequentialEquivalence
from mpreg_transports.testing.invariants.sequential import Pure
from mpreg_transports.testing.invariants.slow_peers import NoLostCalls, SlowPeerTolerance
from mpreg_transports.testing.invariants.suspicion import RingConnectivity, SuspicionAccuracy
from mpreg_transports.testing.simulation.watchers import Watcher

INVARIANTS: dict[int, str] = {
    1: "a liveness cell never decreases",
    2: "only the owner raises its incarnation or says LEFT",
    3: "same claims, same view",
    4: "a replica's content hash at (member, version) is the owner's",
    5: "the chosen node had, in the chooser's view, the function and the resources, and was routable",
    6: "the executing node checks again against itself; what does not fit is refused, never run",
    7: "a call starts only after all it needs; each result is bound once",
    8: "results equal a sequential oracle's",
    9: "each request ends exactly once, by its deadline and 250 ms",
    10: "a body starts at most once unless idempotent",
    11: "nothing starts after its deadline",
    12: "buffers, tables, timers and queues stay within limits",
    13: "settled: correct members see each other ALIVE, crashed ones DEAD, catalogues equal",
    14: "a call that one correct node could serve throughout succeeds",
    15: "settled: nothing is left of what has ended",
}
"""By number, in words, for reports."""


def invariants(*, pure: Pure | None = None) -> list[Watcher]:
    """All fifteen. `pure`: functions by name whose results may be compared by calling them again; None: those of the
    specs that can be seen to hold no state.
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
        # What planted bugs have shown to be missing in these (tests/mutants).
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
    ]
