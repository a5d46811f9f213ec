"""What a simulation tells those who watch it: invariants, counters, diagrams. A watcher changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.client import Reply
from mpreg_proto.effects import Outcome, Run
from mpreg_proto.notices import Notice

if TYPE_CHECKING:
    from mpreg_transports.testing.calls import SimCall
    from mpreg_transports.testing.hosts import Host, NodeHost
    from mpreg_transports.testing.engine import CallKey, Engine


class Watcher:
    """Does nothing; override what is of interest. Raise `Violation` for what must not be."""

    def begin(self, sim: Engine) -> None:
        """The simulation is about to start its nodes."""

    def touched(self, host: Host) -> None:
        """An event was handled at `host`; its effects have been carried out."""

    def handed_out(self, host: NodeHost, key: CallKey, number: int) -> None:
        """`host`'s coordinator has placed a call, in dispatch `number`; the attempt is in its `coordinator.out`."""

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        """A body starts at `host` for the call `key`."""

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        """A body has ended."""

    def crashed(self, host: NodeHost) -> None:
        """A node's life is over, its state as it was at that moment."""

    def submitted(self, call: SimCall) -> None:
        """A client has sent a request."""

    def replied(self, call: SimCall, reply: Reply) -> None:
        """Something came of a request; a last Result, or one of several."""

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        """A node has told something worth telling."""

    def sweep(self, sim: Engine) -> None:
        """Every 1,000 events, and at the end."""

    def settled(self, sim: Engine) -> None:
        """Faults have stopped long ago: liveness must hold now."""


class Violation(AssertionError):
    """An invariant does not hold. `invariant` is its number in SIMULATION.md, or 0."""

    def __init__(self, invariant: int, text: str) -> None:
        super().__init__(f"invariant {invariant}: {text}")
        self.invariant = invariant
        self.text = text
