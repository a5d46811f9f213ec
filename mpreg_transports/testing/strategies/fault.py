"""Faults of a simulated cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mpreg_transports.testing.faults.script import Script
from mpreg_transports.testing.faults.swarm import FAULTS, LEVELS, Drawing, Swarm
from mpreg_transports.testing.simulation.chooser import Chooser, Hypothesis
from mpreg_transports.testing.simulation.hosts import Spec


def faults(
    cluster: Mapping[str, Spec], *, seconds: float = 30.0, kinds: Sequence[str] = (), max_faults: int = 4
) -> SearchStrategy[Swarm | Script]:
    """Return a strategy for the faults of a run, as `Simulation(faults=...)` takes them.

    They are a `Script` of up to `max_faults` faults, which hypothesis shrinks one by one, or a `Swarm` with drawn
    options, which draws many faults from the seed. All of them happen within `seconds`. `kinds` are some of
    `mpreg_transports.testing.faults.swarm.FAULTS`; by default all.
    """
    known = tuple(kinds) or tuple(FAULTS)
    swarms = st.builds(
        lambda some, level: Swarm(seconds=seconds, kinds=tuple(some), level=level),
        st.lists(st.sampled_from(known), min_size=1, unique=True),
        st.sampled_from([None, *LEVELS]),
    )
    return st.one_of(_scripts(cluster, seconds, known, max_faults), swarms)


@st.composite
def _scripts(
    draw: st.DrawFn, cluster: Mapping[str, Spec], seconds: float, kinds: tuple[str, ...], max_faults: int
) -> Script:
    drawing = Drawing(Chooser(Hypothesis(draw(st.data()))), cluster, seconds)
    moments = st.floats(0, seconds, allow_nan=False, width=16)
    for kind, at in draw(st.lists(st.tuples(st.sampled_from(kinds), moments), max_size=max_faults)):
        FAULTS[kind](drawing, min(at, seconds))
    return Script(tuple(drawing.done()))
