"""The command, see the package.

It uses one core; 100 nodes take some seconds, 1,000 some minutes and 5 GiB, 10,000 two minutes.
"""

from __future__ import annotations

import argparse
import math
import platform
import resource
import sys
import time

from tests.membership_figures import measured
from tests.membership_figures.large import deaths
from tests.membership_figures.watched import Counted

TARGETS = {100: (4, 2.5, 8.0), 1000: (5, 3.0, 8.0), 10000: (6, 3.0, 8.0)}
"""The targets by size: hops of 50 ms, seconds until a crash is known, seconds until a hang is known."""
LARGEST = 2000
"""The largest number of nodes that is fully simulated."""


def memberlist(nodes: int) -> float:
    """Return the seconds until a hang is known, by memberlist's own formulas at its defaults for a LAN.

    It is the sum of the time to the first probe of it (SWIM, section 3.3: e/(e-1) periods), the period of that probe,
    SuspicionMult x log10 N periods of suspicion, and log2 N rounds of gossip of 0.2 s.
    """
    return math.e / (math.e - 1) + 1 + 4 * max(1.0, math.log10(nodes)) + 0.2 * math.log2(nodes)


def row(name: str, value: str, target: str = "") -> None:
    """Print one line of the table."""
    print(f"  {name:<58}{value:>16}   {target}", flush=True)


def large(nodes: int, *, seed: int, crashes: int) -> None:
    """Measure clusters too large for a full simulation, because a view for each node would take 100 GB.

    Gossip goes over the rings alone, of one view for all. For a death the victim and its ten observers are real cores,
    the rest are stand-ins that pass gossip on (large.py).
    """
    began = time.process_time()
    most, crash, hang = TARGETS.get(nodes, TARGETS[10000])
    print(f"\n{nodes} nodes, seed {seed}; each victim and its observers are real, the rest are stand-ins")
    hops = measured.percentile(measured.hops(nodes, seed=seed, changes=20), 0.99)
    row("change known by all, the rings alone: hops, p99 of 20", f"{hops:.0f}", str(most))
    with_stand_ins(nodes, seed=seed, crashes=crashes, targets=(crash, hang))
    row("      memberlist at its LAN defaults, by its formulas", f"{memberlist(nodes):.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row("processor time; memory at the peak of this process", f"{time.process_time() - began:.0f} s, {peak:.0f} MB")


def with_stand_ins(nodes: int, *, seed: int, crashes: int, targets: tuple[float, float]) -> None:
    """Measure the time until deaths are known if all but the victim and its observers are stand-ins."""
    for name, silent, target in zip(
        ("crash seen as end of stream", "hang, or silence"), (False, True), targets, strict=True
    ):
        spans = deaths(nodes, seed=seed, count=crashes, silent=silent)
        middle, most = measured.percentile(spans, 0.5), measured.percentile(spans, 0.99)
        row(f"{name}: DEAD at 99 %, median", f"{middle:.2f} s")
        row(f"{name}: DEAD at 99 %, p99 of {crashes}", f"{most:.2f} s", f"{target} s")


LEFT = 4
"""The least number of nodes left after all crashes: in smaller clusters a half is too small to notice a partition."""


def figures(nodes: int, *, seed: int, crashes: int) -> None:
    """Form a cluster of so many nodes, and measure."""
    began = time.process_time()
    hops, crash, hang = TARGETS.get(nodes, (6, 3.0, 8.0))
    if nodes > LARGEST:
        large(nodes, seed=seed, crashes=crashes)
        return
    sim = Counted(nodes, seed)
    took = sim.wait(sim.formed, most=60)
    print(f"\n{nodes} nodes, seed {seed}")
    row("formed, with one common seed", f"{took} s" if took is not None else "not in 60 s")
    sim.run(60)
    idle = measured.idle(sim)
    row("idle: messages a second and member", f"{idle.messages:.2f}", "2.2")
    row("      " + ", ".join(f"{kind} {count:.2f}" for kind, count in idle.kinds.items()), "")
    row("      bytes a second and member", f"{idle.bytes:.0f}", "300")
    row("      links of a member", f"{idle.links:.1f}", "10")
    row("suspicions since the start, without a failure", str(len(sim.learnt.suspected)), "0")
    changes = measured.spread(sim, 20)
    row("change known by all, no other changes: p99", f"{measured.percentile(changes.quiet, 0.99) * 1e3:.0f} ms")
    busiest = math.ceil(measured.percentile(changes.busy, 0.99) / measured.HOP)
    row("change known by all, 20 within 140 ms: hops of 50 ms, p99", str(busiest), str(hops))
    row("      sends of one member and one change, at most", str(changes.sends), "10")
    for name, silent, target in (("crash seen as end of stream", False, crash), ("hang, or silence", True, hang)):
        spans = measured.deaths(sim, crashes, silent=silent)
        middle, most = measured.percentile(spans, 0.5), measured.percentile(spans, 0.99)
        row(f"{name}: DEAD at 99 %, median", f"{middle:.2f} s")
        row(f"{name}: DEAD at 99 %, p99 of {crashes}", f"{most:.2f} s", f"{target} s")
    row("      memberlist at its LAN defaults, by its formulas", f"{memberlist(nodes):.1f} s")
    if nodes <= 200:
        for seconds, bound in ((60, "15 s"), (700, "40 s")):
            back = measured.healed(sim, seconds)
            row(f"halves for {seconds} s: one view after healing", f"{back} s" if back else "not in 120 s", bound)
    print("  the same, with stand-ins except for each victim and its observers")
    with_stand_ins(nodes, seed=seed, crashes=crashes, targets=(crash, hang))
    row("processor time of this run", f"{time.process_time() - began:.0f} s")


def main() -> int:
    """Print all figures and return 0: this is no check."""
    parser = argparse.ArgumentParser(prog="python -m tests.membership_figures", description="Membership, measured.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[100], metavar="N", help="sizes, in turn (100)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="seed of all random draws (1)")
    parser.add_argument("--crashes", type=int, default=20, metavar="N", help="of each kind, without restarts (20)")
    given = parser.parse_args()
    if given.crashes < 1:
        parser.error("at least one crash")
    fewest = 2 * given.crashes + LEFT
    if min(given.nodes) < fewest:
        parser.error(
            f"{given.crashes} crashes of each of two kinds need {fewest} nodes: more --nodes or fewer --crashes"
        )
    print(f"Python {platform.python_version()}, {platform.machine()}; links of 1 ms, nothing lost")
    for known in (100, 1000, 10000):
        row(f"memory a known member, {known:,} known, without catalogue", f"{measured.memory(known):,.0f} B", "1,000 B")
    for nodes in given.nodes:
        figures(nodes, seed=given.seed, crashes=given.crashes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
