"""The measurements: each takes a formed cluster, changes it, and returns times or amounts."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence

import msgspec

from mpreg_proto.cluster.cluster import Cluster
from mpreg_proto.cluster.members import Card
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import DEFAULT, SECOND
from mpreg_proto.rng import Rng
from mpreg_proto.timers import Timers
from mpreg_proto.wire.messages import Claim, Gossip
from mpreg_transports.testing import Fn
from tests.membership_figures.watched import Counted, offered

HOP = 0.051
"""The latency of a link, 1 ms, and the time over which gossip may be joined, in seconds."""
AFTER_DEATH = 20.0
"""Seconds until a crash must be known."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of `values` does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]


def hops(nodes: int, *, seed: int, changes: int) -> list[float]:
    """Count the links that a change of a random node crosses to reach all, over the rings alone, in one common view."""
    draws = Rng(seed)
    ids = [MemberId(draws.below(1 << 52).to_bytes(16, "big")) for _ in range(nodes)]
    rings = Rings(ids[0])
    for one in ids:
        rings.enter(one)
    near = {one: rings.observers_of(one) for one in ids}
    found: list[float] = []
    for _ in range(changes):
        start = ids[draws.below(nodes)]
        seen, layer, count = {start: None}, [start], 0
        while len(seen) < nodes:
            layer = [other for other in dict.fromkeys(two for one in layer for two in near[one]) if other not in seen]
            seen.update(dict.fromkeys(layer))
            count += 1
        found.append(count)
    return found


class Idle(msgspec.Struct):
    """The messages that one member sends in a second while nothing happens, and the number of its links."""

    messages: float
    bytes: float
    links: float
    kinds: dict[str, float]


def idle(sim: Counted, seconds: float = 60.0) -> Idle:
    """Measure a cluster in which nothing happens for a while."""
    sim.sent, sim.bytes, sim.weighing = {}, 0, True
    sim.run(seconds)
    sim.weighing = False
    each = len(sim.nodes) * seconds
    links = sum(len(host.wires) for host in sim.nodes.values()) / len(sim.nodes)
    kinds = {kind: count / each for kind, count in sorted(sim.sent.items())}
    return Idle(sum(sim.sent.values()) / each, sim.bytes / each, links, kinds)


class Spread(msgspec.Struct):
    """The times until all know a change, in seconds, and the largest number of times that one member sends it on."""

    quiet: list[float]
    busy: list[float]
    sends: int


def spread(sim: Counted, changes: int) -> Spread:
    """Change the offers of nodes: one after the other, and then many at once, so that gossip is joined."""
    names = [sim.chooser.choice("changed", list(sim.nodes)) for _ in range(changes)]
    quiet: list[float] = []
    for number, name in enumerate(names):
        sim.sends = {}
        quiet += _changed(sim, [(name, f"quiet-{number}")], apart=0.0)
    sim.sends = {}
    together = [(name, f"busy-{number}") for number, name in enumerate(names)]
    busy = _changed(sim, together, apart=0.007)
    sends = max(max(times.values()) for times in sim.sends.values())
    return Spread(quiet, busy, sends)


def _changed(sim: Counted, changes: list[tuple[str, str]], *, apart: float) -> list[float]:
    began: dict[tuple[MemberId, int], int] = {}
    for name, function in changes:
        node = sim.nodes[name].node
        sim.offer(name, function, Fn(offered))
        began[node.me, node.cluster.catalogue.version(node.me)] = sim.now
        sim.run(apart)
    sim.run(2)
    return [_known(sim, member, version, start) for (member, version), start in began.items()]


def _known(sim: Counted, member: MemberId, version: int, start: int) -> float:
    """Return the seconds until all others have a member's catalogue at a version, or at a later one with its change."""
    reached: dict[str, int] = {}
    for (other, later), times in sim.learnt.catalogues.items():
        if other == member and later >= version:
            for host, at in times.items():
                reached[host] = min(at, reached.get(host, at))
    assert len(reached) == len(sim.nodes) - 1, "not all know of it"
    return (max(reached.values()) - start) / SECOND


def deaths(sim: Counted, crashes: int, *, silent: bool) -> list[float]:
    """Kill nodes one after the other; for each, return the seconds until 99 % of the others have marked it DEAD."""
    spans: list[float] = []
    for _ in range(crashes):
        alive = [name for name, host in sim.nodes.items() if host.alive]
        name = sim.chooser.choice("killed", alive[1:])
        member, began = sim.nodes[name].node.me, sim.now
        sim.crash(name, silent=silent)
        wanted = -(-(len(alive) - 1) * 99 // 100)
        sim.wait(lambda: len(sim.learnt.deaths.get(member, ())) >= wanted, most=AFTER_DEATH)  # noqa: B023
        times = sorted(sim.learnt.deaths.get(member, {}).values())
        spans.append((times[wanted - 1] - began) / SECOND if len(times) >= wanted else AFTER_DEATH)
        sim.run(sim.chooser.fraction("between") * 2)
    return spans


def healed(sim: Counted, seconds: float) -> float | None:
    """Cut a cluster in halves for so long; return the seconds from the end of the cut until all see all as ALIVE."""
    names = [name for name, host in sim.nodes.items() if host.alive]
    half = len(names) // 2
    sim.partition(names[:half], names[half:])
    sim.run(seconds)
    assert not sim.whole(), "a partition without effect"
    sim.heal()
    return sim.wait(sim.whole, most=120.0)


def memory(known: int) -> float:
    """Return the bytes that one more member costs, without its catalogue, in a node that knows so many."""
    claims = [_claim(number) for number in range(known)]
    datas = [msgspec.msgpack.encode(Gossip(tuple(claims[start : start + 100]))) for start in range(0, known, 100)]
    decoder = msgspec.msgpack.Decoder(Gossip)
    me = MemberId(b"m" * 16)
    gc.collect()
    tracemalloc.start()
    cluster = Cluster(
        me, name="me", addresses=(Address("ws://10.0.0.1:9001"),), seeds=(), resources=(), timers=Timers(),
        rng=Rng(0), limits=DEFAULT, now=0,
    )  # fmt: skip
    cluster.link_established(LinkId(1), MemberId(claims[0].member), "first", dialled=None, now=0)
    before, _ = tracemalloc.get_traced_memory()
    for number, data in enumerate(datas):
        cluster.received(LinkId(1), decoder.decode(data), number)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / known


def _claim(number: int) -> Claim:
    card = Card(f"worker-{number}", (f"ws://10.{number >> 16}.{number >> 8 & 255}.{number & 255}:9001",), release="1.0")
    member = Rng(number).child("id").below(1 << 52).to_bytes(16, "big")
    return Claim(member, 0, 0, msgspec.msgpack.encode(card))
