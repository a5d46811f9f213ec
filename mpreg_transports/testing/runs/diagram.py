"""Space-time diagrams of recorded runs as SVG (after Lamport 1978).

Hosts are lines, time goes down, and messages are arrows. Crashes, stalls and partitions are marked, and bodies are
bars. A short period is drawn in detail: each message has its name, and the time axis is stretched where much happens. A
long period is drawn as an overview with a linear time axis. The file is self-contained.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import log10

from mpreg_transports.testing.runs.failures import action_text
from mpreg_transports.testing.runs.svg import Canvas
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.trace import Action, Event

DETAILED = 400
"""The number of messages up to which a diagram is drawn in detail."""
_LANES = {True: 150, False: 90}
"""The distance between two hosts, by whether the diagram is detailed."""
_LEFT = 110
_TOP = 64
_RIGHT = 300
_WORDS = 52
"""The number of letters that fit at the right."""
_REQUESTS = {
    "Request": "#1f6fb2",
    "Result": "#2a8a4a",
    "CancelRequest": "#b8651b",
    "Goodbye": "#8a3fa0",
    "Refused": "#b02a2a",
}
"""The colours of the most important messages; all others are grey."""
_QUIET = ("set_link", "set_links", "submit", "add_client", "send_json", "judge", "skew")
"""The actions that are not written at the right margin of an overview."""


def plot(sim: Simulation, *, since: float = 0.0, until: float | None = None, hosts: Sequence[str] | None = None) -> str:
    """Return a diagram of a recorded simulation (`recording=True`), all of it or from `since` to `until` seconds.

    `hosts`: only these hosts, in this order.
    """
    return diagram(
        sim.trace.recorded,
        sim.trace.script,
        names=[host.name for host in sim._engine.hosts],
        title=f"seed {sim.seed}" + (f", {sim._scenario}" if sim._scenario else ""),
        violation=sim.violation,
        end=sim.now,
        since=round(since * SECOND),
        until=None if until is None else round(until * SECOND),
        hosts=hosts,
    )


def diagram(
    events: Iterable[Event],
    script: Iterable[Action],
    *,
    names: Sequence[str],
    title: str = "",
    violation: str = "",
    end: int,
    since: int = 0,
    until: int | None = None,
    hosts: Sequence[str] | None = None,
) -> str:
    """Return a diagram of the parts of a saved run. Times are in nanoseconds.

    Raises ValueError if nothing was recorded in the period.
    """
    last = end if until is None else min(until, end)
    shown = [event for event in events if since <= event.at <= last and event.kind != "wake"]
    if not shown:
        raise ValueError(f"nothing was recorded between {since / SECOND:g} s and {last / SECOND:g} s")
    since = max(since, min(min(event.at, event.sent if event.sent >= 0 else event.at) for event in shown))
    drawing = _Drawing(shown, list(script), names=names, hosts=hosts, since=since, until=last)
    return drawing.svg(title=title, violation=violation)


class _Scale:
    """A map from time to height: linear in an overview, stretched where much happens in a detailed diagram."""

    def __init__(self, moments: Sequence[int], *, detailed: bool) -> None:
        self._moments = sorted(dict.fromkeys(moments))
        self._heights = [float(_TOP)]
        total = max(1, self._moments[-1] - self._moments[0])
        factor = min(6000.0, max(600.0, total / SECOND * 45)) / total
        for before, after in zip(self._moments, self._moments[1:], strict=False):
            gap = after - before
            step = 4 + 7 * log10(1 + gap / 1e5) if detailed else gap * factor
            self._heights.append(self._heights[-1] + step)

    @property
    def bottom(self) -> float:
        """The height at the end."""
        return self._heights[-1]

    def y(self, at: int) -> float:
        """Return the height of a time."""
        place = bisect_right(self._moments, at)
        if place == 0:
            return self._heights[0]
        if place == len(self._moments):
            return self._heights[-1]
        start, stop = self._moments[place - 1], self._moments[place]
        share = (at - start) / (stop - start)
        return self._heights[place - 1] + share * (self._heights[place] - self._heights[place - 1])


class _Drawing(Canvas):
    """A diagram under construction."""

    def __init__(
        self,
        events: Sequence[Event],
        script: Sequence[Action],
        *,
        names: Sequence[str],
        hosts: Sequence[str] | None,
        since: int,
        until: int,
    ) -> None:
        super().__init__()
        self.events = events
        self.script = script
        self.since, self.until = since, until
        self.detailed = sum(event.sent >= 0 for event in events) <= DETAILED
        self.lane = _LANES[self.detailed]
        acting = dict.fromkeys(name for event in events for name in (event.host, event.other))
        taking_part = [name for name in names if name in acting or "@" not in name]
        self.hosts = list(hosts) if hosts is not None else beside(taking_part)
        self.x = {name: _LEFT + self.lane * index + self.lane // 2 for index, name in enumerate(self.hosts)}
        moments = [since, until, *(event.at for event in events), *(max(since, event.sent) for event in events)]
        moments += [action.at for action in script if since <= action.at <= until]
        self.scale = _Scale(moments, detailed=self.detailed)

    def svg(self, *, title: str, violation: str) -> str:
        """Return the whole picture."""
        width = _LEFT + self.lane * len(self.hosts) + _RIGHT
        height = round(self.scale.bottom) + 60
        self._partitions(width)
        self._axis(width)
        self._lifelines()
        self._bodies()
        self._messages()
        self._others()
        self._actions(width)
        if violation:
            y = self.scale.y(self.until)
            self.line(_LEFT - 20, y, width - 10, y, stroke="#c00000", width=2)
            self.text(_LEFT - 20, y + 16, violation[:150], "deed")
        kind = "time is stretched where much happens" if self.detailed else "true time"
        head = f"{title}: {self.since / SECOND:.3f} s to {self.until / SECOND:.3f} s ({kind})"
        self.text(12, 18, head, "title")
        self._legend()
        return self.page(width, height)

    # -- hosts and time -----------------------------------------------------------------------------------------------

    def _axis(self, width: int) -> None:
        """Draw the times at the left, with a readable distance between them."""
        above = -100.0
        ticks = sorted({event.at for event in self.events}) if self.detailed else self._seconds()
        for at in ticks:
            y = self.scale.y(at)
            if y - above >= (26 if self.detailed else 20):
                above = y
                digits = 6 if self.detailed else 0 if at % SECOND == 0 else 1
                self.line(_LEFT - 14, y, width - _RIGHT, y, stroke="#eee")
                self.text(_LEFT - 20, y + 4, f"{at / SECOND:.{digits}f} s", "small dim", anchor="end")

    def _seconds(self) -> list[int]:
        return [second * SECOND for second in range(-(-self.since // SECOND), self.until // SECOND + 1)]

    def _lifelines(self) -> None:
        """Draw a line for each host, dashed while its process does not run, boxed while it is stalled."""
        for name in self.hosts:
            x, top, bottom = self.x[name], self.scale.y(self.since), self.scale.bottom
            self.text(x, _TOP - 12, name, "host", anchor="middle")
            self.line(x, top, x, bottom, stroke="#bbb" if "@" in name else "#555", width=1.4)
            for start, stop in self._downs(name):
                self.line(x, self.scale.y(start), x, self.scale.y(stop), stroke="white", width=3)
                self.line(x, self.scale.y(start), x, self.scale.y(stop), stroke="#d9a0a0", dash="2 5")
            for start, stop in self._stalls(name):
                y = self.scale.y(start)
                self.rect(x - 7, y, 14, max(2.0, self.scale.y(stop) - y), "#7a7a7a", opacity=0.35)

    def _downs(self, name: str) -> list[tuple[int, int]]:
        """Return the periods in which the process of a node did not run, within the diagram."""
        spans: list[tuple[int, int]] = []
        down: int | None = None
        for action in self.script:
            if action.args.get("name") == name and action.name in ("crash", "leave", "restart"):
                if action.name == "restart":
                    if down is not None:
                        spans.append((down, action.at))
                    down = None
                elif down is None:
                    down = action.at if action.name == "crash" else self._gone(name, action.at)
        if down is not None:
            spans.append((down, self.until))
        return self._within(spans)

    def _gone(self, name: str, at: int) -> int | None:
        """Return the time of the last event of a node that began to leave at `at`."""
        back = [a.at for a in self.script if a.name == "restart" and a.args["name"] == name and a.at >= at]
        limit = back[0] if back else self.until + 1
        own = [event.at for event in self.events if event.host == name and at <= event.at < limit]
        return own[-1] if own else at

    def _stalls(self, name: str) -> list[tuple[int, int]]:
        return self._within(
            (action.at, action.at + round(action.args["seconds"] * SECOND))
            for action in self.script
            if action.name == "stall" and action.args["name"] == name
        )

    def _within(self, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        return [
            (max(start, self.since), min(stop, self.until))
            for start, stop in spans
            if stop >= self.since and start <= self.until
        ]

    # -- what happened ------------------------------------------------------------------------------------------------

    def _partitions(self, width: int) -> None:
        """Draw a band from each partition to its healing."""
        started: int | None = None
        spans: list[tuple[int, int]] = []
        for action in self.script:
            if action.name == "partition" and started is None:
                started = action.at
            elif action.name in ("heal", "calm") and started is not None:
                spans.append((started, action.at))
                started = None
        if started is not None:
            spans.append((started, self.until))
        for start, stop in self._within(spans):
            y = self.scale.y(start)
            self.rect(
                _LEFT - 14, y, width - _RIGHT - _LEFT + 14, max(2.0, self.scale.y(stop) - y), "#f2b6a0", opacity=0.3
            )

    def _bodies(self) -> None:
        """Draw a bar from each body's start to its end, beside the line of its host."""
        open_: dict[tuple[str, str], list[int]] = {}
        for event in self.events:
            if event.kind == "run":
                open_.setdefault((event.host, event.text), []).append(event.at)
            elif event.kind == "end" and open_.get((event.host, event.text)):
                self._bar(event.host, event.text, open_[event.host, event.text].pop(0), event.at)
        for (host, text), starts in open_.items():
            for start in starts:
                stop = min((down for down, _ in self._downs(host) if down >= start), default=self.until)
                self._bar(host, text, start, stop)

    def _bar(self, host: str, text: str, start: int, stop: int) -> None:
        if host in self.x:
            y = self.scale.y(start)
            self.rect(self.x[host] - 3, y, 6, max(2.0, self.scale.y(stop) - y), "#e0a030", opacity=0.85, title=text)
            if self.detailed:
                self.text(self.x[host] + 7, y + 9, text, "small")

    def _messages(self) -> None:
        """Draw an arrow for each message, the grey ones below the others."""
        coloured: list[Event] = []
        for event in self.events:
            if event.sent >= 0 and event.host in self.x and event.other in self.x:
                if (event.label or event.text) in _REQUESTS:
                    coloured.append(event)
                else:
                    self._arrow(event, "#b4b4b4")
        for event in coloured:
            self._arrow(event, _REQUESTS[event.label or event.text])

    def _arrow(self, event: Event, colour: str) -> None:
        x1, x2 = self.x[event.other], self.x[event.host]
        y1, y2 = self.scale.y(max(event.sent, self.since)), self.scale.y(event.at)
        name = event.label or event.text or "bytes"
        thin = colour == "#b4b4b4"
        width = (0.8 if thin else 1.3) if self.detailed else (0.4 if thin else 0.8)
        self.line(
            x1, y1, x2, y2, stroke=colour, width=width, title=f"{name}, {event.size} bytes" if event.size else name
        )
        way = 1 if x2 > x1 else -1
        size = 5 if self.detailed else 2.5
        self.parts.append(
            f'<path d="M{x2:.1f} {y2:.1f}l{-way * size:.1f} {-size * 0.6:.1f}v{size * 1.2:.1f}z" fill="{colour}"/>'
        )
        if self.detailed:
            share = 0.3
            self.text(
                x1 + (x2 - x1) * share if abs(x2 - x1) > self.lane else (x1 + x2) / 2,
                y1 + (y2 - y1) * (share if abs(x2 - x1) > self.lane else 0.5) - 3,
                name,
                "small" + (" dim" if thin else ""),
                anchor="middle",
            )

    def _others(self) -> None:
        """Draw links that open and close, as small marks on the line of their host."""
        for event in self.events:
            if "@" in event.host and not self.detailed:
                continue
            if event.host in self.x and event.kind in ("connect", "closed", "refused"):
                colour = {"connect": "#2a8a4a", "closed": "#b02a2a", "refused": "#b8651b"}[event.kind]
                radius = 3 if self.detailed else 1.6
                self.parts.append(
                    f'<circle cx="{self.x[event.host]}" cy="{self.scale.y(event.at):.1f}" r="{radius}" fill="white" '
                    f'stroke="{colour}"><title>{escape(event.kind)} {escape(event.other)}</title></circle>'
                )

    def _actions(self, width: int) -> None:
        """Draw the actions on the cluster: a mark at the host and a text at the right.

        The text is as close to its time as is readable.
        """
        below = _TOP - 14.0
        for action in self.script:
            if not self.since <= action.at <= self.until:
                continue
            y = self.scale.y(action.at)
            self._mark(action, y)
            if action.name in _QUIET and not (self.detailed and action.name not in ("set_link", "set_links")):
                continue
            place = max(y + 3, below + 11)
            below = place
            x = width - _RIGHT
            self.line(x, y, x + 12, place - 3, stroke="#d8a0a0", width=0.7)
            style = "small dim" if action.name in ("submit", "send_json", "cancel") else "deed"
            self.text(x + 15, place, f"{action.at / SECOND:.3f} {action_text(action)}"[:_WORDS], style)

    def _mark(self, action: Action, y: float) -> None:
        x = self.x.get(str(action.args.get("name", action.args.get("client", ""))))
        if x is None:
            return
        if action.name in ("crash", "vanish"):
            self.line(x - 6, y - 6, x + 6, y + 6, stroke="#c00000", width=2.4)
            self.line(x - 6, y + 6, x + 6, y - 6, stroke="#c00000", width=2.4)
        elif action.name == "restart":
            self.parts.append(f'<circle cx="{x}" cy="{y:.1f}" r="5" fill="#2a8a4a"/>')
        elif action.name == "leave":
            self.rect(x - 5, y - 5, 10, 10, "#8a3fa0", opacity=0.9)

    def _legend(self) -> None:
        marks: Mapping[str, str] = {**_REQUESTS, "other messages": "#b4b4b4", "a body runs": "#e0a030"}
        x = 12
        for name, colour in marks.items():
            self.rect(x, 28, 12, 5, colour)
            self.text(x + 16, 34, name, "small")
            x += 28 + 6 * len(name)
        words = "cross: crash · dot: restart · purple square: leaves · grey box: stalled · red band: ways are cut"
        self.text(x + 10, 34, words, "small dim")


def beside(names: Sequence[str]) -> list[str]:
    """Return the names with each client left of its node."""
    nodes = [name for name in names if "@" not in name]
    clients = sorted(name for name in names if "@" in name)
    ordered: list[str] = []
    for node in nodes:
        ordered += [client for client in clients if client.endswith(f"@{node}")]
        ordered.append(node)
    return ordered + [client for client in clients if client not in ordered]
