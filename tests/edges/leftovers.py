"""The leftovers that a cell may not have: entries in tables, bodies in threads, tasks, timers, links, values.

Only this module of the edge matrix reads private parts. It finds tables by walking the objects, so that a new table
needs no entry here; tables that grow by design are listed with the reason.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio.lowlevel

from mpreg_proto.timers import REQUEST_TIMERS, TimerKind, Timers
from mpreg_transports import Server
from tests.edges import bodies
from tests.edges.house import House, in_own_thread_names

_KEPT = {
    "_heap": "rows of cancelled timers, swept once they are more than half (timers.py)",
    "_closed": "the numbers of the links that were closed last, a bounded table (links.py)",
    "ended": "the stories of the requests that ended last, a bounded deque (coordinator.py)",
}
"""Attributes that are not counted, and the reasons."""
_TIMERS = 4
"""One timer of each node, and two of the test's own waits."""
_BODIES = str(Path(bodies.__file__))


def leftovers(house: House, *, outside: dict[str, int]) -> list[str]:
    """Return what is left now, as text; `outside` is what existed before the cell."""
    found = []
    for server in house.nodes:
        found += _of_node(server)
    now = around()
    found += [f"{name}: {now[name]}, before {outside[name]}" for name in now if now[name] > outside[name]]
    if (timers := loop_timers()) > _TIMERS:
        found.append(f"timers of the event loop: {timers}, at most {_TIMERS}")
    found += [f"a body still runs in {name}" for name in bodies_in_threads()]
    if bodies.LIVE:
        gc.collect()
    found += [f"a value is kept: {value!r}, by {_holders(value)}" for value in list(bodies.LIVE)[:3]]
    return found


def tables(house: House) -> dict[str, int]:
    """Return the size of every table of the machines and drivers that carry requests."""
    sizes: dict[str, int] = {}
    for server in house.nodes:
        driver = server._driver
        if driver is None:
            continue
        node = driver.node
        for part in ("worker", "coordinator", "relay", "replies", "links"):
            for path, size in _walk(getattr(node, part), part, seen=set()):
                sizes[f"{server.name}.{path}"] = size
        sizes[f"{server.name}.driver._links"] = len(driver._links)
        sizes[f"{server.name}.driver._running"] = len(driver._running)
    return sizes


def around() -> dict[str, int]:
    """Return the number of tasks and threads of this process."""
    counts = {"threads": len([name for name in in_own_thread_names() if name != "mpreg function"])}
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        counts["trio tasks"] = trio.lowlevel.current_statistics().tasks_living
    else:
        counts["asyncio tasks"] = len(asyncio.all_tasks(loop))
    return counts


def loop_timers() -> int:
    """Return the number of timers of the event loop; 0 for uvloop, which does not show them."""
    try:
        scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    except RuntimeError:
        from trio._core._run import GLOBAL_RUN_CONTEXT

        return int(GLOBAL_RUN_CONTEXT.runner.deadlines._active)
    return sum(not handle._cancelled for handle in scheduled)


def bodies_in_threads() -> list[str]:
    """Return the names of threads in which a body of the matrix runs."""
    import threading

    names = {one.ident: one.name for one in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        at: Any = frame
        while at is not None:
            if at.f_code.co_filename == _BODIES and at.f_code.co_name in ("_perform", "_hold"):
                found.append(names.get(ident, str(ident)))
                break
            at = at.f_back
    return found


def _of_node(server: Server) -> Iterator[str]:
    """Yield calls, slots, timers and links of one node that should not exist."""
    driver = server._driver
    if driver is None:
        yield f"{server.name}: does not run"
        return
    view = server.view()
    for name in ("requests", "running", "queued"):
        if getattr(view, name):
            yield f"{server.name}: view.{name} is {getattr(view, name)}"
    if view.links > 1:
        yield f"{server.name}: view.links is {view.links}, and only the other node should be linked"
    busy = {name: count for name, count in driver.node.worker._busy.items() if count}
    if busy:
        yield f"{server.name}: worker._busy is {busy}"
    if driver._running:
        yield f"{server.name}: the driver still runs {len(driver._running)} bodies"
    timers = [key for key in driver.node._timers._at if key[0] in (*REQUEST_TIMERS, TimerKind.GOODBYE)]
    if timers:
        yield f"{server.name}: timers {timers}"


def _walk(owner: Any, path: str, *, seen: set[int]) -> Iterator[tuple[str, int]]:
    """Yield the tables among the attributes of a machine and of its parts."""
    if id(owner) in seen or isinstance(owner, Timers):
        return
    seen.add(id(owner))
    for name, value in _attributes(owner):
        if name in _KEPT:
            continue
        if isinstance(value, Mapping):
            zero = all(type(entry) is int for entry in value.values())
            yield f"{path}.{name}", sum(entry != 0 for entry in value.values()) if zero else len(value)
        elif isinstance(value, (list, set, deque)):
            yield f"{path}.{name}", len(value)
        elif type(value).__module__.startswith(("mpreg_proto.requests", "mpreg_proto.links")):
            yield from _walk(value, f"{path}.{name}", seen=seen)


def _attributes(owner: Any) -> list[tuple[str, Any]]:
    slots = [name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ())]
    found = {name: getattr(owner, name) for name in slots if hasattr(owner, name) and name != "__weakref__"}
    found.update(getattr(owner, "__dict__", {}))
    return sorted(found.items())


def _holders(value: Any) -> str:
    """Return what refers to a value, as a rough text for people."""
    kinds = []
    for one in gc.get_referrers(value):
        if type(one).__name__ == "frame":
            kinds.append(
                f"frame {one.f_code.co_qualname if hasattr(one.f_code, 'co_qualname') else one.f_code.co_name}"
            )
        elif one is not value:
            kinds.append(type(one).__name__)
    return ", ".join(sorted(set(kinds))[:6]) or "no referrer any more"


async def settled(look: Any, *, seconds: float) -> list[str]:
    """Return the last result of `look`, polled until it is empty or the time is over."""
    found: list[str] = look()
    with anyio.move_on_after(seconds):
        while found:
            await anyio.sleep(0.005)
            found = look()
    return found
