"""The report of a failing run: the drawn options, the violation, the last events, the views of the nodes, the command.

The report is text for people. The saved trace lasts longer than the seed: a seed gives another run as soon as any draw
differs.
"""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mpreg_proto.ids import RequestId
from mpreg_proto.requests.request_state import CallState, StoryRow
from mpreg_transports.testing.runs.replay import Case, CaseResult
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.observer_hub import ObserverHub
from mpreg_transports.testing.simulation.request_names import name_by_number, name_of_execution, request_name
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.specs import versions
from mpreg_transports.testing.simulation.trace import Action, Event, unpacked
from mpreg_transports.testing.simulation.watchers import Violation

LAST = 25
"""The number of events in a report."""
_ACTIONS = 10
"""The number of faults in a report."""
_REQUESTS = 3
"""The most open requests of a node in a report."""
_STEPS = 12
"""The most steps of one request in a report."""


def command(case: Case) -> str:
    """Return the command that repeats the run, as long as nothing has changed.

    Return "" for a case that is no scenario.
    """
    if not case.scenario:
        return ""
    more = " --objects" if case.objects else ""
    return (
        f"mpreg simulate --nodes {len(case.nodes)} --seed {case.seed} --scenario {case.scenario} "
        f"--seconds {case.seconds:g}{more}"
    )


def failure(case: Case, ran: CaseResult, *, saved: Path | None = None, again: str = "") -> str:
    """Return the whole report.

    `saved` is the file with the trace; `again` is the result of a second run of the seed.
    """
    sim, error = ran.sim, ran.error
    assert error is not None, "only a failing run has a report of its failure"
    lines = [
        f"seed {case.seed}, {case.scenario or 'a script'}: {sim.violation}",
        f"  drawn     {case.options.get('words', case.options)}",
        f"  nodes     {len(case.nodes)} for {case.seconds:g} s and {case.settling:g} s of settling"
        + (", objects" if case.objects else ""),
        f"  versions  {', '.join(f'{name} {version}' for name, version in versions().items())}",
        f"  reached   {sim.time:.6f} s, event {sim.trace.events}, step {sim._engine.steps}, hash {sim.trace.hash}",
    ]
    if again:
        lines.append(f"  again     {again}")
    if not isinstance(error, Violation):
        lines += ["", *_where(error)]
    if isinstance(error, Violation) and error.pair is not None:
        one, other = error.pair
        observers = sim._engine.observers
        lines += ["", "The last link of these two:"]
        lines += [f"  {observers.last_link(*pair)}" for pair in ((one, other), (other, one)) if pair[0] in sim.nodes]
    lines += ["", f"The last {_ACTIONS} faults:", *last_faults(sim)]
    lines += ["", "What happened last:", *last_events(sim)]
    lines += ["", "How each node sees it:", *views(sim)]
    lines += ["", "The request that was handled last:", *current_story(sim)]
    lines += ["", "What became of other calls:", *stories(sim)]
    lines += ["", "See it again:"]
    lines += [f"  {line}" for line in (command(case), f"mpreg replay {saved}" if saved else "") if line]
    return "\n".join(lines)


def last_events(sim: Simulation, count: int = LAST) -> list[str]:
    """Return the last events and the actions between them, one on each line."""
    events = list(sim.trace.recorded)[-count:]
    since = events[0].at if events else 0
    rows: list[tuple[int, str]] = [(event.at, describe_event(event)) for event in events]
    rows += [(action.at, describe_action(action)) for action in sim.trace.script if action.at >= since]
    return [f"  {line}" for _, line in sorted(rows, key=lambda row: row[0])]


def last_faults(sim: Simulation, count: int = _ACTIONS) -> list[str]:
    """Return the last actions on the cluster that are no requests, one on each line."""
    faults = [action for action in sim.trace.script if action.name not in _NO_FAULTS]
    return [f"  {describe_action(action)}" for action in faults[-count:]] or ["  none"]


_NO_FAULTS = ("submit", "cancel", "add_client", "send_json", "judge")


def describe_event(event: Event) -> str:
    """Return one event as a line of text."""
    what = {
        "data": f"gets {event.size} bytes from {event.other}" + (f" ({event.label})" if event.label else ""),
        "message": f"gets {event.text} from {event.other}",
        "connect": f"opened a link to {event.other}",
        "closed": f"has lost a link with {event.other}",
        "refused": f"cannot reach {event.other}",
        "run": f"starts {event.text}",
        "end": f"finished {event.text}",
        "wake": "timer due",
    }.get(event.kind, f"{event.kind} {event.other} {event.text}")
    return f"{event.at / 1e9:12.6f} s  {event.host:<10} {what}"


def describe_action(action: Action) -> str:
    """Return one action on the cluster as a line of text."""
    return f"{action.at / 1e9:12.6f} s  >>> {action_text(action)}"


def action_text(action: Action) -> str:
    """Return an action as text, without its time."""
    args = action.args
    match action.name:
        case "crash" | "vanish":
            return f"{action.name} {args.get('name', args.get('client'))}{' silently' if args['silent'] else ''}"
        case "stall":
            return f"stall {args['name']} for {args['seconds']:.3f} s"
        case "crash_amid":
            return f"crash {args['name']} after {args['effects']} effects of an input"
        case "kill_link":
            return f"a link between {args['one']} and {args['other']} dies without a word"
        case "skew":
            return f"skew {args['name']} by {args['drift']:+.2e}"
        case "partition":
            arrow = "->" if args["oneway"] else "<->"
            return f"partition {', '.join(args['one'])} {arrow} {', '.join(args['other'])}"
        case "submit":
            calls = unpacked(args["request"]).calls
            names = ", ".join(call.function for call in calls[:4]) + (" ..." if len(calls) > 4 else "")
            return f"{args['client']} asks {args['node']} for {names} ({request_name(args['label'], args['node'])})"
        case "add_client":
            return f"{args['client']} is a client of {args['node']}, framing {args['framing']}"
        case "send_json":
            return f"{args['client']} sends {args['node']} {args['text'][:60]}"
        case "submit_own":
            calls = unpacked(args["request"]).calls
            return f"{args['node']} itself submits {', '.join(call.function for call in calls[:4])} ({args['label']})"
        case "cancel_own":
            return f"the node itself cancels its request {args['label']}"
        case "query":
            what = "for its view" if args["request"] is None else "where calls would run"
            return f"{args['client']} asks {args['node']} {what}"
        case "post":
            return f"{args['client']} posts to {args['node']} {args['text'][:60]}"
        case "set_resources":
            return f"{args['name']} holds {', '.join(args['resources']) or 'no resources'}"
        case "advertise":
            return f"{args['name']} advertises {', '.join(args['addresses']) or 'no address'}"
        case "cancel":
            return f"cancel request {args['label']}"
        case "set_link":
            return f"link {args['source']} -> {args['target']}: {describe_profile(args['profile'])}"
        case "set_links":
            return f"all links: {describe_profile(args['profile'])}"
        case "offer" | "withdraw":
            return f"{args['name']} {action.name}s {args['function']}"
        case "calm":
            return "faults stop"
        case "judge":
            return "liveness is checked"
    return " ".join([action.name, *(str(value) for value in args.values())])


def describe_profile(profile: dict[str, Any]) -> str:
    """Return the profile of a link in a script as text."""
    kind, low, high = profile["delay"]
    words = [f"delay {kind} {max(low, high) / 1e6:g} ms"]
    words += [f"{name} {profile[name]:g}" for name in ("bandwidth", "reset", "rechunk", "hangs") if profile.get(name)]
    return ", ".join(words)


def views(sim: Simulation) -> list[str]:
    """Return the view that each node has of the cluster, two lines each."""
    lines: list[str] = []
    for host in sim.nodes.values():
        lines += node_view(host)
    return lines


def current_story(sim: Simulation) -> list[str]:
    """Return the whole story of the request that the watchers looked at last, as long as its coordinator lives."""
    key = sim._engine.observers.current
    if key is None:
        return []
    host = sim.nodes.get(key.host)
    if host is None or not host.alive or host.life != key.life:
        return [f"  its coordinator {key.host} has ended since then, and its story with it"]
    return story_lines(host, host.node.coordinator.story(RequestId(key.number)))


def stories(sim: Simulation) -> list[str]:
    """Return the story of the newest open requests of each node, and the last steps of those that have ended."""
    lines: list[str] = []
    key = sim._engine.observers.current
    for host in sim.nodes.values():
        if host.alive:
            skipped = key.number if key is not None and (key.host, key.life) == (host.name, host.life) else 0
            in_flight = host.node.coordinator.in_flight
            for execution in list(in_flight.requests.values())[-_REQUESTS:]:
                if execution.id != skipped:
                    lines += story_lines(host, execution.story, most=_STEPS)
            lines += story_lines(host, [row for row in in_flight.ended if row.request != skipped], most=_STEPS)
    return lines


_STEP_WORDS = {
    CallState.WAITING: "waits for its dependencies",
    CallState.READY: "is ready",
    CallState.PENDING: "waits",
    CallState.DISPATCHED: "was sent to {node}",
    CallState.POSSIBLY_STARTED: "was sent to {node} (not idempotent)",
    CallState.DONE: "is done at {node}",
    CallState.FAILED: "failed",
    CallState.CANCELLED: "was cancelled",
    CallState.SKIPPED: "was skipped",
}


def story_lines(host: NodeHost, rows: Sequence[StoryRow], *, most: int | None = None) -> list[str]:
    """Return steps as lines of at most 100 columns, a heading for each request, times of the simulation.

    Only the last `most` rows are shown, and the number of those left out.
    """
    shown = rows if most is None else rows[-most:]
    lines = [f"  {host.name}: {len(rows) - len(shown)} earlier steps are left out"] if len(shown) < len(rows) else []
    request: RequestId | None = None
    for row in shown:
        if row.request != request:
            request = row.request
            lines.append(f"  {_name_of(host, request)}")
        lines += textwrap.wrap(_step(host, row), 100, initial_indent="    ", subsequent_indent=" " * 20)
    return lines


def _name_of(host: NodeHost, request: RequestId) -> str:
    """Return the name of a request of the present coordinator of a node."""
    execution = host.node.coordinator.requests.get(request)
    if execution is not None:
        return name_of_execution(host, execution)
    observers = host.sim.observers
    key = (host.name, host.life, (host.era << 40) + request)
    caller = observers.callers.get(key) if isinstance(observers, ObserverHub) else None
    return (caller and name_by_number(host.sim, *caller)) or f"request #{request} of {host.name}"


def _step(host: NodeHost, row: StoryRow) -> str:
    words = _STEP_WORDS[row.state]
    what = words.replace("{node}", row.node) if "{node}" in words or not row.node else f"{words}, after {row.node}"
    why = f": {row.reason}" if row.reason else ""
    return f"{host.clock.when(row.at) / 1e9:.6f} s  {row.call!r} {what}{why}"


def node_view(host: NodeHost) -> list[str]:
    """Return the view that one node has of the cluster and itself."""
    if not host.alive:
        return [f"  {host.name:<6} does not run" + (" (it has left)" if host.node.left else f" (life {host.life})")]
    view = host.node.view(now=host.local)
    members = _grouped((row.shown, row.standing.lower()) for row in view.members if not row.me)
    return [
        f"  {view.shown:<12} {view.requests} requests, {view.running} running, {view.queued} queued, {view.links} links"
        + (", draining" if view.draining else "")
        + ("" if host.stalled_until <= host.sim.now else ", stalled"),
        *(f"               {standing}: {', '.join(names)}" for standing, names in members.items()),
    ]


def _grouped(rows: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for shown, standing in rows:
        grouped.setdefault(standing, []).append(shown)
    return grouped


def _where(error: Exception) -> Sequence[str]:
    """Return the place of an exception: its last frames, which are the most useful."""
    return traceback.format_exception(type(error), error, error.__traceback__, limit=-6, chain=False)


def describe_script(script: Iterable[Action]) -> list[str]:
    """Return a script as text, one action on each line."""
    return [describe_action(action) for action in script]
