"""The invariants of a run: of each request when it ends, of a quiet moment, and of the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpreg_proto.errors import ErrorCode, RequestError
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.timers import REQUEST_TIMERS
from tests.adapters import loops

if TYPE_CHECKING:
    from tests.adapters.world import Record, World

SMALL = Limits(
    backlog=60_000, slow_link=5_000, drain_grace=2 * SECOND, link_idle=3 * SECOND, client_requests=2, client_bytes=5_000
)
"""The limits of the servers of some runs."""
GRACE = 0.25
"""The seconds after its deadline by which a request has ended."""
JSON_GRACE = 8.0
"""The same for a JSON client, which has no clock: its time begins at the node, and its answer takes a while."""
LATE = 5.0
"""The seconds after the caller's deadline by which a body may start, as a request travels for a while.

Only in calm runs: behind long values on a narrow link it may wait for longer than that."""
SLACK = 1e-6
ON_ITS_WAY = 1.5
"""The seconds for which a result may be on its way between nodes that leave."""
JITTER = 0.01
"""The most that a link adds to its delay."""
START = 0.025
"""The most that an idle thread or executor needs to start a body, and some more."""
PROBE = 5_000
"""The bytes that may be before a short message on a link on which nothing happens, and its own."""
EXPECTED = (
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.OUTCOME_UNKNOWN,
    ErrorCode.CANCELLED,
    ErrorCode.COMMAND_NOT_FOUND,
    ErrorCode.DRAINING,
)
"""The errors that a call may end with in a run with faults."""
ABANDONED = 1.9
"""The seconds of cleanup from which on a coroutine may be abandoned when its node ends."""
KEPT_TIMERS = 2
"""The timers of the run itself at its end: its time limit and its watch."""


def request_ended(world: World, record: Record, *, sure: bool) -> None:
    """Check a request that has just ended."""
    assert record.ended is not None
    if len(record.outcomes) != 1:
        world.violation(f"{record!r} has {len(record.outcomes)} outcomes: {record.outcomes}")
    grace = JSON_GRACE if record.kind in ("json", "post") else GRACE
    if record.ended > record.deadline + grace + SLACK and record.kind not in ("explain", "view"):
        world.violation(f"{record!r} ended {record.ended - record.deadline:.3f} s after its deadline")
    if record.cancelled_at is not None and record.ended > record.cancelled_at + _cleanup(record) + SLACK:
        world.violation(f"{record!r} ended {record.ended - record.cancelled_at:.3f} s after its cancellation")
    if record.client in world.clients and record.kind not in ("stream", "items"):  # one that was left is dropped later
        pending = len(world.clients[record.client]._session._pending)
        out = sum(one.client == record.client and one.ended is None for one in world.records)
        if pending > out:
            world.violation(
                f"{pending} requests of {record.client} are pending, and {out} are awaited, after {record!r}"
            )
    if (sure or world.plan.calm) and record.cancelled_at is None and not world.ending:
        _must_succeed(world, record, sure=sure)
    if world.plan.calm and world.ending:
        _delivered(world, record)
    executors(world)


def _delivered(world: World, record: Record) -> None:
    """Check that a call whose body ended in the grace of its leaving nodes has brought its result."""
    if record.kind not in ("call", "json", "post") or len(record.specs) != 1 or not world.stops:
        return
    if record.cancelled_at is not None or record.client in world.closing:
        return
    starts = world.ledger.starts.get(record.specs[0]["call"], [])
    if len(starts) != 1 or any(how != "leave" for _, how, _ in world.stops):
        return
    (start,) = starts
    plan = next(one for one in world.plan.clients if one.name == record.client)
    first = min((began for name, _, began in world.stops if name in (start.server, *plan.urls)), default=None)
    if first is None:
        return
    if record.outcomes == ["returned"]:
        world.sometimes("a call ended while its node left")
    elif start.cancelled_at is not None and start.cancelled_at < min(record.deadline, first + world.grace) - SLACK:
        world.violation(f"{start.call} of {record!r} was cancelled within the grace of its nodes")
    elif start.delivered is not None and not start.cancelled and start.delivered < first + world.grace - ON_ITS_WAY:
        _must_succeed(world, record, sure=False)


def latency(world: World, record: Record) -> None:
    """Check that a call that had the cluster to itself took no longer than its body and its way."""
    (spec,) = record.specs
    starts = world.ledger.starts.get(spec["call"], [])
    if record.outcomes != ["returned"] or len(starts) != 1 or starts[0].delivered is None:
        return
    assert record.ended is not None
    took = record.ended - record.began - (starts[0].delivered - starts[0].at)
    qualities = [end.outgoing.quality for end in world.network.links()]
    own = world.network.links(record.client)
    ways = [end.outgoing.quality.delay + end.incoming.quality.delay for end in own]
    others = [
        end.outgoing.quality for end in world.network.links() if end.host in world.nodes and end.peer in world.nodes
    ]
    most = max(ways, default=0.0) + 2 * max((one.delay for one in others), default=0.0) + 4 * JITTER + START
    most += sum(4 * PROBE / one.rate for one in {min(qualities, key=lambda one: one.rate)}) if qualities else 0.0
    if took > most:
        world.violation(f"{record!r} of {record.functions[0]} took {took:.4f} s beside its body, at most {most:.4f} s")


def _cleanup(record: Record) -> float:
    return JSON_GRACE if record.kind in ("json", "post") else 0.0  # its link is closed, which may take a while


def _must_succeed(world: World, record: Record, *, sure: bool) -> None:
    outcome = record.outcomes[0] if record.outcomes else "nothing"
    raises = any(spec["raises"] for spec in record.specs)
    if outcome == "returned" or (raises and outcome.startswith("ExecutionFailed")):
        return
    if record.timeout is not None and record.timeout < 60.0 and outcome.startswith("DeadlineExceeded"):
        return
    if sure and any(name in world.broken for name in record.functions):
        return
    world.violation(f"{record!r} of {record.functions} ended with {outcome}, and nothing was wrong")


def failure(world: World, record: Record, error: RequestError) -> None:
    """Check an error with which a request, or a call of it, ended."""
    starts = [start for spec in record.specs for start in world.ledger.starts.get(spec["call"], ())]
    world.sometimes(f"a request ended with {error.code}")
    if error.code == ErrorCode.EXECUTION_FAILED:
        if not any(spec["raises"] for spec in record.specs):
            world.violation(f"{record!r} failed, and no body raises: {error.message} {error.details}")
        elif not any(spec["raises"] and spec["call"] in world.ledger.starts for spec in record.specs):
            world.violation(f"{record!r} failed, and no body that raises has started")
    elif error.code not in EXPECTED and not (error.code == ErrorCode.OVERLOADED and world.refused):
        world.violation(f"{record!r} ended with {error.code} {error.message}")
    idempotent = {one.name for one in world.plan.functions if one.idempotent}
    if error.details.get("maybe_executed") is False:
        record.never = True
        ran = [start for start in starts if start.function not in idempotent]
        if ran:
            world.violation(f"{record!r} says maybe_executed=False ({error.code}), and {ran[0].call} started")


def numbers(record: Record) -> dict[str, int]:
    """Return the number in the result of each call."""
    expected: dict[str, int] = {}
    for spec in record.specs:
        inputs = [expected[record.specs[one]["call"]] for one in spec["inputs"]]
        expected[spec["call"]] = spec["number"] * 3 + sum(inputs) + 1
    return expected


def values(world: World, record: Record, found: dict[str, Any]) -> None:
    """Compare results with what one call after another gives."""
    expected = numbers(record)
    wanted = {spec["call"] for spec in record.specs}
    wanted -= {record.specs[one]["call"] for spec in record.specs for one in spec["inputs"]}
    if record.kind in ("explain", "view"):
        return
    if not record.partial and set(found) != wanted:
        world.violation(f"{record!r} returned {sorted(found)}, expected {sorted(wanted)}")
    for name, value in found.items():
        spec = next((one for one in record.specs if one["call"] == name), None)
        if spec is None or value["call"] != name or value["number"] != expected[name]:
            world.violation(f"{record!r} returned {str(value)[:200]} for {name}, expected {expected.get(name)}")
            continue
        if _length(value["parcel"]) != spec["size"]:
            world.violation(f"{record!r} returned a parcel of another length for {name}")
        if spec["raises"]:
            world.violation(f"{record!r} returned a value for {name}, whose body raises")
        if name not in world.ledger.starts:
            world.violation(f"{record!r} returned a value for {name}, which never ran")


def _length(parcel: Any) -> int:
    return len(parcel if isinstance(parcel, str) else parcel.data)


def ledger(world: World) -> None:
    """Check the starts of all bodies."""
    world.wrong += world.ledger.wrong + world.network.broken_rules
    idempotent = {one.name for one in world.plan.functions if one.idempotent}
    for record in world.records:
        for spec in record.specs:
            starts = world.ledger.starts.get(spec["call"], [])
            if len(starts) > 1 and starts[0].function not in idempotent:
                world.violation(f"{spec['call']} of {record!r} started {len(starts)} times")
            world.sometimes("an idempotent body started twice", len(starts) > 1)
            late = [start for start in starts if start.at > record.deadline + LATE]
            if late and world.plan.calm and not world.plan.stalls:
                world.violation(f"{spec['call']} of {record!r} started {late[0].at - record.deadline:.3f} s too late")
            if starts and record.never and starts[0].function not in idempotent:
                world.violation(f"{record!r} said maybe_executed=False, and {spec['call']} started afterwards")
            if record.cancelled_at is not None:
                world.sometimes("a body was cancelled by its caller", any(start.cancelled for start in starts))


def views(world: World) -> None:
    """Check that all servers know each other, and nobody else, some time after the last fault."""
    if not all(node.accepts for node in world.nodes.values()):
        return  # `quiet` says so
    seen = {name: node.server.view() for name, node in world.nodes.items()}
    for name, view in seen.items():
        rows = {row.name: row for row in view.members if row.standing == "alive"}
        alive = [row.name for row in view.members if row.standing in ("alive", "suspect", "draining")]
        if sorted(alive) != sorted(seen):
            world.violation(f"{name} knows {sorted(alive)}, and {sorted(seen)} run")
            continue
        for other, its in seen.items():
            row = rows[other]
            own = next(one for one in its.members if one.me)
            if row.id != its.id or row.functions != own.functions or not (row.linked or row.me):
                world.violation(f"{name} sees {other} as {row}, which sees itself as {own}")


def executors(world: World) -> None:
    """Check that a node offers no function of an executor that has refused a call because it is broken."""
    for name, node in world.nodes.items():
        if (working := sum(not made.broken for made in node.made)) > 1:
            world.violation(f"{name} has made an executor while another one worked, so that it has {working}")
        for one in world.plan.functions:
            executor = node.executors.get(one.way)
            if executor is not None and executor.refused and one.name in node.server.functions:
                world.violation(f"{name} offers {one.name}, whose executor has refused a call")
            if one.way == "made" and name in one.servers and one.name not in node.server.functions:
                world.violation(f"{name} does not offer {one.name}, for which another executor could be made")


def quiet(world: World) -> None:
    """Check that nothing of earlier requests is left, while servers and clients run and nobody calls."""
    ledger(world)
    views(world)
    for name, node in world.nodes.items():
        driver = node.server._driver
        if driver is None:
            world.violation(f"{name} does not run")
            continue
        core = driver.node
        view = node.server.view()
        found: dict[str, Any] = {what: getattr(view, what) for what in ("requests", "running", "queued")}
        found["slots"] = {one: count for one, count in core.worker._busy.items() if count}
        found["bodies"] = driver._running
        found["timers"] = [key for key in core._timers._at if key[0] in REQUEST_TIMERS]
        _check_links(world, name, driver._links)
        for what, left in found.items():
            if left:
                world.violation(f"{name} still has {what}: {left!r:.300}")
    for name, client in world.clients.items():
        connection = client._connection
        if connection._waiters or client._session._pending:
            world.violation(f"{name} still waits: {connection._waiters!r:.100}, {client._session._pending!r:.100}")
        _check_links(world, name, connection._link_loop)


def _check_links(world: World, name: str, links: Any, *, closed: bool = False) -> None:
    """Check the tables of one link loop."""
    open_ = list(links._buffers.values())
    unsent = [buffer._unsent for buffer in links._buffers.values() if getattr(buffer, "_unsent", 0)]
    found = {
        "unsent bytes": unsent,
        "watched buffers without a link": [one for one in links._monitor._waiting if one not in open_ and not closed],
        "paused links": links._paused,
        "writes": links._writes,
        "hang-ups": links._closing,
    }
    for what, left in found.items():
        if left:
            world.violation(f"{name} still has {what}: {left!r:.300}")


def left(world: World) -> None:
    """Check that nothing is left when all is closed."""
    ledger(world)
    for name, node in world.nodes.items():
        if node.runs or node.server._driver is not None:
            world.violation(f"{name} still runs")
    for name, client in world.clients.items():
        connection = client._connection
        if client.is_open or connection._waiters or connection._links or client._session._pending:
            world.violation(f"{name} is closed, and still has requests or links")
        _check_links(world, name, connection._link_loop, closed=True)
    if world.network.open:
        ends = [f"{end.host} to {end.peer}" for end in world.network.open]
        world.violation(f"links are open: {', '.join(ends)}")
    for name, node in world.nodes.items():
        for driver in node.drivers:
            kept = {"outcomes": driver._ended_runs, "addresses": driver._local_hosts, "bodies": driver._running}
            for what, rows in kept.items():
                if rows:
                    world.violation(f"{name} has ended and still has {what}: {rows!r:.200}")
            _check_links(world, name, driver._links, closed=True)
        node.drivers.clear()
    abandoned = [start for start in world.ledger.running if start.cancelled and start.cleanup > ABANDONED]
    world.sometimes("a body was abandoned at the end of its node", abandoned)
    running = [start.call for start in world.ledger.running if start not in abandoned]
    if running:
        world.violation(f"bodies still run: {running}")
    tasks = [(name, stack) for name, stack in loops.tasks() if "world.py" not in stack and "runners" not in stack]
    world.violation(f"tasks are left: {tasks}") if tasks else None
    if (timers := loops.timers()) > KEPT_TIMERS:
        world.violation(f"{timers} timers are left")
    for record in world.records:
        if record.ended is None:
            world.violation(f"{record!r} never ended")
