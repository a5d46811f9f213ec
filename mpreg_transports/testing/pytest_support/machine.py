"""The state machine `ClusterMachine`: hypothesis acts on a simulated cluster in any order, and shrinks what breaks it.

    class Shop(ClusterMachine):
        nodes = {"front": Spec(), "stock": Spec(functions={"take": take})}
        calls = st.tuples(st.just("take"), st.tuples(st.integers(1, 9)))

        def settled(self):
            assert all(call.done() for call in self.sim.calls)

    TestShop = Shop.TestCase
    TestShop.settings = settings(deadline=None, phases=set(Phase) - {Phase.explain})

Each rule is one event in a cluster, with the names of the nodes it affects, so that the steps that hypothesis prints
are readable. The draws of the simulation itself (delays, ids) come from one drawn seed: that costs hypothesis nothing,
and the seed shrinks. Most of what goes wrong in a cluster goes wrong while a function runs, and a fault at a random
moment rarely meets one. So `crash_at_work`, `interrupt` and `disturb` place a fault on a node that runs something, and
hypothesis aims at runs in which calls were started again (`hypothesis.target`). The module needs hypothesis, which
mpreg itself does not need.

The phase `explain` of hypothesis traces each line of the runs that shrink a failure: they take several times as long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from hypothesis import currently_in_test_context, note, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.strategies import SearchStrategy

from mpreg_proto.effects import Run
from mpreg_transports.testing.runs.report import simulation_report
from mpreg_transports.testing.runs.trials import standard
from mpreg_transports.testing.simulation.calls import CallKey, SimCall
from mpreg_transports.testing.simulation.checks import check_nodes
from mpreg_transports.testing.simulation.hosts import NodeHost, Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Watcher

T = TypeVar("T")

FORMED = 1.0
"""Seconds until the first nodes know each other, without faults."""
SETTLING = 65.0
"""Simulated seconds without faults at the end: longer than a request without a deadline may last."""
MOMENTS = (0.1, 1.0, 5.0, 30.0)
"""Seconds that `advance` lets pass. Messages arrive within the first, links open within the second, and silence is
detected within the last."""
FAULTS = ("crash", "silent crash", "cut off", "leave")
"""The faults that `interrupt` and `disturb` cause in a node that runs a function."""
STARTING = 3.0
"""The most seconds for which a rule waits until a function of its calls runs."""
PACES = (0.02, 0.002, 0.0)
"""Seconds between two steps of a run: enough for a reply, for one message, for nothing."""


def _one_of(names: Callable[[ClusterMachine], Sequence[T]]) -> SearchStrategy[T]:
    """Return a strategy for one item of the machine's present list.

    The rule's precondition ensures that there is one.
    """
    return st.runner().flatmap(lambda machine: st.sampled_from(list(names(machine))))


def _calls_of(most: int) -> SearchStrategy[list[tuple[str, tuple[Any, ...]]]]:
    """Return a strategy for one to `most` calls of the machine."""
    return st.runner().flatmap(lambda machine: st.lists(machine.calls, min_size=1, max_size=most))


class StartedAgain(Watcher):
    """A watcher that counts how often a call was started again after a loss."""

    def __init__(self) -> None:
        self._started: dict[CallKey, None] = {}
        self.times: int = 0

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        self.times += key in self._started
        self._started[key] = None


class ClusterMachine(RuleBasedStateMachine):
    """A state machine to subclass, with nodes, calls, rules and invariants of the test. `sim` is the simulation.

    To disable a rule, set it to None: `crash = None`.
    """

    nodes: ClassVar[Mapping[str, Spec]] = {}
    """The possible nodes. All others join the first; some start later, or never."""
    calls: ClassVar[SearchStrategy[tuple[str, tuple[Any, ...]]]] = st.tuples(
        st.just("echo"), st.tuples(st.integers(0, 9))
    )
    """The functions and arguments that clients call."""
    timeouts: ClassVar[Sequence[float | None]] = (None, 2.0)
    """The timeouts of these calls, in seconds."""
    watched: ClassVar[bool] = True
    """True if the standard invariants are checked."""
    settling: ClassVar[float] = SETTLING

    sim: Simulation

    def __init__(self) -> None:
        super().__init__()
        self.specs: dict[str, Spec] = dict(self.cluster())
        if not self.specs:
            raise ValueError(f'{type(self).__name__}.nodes names no nodes; write nodes = {{"front": Spec()}}')
        self.asked: list[tuple[SimCall, str, tuple[Any, ...]]] = []
        """The calls of `call`, with their arguments, for oracles."""
        self._been: dict[str, None] = {}
        self._withdrawn: dict[tuple[str, str], None] = {}
        self._handled = sys.exc_info()[1]
        self._started_again = StartedAgain()

    # -- for subclasses -----------------------------------------------------------------------------------------------

    def cluster(self) -> Mapping[str, Spec]:
        """Return the nodes of one run: `nodes`, unless a subclass needs others in each run.

        Functions that keep state need no override: `Spec(functions=make_functions)` creates them for each life of a
        node.
        """
        return self.nodes

    def watchers(self) -> Iterable[Watcher]:
        """Return further watchers of one run."""
        return ()

    def settled(self) -> None:
        """Check what must hold at the end, long after the faults have stopped. Called by `teardown`."""

    @property
    def up(self) -> list[str]:
        """The nodes that run."""
        return [name for name, host in self.sim.nodes.items() if host.alive]

    @property
    def down(self) -> list[str]:
        """The nodes that have run and do not run now."""
        return [name for name in self._been if not self.sim.nodes[name].alive]

    @property
    def busy(self) -> list[str]:
        """The nodes on which a function runs."""
        return [name for name in self.up if self.sim.nodes[name].running]

    @property
    def pending(self) -> list[int]:
        """The calls without a reply, as positions in `sim.calls`."""
        return [at for at, call in enumerate(self.sim.calls) if not call.done()]

    # -- rules --------------------------------------------------------------------------------------------------------

    @initialize(
        seed=st.integers(0, 255),
        absent=st.runner().flatmap(lambda machine: st.integers(0, len(machine.specs) // 2)),
        pace=st.sampled_from(PACES),
    )
    def begin(self, seed: int, absent: int, pace: float) -> None:
        """Start all nodes except the last few, and let them find each other. The others may join later."""
        check_nodes(self.specs, Spec)
        watchers = [*(standard() if self.watched else ()), *self.watchers(), self._started_again]
        self.sim = Simulation(seed=seed, nodes=self.specs, watchers=watchers)
        for at, name in enumerate(self.specs):
            if at < len(self.specs) - absent:
                self._been[name] = None
            else:
                self.sim.crash(name, silent=True)  # before it sends anything, so no view contains it
        self.sim.run(FORMED)
        self._pace = pace

    @precondition(lambda self: self._absent)
    @rule(node=_one_of(lambda machine: machine._absent))
    def join(self, node: str) -> None:
        """Start a node for the first time."""
        self._been[node] = None
        self.sim.restart(node)
        self._pause()

    @precondition(lambda self: len(self.up) > 1)
    @rule(node=_one_of(lambda machine: machine.up))
    def leave(self, node: str) -> None:
        """Let a node leave."""
        self.sim.leave(node)
        self._pause()

    @precondition(lambda self: len(self.up) > 1)
    @rule(node=_one_of(lambda machine: machine.up), silent=st.booleans())
    def crash(self, node: str, silent: bool) -> None:
        """Crash a process; with `silent` its machine fails too."""
        self.sim.crash(node, silent=silent)
        self._pause()

    @precondition(lambda self: self.down)
    @rule(node=_one_of(lambda machine: machine.down))
    def restart(self, node: str) -> None:
        """Start a node again, as a new member."""
        for offer in [offer for offer in self._withdrawn if offer[0] == node]:
            del self._withdrawn[offer]
        self.sim.restart(node)
        self._pause()

    @precondition(lambda self: len(self.specs) > 1 and not self.sim.network.cuts)  # or little else happens
    @rule(
        side=st.runner().flatmap(
            lambda machine: st.lists(
                st.sampled_from(list(machine.specs)), min_size=1, max_size=len(machine.specs) - 1, unique=True
            )
        ),
        oneway=st.booleans(),
    )
    def partition(self, side: list[str], oneway: bool) -> None:
        """Cut these nodes off from all others."""
        self.sim.partition(side, [name for name in self.specs if name not in side], oneway=oneway)
        self._pause()

    @precondition(lambda self: self.sim.network.cuts)
    @rule()
    def heal(self) -> None:
        """Open all paths again."""
        self.sim.heal()
        self._pause()

    @rule(seconds=st.sampled_from(MOMENTS))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.sim.run(seconds)

    @precondition(lambda self: self.up)
    @rule(
        node=_one_of(lambda machine: machine.up),
        what=_calls_of(4),
        timeout=_one_of(lambda machine: machine.timeouts),
    )
    def call(self, node: str, what: list[tuple[str, tuple[Any, ...]]], timeout: float | None) -> None:
        """Make some calls as a client of a node."""
        for function, args in what:
            self.asked.append((self.sim.call(node, function, *args, timeout=timeout), function, args))
        self._pause()

    @precondition(lambda self: len(self.up) > 1)
    @rule(node=_one_of(lambda machine: machine.up), what=_calls_of(2), silent=st.booleans())
    def crash_at_work(self, node: str, what: list[tuple[str, tuple[Any, ...]]], silent: bool) -> None:
        """Make calls, and crash another node, or else this one, as soon as it runs a function."""
        self._interrupt(node, what, "silent crash" if silent else "crash")

    @precondition(lambda self: len(self.up) > 1)
    @rule(node=_one_of(lambda machine: machine.up), what=_calls_of(2), fault=st.sampled_from(("cut off", "leave")))
    def interrupt(self, node: str, what: list[tuple[str, tuple[Any, ...]]], fault: str) -> None:
        """Make calls; cut off another node, or else this one, or let it leave, as soon as it runs a function."""
        self._interrupt(node, what, fault)

    @precondition(lambda self: self.busy)
    @rule(node=_one_of(lambda machine: machine.busy), fault=st.sampled_from(FAULTS))
    def disturb(self, node: str, fault: str) -> None:
        """Crash a node that runs a function, cut it off, or let it leave."""
        self._disturb(node, fault)
        self._pause()

    @precondition(lambda self: self.pending)
    @rule(call=_one_of(lambda machine: machine.pending))
    def cancel(self, call: int) -> None:
        """Cancel a request at its client."""
        self.sim.cancel(self.sim.calls[call])
        self._pause()

    @precondition(lambda self: self._offered)
    @rule(what=_one_of(lambda machine: machine._offered))
    def withdraw(self, what: tuple[str, str]) -> None:
        """Withdraw a function of a node."""
        self._withdrawn[what] = None
        self.sim.withdraw(*what)
        self._pause()

    @precondition(lambda self: self._withdrawn_up)
    @rule(what=_one_of(lambda machine: machine._withdrawn_up))
    def offer(self, what: tuple[str, str]) -> None:
        """Offer a withdrawn function again."""
        node, function = what
        del self._withdrawn[what]
        self.sim.offer(node, function, self.sim.nodes[node].functions[function])
        self._pause()

    def teardown(self) -> None:
        """Stop the faults, let the cluster settle, and check liveness; not after a step that has failed."""
        if not hasattr(self, "sim"):
            return
        if sys.exc_info()[1] is not self._handled:
            note(simulation_report(self.sim))
            return
        try:
            self.sim.settle(self.settling)
            self._aim()
            self.settled()
        except Exception:
            note(simulation_report(self.sim))
            raise

    # -- inside -------------------------------------------------------------------------------------------------------

    def _aim(self) -> None:
        """Let hypothesis vary the steps that led to another start of a call."""
        if currently_in_test_context():
            target(float(self._started_again.times), label="calls that were started again")

    def _interrupt(self, node: str, what: list[tuple[str, tuple[Any, ...]]], fault: str) -> None:
        for function, args in what:
            self.asked.append((self.sim.call(node, function, *args), function, args))
        self.sim.run(until=lambda: any(name != node for name in self.busy), limit=STARTING)
        if self.busy:
            self._disturb(next((name for name in self.busy if name != node), node), fault)
        self._pause()

    def _disturb(self, node: str, fault: str) -> None:
        if fault == "cut off":
            self.sim.partition([node], [name for name in self.specs if name != node])
        elif fault == "leave":
            self.sim.leave(node)
        else:
            self.sim.crash(node, silent=fault == "silent crash")

    def _pause(self) -> None:
        if self._pace:
            self.sim.run(self._pace)

    @property
    def _absent(self) -> list[str]:
        return [name for name in self.specs if name not in self._been]

    @property
    def _offered(self) -> list[tuple[str, str]]:
        offers = [(name, function) for name in self.up for function in self.sim.nodes[name].functions]
        return [offer for offer in offers if offer not in self._withdrawn]

    @property
    def _withdrawn_up(self) -> list[tuple[str, str]]:
        return [offer for offer in self._withdrawn if self.sim.nodes[offer[0]].alive]
