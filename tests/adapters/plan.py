"""The draws of a seed before its run begins: servers, clients, functions, faults and the order of the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tests.adapters.bodies import WAYS

FAULTS = (
    "half-open",
    "half-open",
    "silent link",
    "reset",
    "reset",
    "cut",
    "leave",
    "leave at once",
    "leave twice",
    "kill",
    "kill silently",
    "kill",
    "break executor",
    "break executor",
    "break made executor",
    "break made executor",
    "refuse executor",
    "refuse threads",
    "bounce",
    "down",
    "stall",
    "replace function",
    "withdraw function",
)
NOWHERE = "nowhere"
"""A host that nobody serves."""
CLOSINGS = ("leave", "leave at once", "cancel", "kill")


@dataclass
class FunctionPlan:
    """One function and the servers that offer it."""

    name: str
    way: str
    servers: list[str]
    idempotent: bool
    concurrency: int | None


@dataclass
class ClientPlan:
    """One client: its addresses, and what it does."""

    name: str
    kind: str
    """native, json or post."""
    urls: list[str]
    opens_at: float
    workers: int
    calls: int
    slow: bool
    """True if its links are narrow: a long value takes longer on them than the silence after which links are closed."""
    closes_at: float | None
    """The time at which it is closed, whatever it does then; it connects again later."""


@dataclass
class Plan:
    """All that is drawn before the run."""

    seed: int
    calm: bool
    """True if nothing goes wrong: then every call must succeed."""
    in_background: bool
    servers: list[str]
    functions: list[FunctionPlan]
    clients: list[ClientPlan]
    faults: list[tuple[float, str]] = field(default_factory=list)
    ending: list[tuple[str, str]] = field(default_factory=list)
    """The closings in order: a server or client, and the way."""
    small_limits: bool = False
    together: bool = False
    """True if the closings at the end do not wait for each other."""
    rude: bool = False
    """True if calls are out at the end."""
    settles: bool = False
    idles: bool = False
    """True if clients pause for longer than the silence after which links are pinged or closed."""
    stalls: bool = False
    """True if clients' links stand still now and then, for less than the time after which they may be closed."""
    early_leaves: list[str] = field(default_factory=list)
    """The servers whose `leave` is called before they are started for the first time."""
    frames: bool = False
    """True if two ends of a WebSocket exchange messages beside all else."""

    def lines(self) -> list[str]:
        """Return the plan as text for a report."""
        kind = "calm" if self.calm else "with faults"
        for name in ("small_limits", "idles", "stalls", "frames"):
            kind += f", {name.replace('_', ' ')}" if getattr(self, name) else ""
        found = [f"{kind}; servers {', '.join(self.servers)}; {'async with' if self.in_background else 'serve()'}"]
        for one in self.functions:
            more = (", idempotent" if one.idempotent else "") + (
                f", {one.concurrency} slots" if one.concurrency else ""
            )
            found.append(f"{one.name}: {one.way} on {', '.join(one.servers)}{more}")
        for client in self.clients:
            closes = "" if client.closes_at is None else f", closed at {client.closes_at:.2f} s"
            found.append(
                f"{client.name}: {client.kind} to {', '.join(client.urls)} from {client.opens_at:.2f} s{closes}"
                + (", slow" if client.slow else "")
            )
        found += [f"fault at {at:.2f} s: {kind}" for at, kind in self.faults]
        how = ("together" if self.together else "one by one") + (", calls are out" if self.rude else "")
        return [*found, f"end, {how}: " + ", ".join(f"{who} {what}" for who, what in self.ending)]


def drawn_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    draw = Random(f"plan {seed}")
    calm = draw.random() < 0.4
    servers = [f"s{number}" for number in range(draw.choice((1, 2, 2, 3, 3, 4)))]
    functions = []
    for number in range(draw.randint(3, 6)):
        way = WAYS[number % len(WAYS)] if number < 3 else draw.choice(WAYS)
        offered = sorted(draw.sample(servers, draw.randint(1, len(servers))))
        slots = draw.choice((None, None, None, 1, 2))
        functions.append(FunctionPlan(f"{way}-{number}", way, offered, draw.random() < 0.4, slots))
    draw.shuffle(functions)
    clients = []
    for number in range(draw.choice((1, 2, 3, 4))):
        kind = draw.choice(("native", "native", "native", "json", "post"))
        kind = kind if number else "native"
        urls = draw.sample(servers, draw.randint(1, len(servers)) if kind == "native" else 1)
        if kind == "native" and draw.random() < 0.3:
            urls.insert(0, NOWHERE)
        slow = calm and kind != "post" and draw.random() < 0.3  # a body of POST has 60 s, and the head 5 s
        clients.append(
            ClientPlan(
                f"c{number}",
                kind,
                urls,
                draw.random() * (3.0 if draw.random() < 0.5 else 0.0),
                1 if slow else draw.randint(1, 4),
                draw.randint(1, 3 if slow else 6),
                slow,
                2.0 + draw.random() * 12.0 if not calm and draw.random() < 0.35 else None,
            )
        )
    plan = Plan(seed, calm, draw.random() < 0.5, servers, functions, clients)
    if not calm:
        times = sorted(draw.random() * 15.0 for _ in range(draw.randint(1, 7)))
        kinds = draw.sample(FAULTS, 4) if draw.random() < 0.7 else FAULTS  # some again and again, or all
        plan.faults = [(at, draw.choice(kinds)) for at in times]
    plan.small_limits = draw.random() < 0.3
    plan.rude, plan.settles, plan.together = draw.random() < 0.4, draw.random() < 0.3, draw.random() < 0.5
    ending = [(name, draw.choice(CLOSINGS)) for name in servers]
    closings = [(one.name, draw.choice(("close", "close", "cancel"))) for one in clients]
    if calm and draw.random() < 0.5:  # running calls end in grace, and their callers get the results
        leaving = [(name, "leave") for name in draw.sample(servers, len(servers))]
        plan.ending, plan.rude, plan.together = leaving + closings, True, False
    else:
        plan.ending = ending + closings
        draw.shuffle(plan.ending)
    plan.idles, plan.stalls = draw.random() < 0.25, calm and draw.random() < 0.5
    plan.early_leaves = [name for name in servers if draw.random() < 0.1]
    plan.frames = draw.random() < 0.3
    return plan
