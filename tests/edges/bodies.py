"""The bodies of the edge matrix: one for each way to run a function; the outcome in its argument decides what it does.

`STAGE` counts what bodies do and releases them; `LIVE` holds weak references to objects that must be freed when a cell
has ended. In a pool of processes the bodies wait at events that the pool's initializer sets.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import anyio
import anyio.lowlevel

from mpreg_transports.values import codec as plain_codec
from tests.edges import odd

PATIENCE = 30.0
"""Seconds until a body that is not released fails."""
PARCEL_CODE = 100
LIVE: WeakSet[Any] = WeakSet()
"""Values of bodies and of callers that still have a reference."""

HELD = (
    "deadline",
    "deadline-swallowed",
    "deadline-cleanup-raises",
    "deadline-queued",
    "cancelled",
    "cancelled-swallowed",
    "cancelled-queued",
    "unregistered",
    "unregistered-queued",
    "replaced",
    "vanishes",
    "vanishes-queued",
    "closes",
    "drains",
    "drains-without-grace",
    "blocks",
)
"""Outcomes whose body waits until the cell releases it."""


class Parcel:
    """A value of a user's type: it travels in arguments and results, and the leftover check can find it afterwards."""

    __slots__ = ("__weakref__", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        LIVE.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Parcel, (self.text,)

    def __repr__(self) -> str:
        return f"Parcel({self.text!r})"


def codec() -> Any:
    """The codec that nodes and clients of the matrix use."""
    made = plain_codec()
    made.register(
        PARCEL_CODE,
        Parcel,
        lambda parcel: parcel.text.encode(),
        lambda data: Parcel(bytes(data).decode()),
        json=lambda parcel: parcel.text,
    )
    return made


class Stage:
    """Counters and events of the bodies of one cell, read in the event loop and changed in any thread."""

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0
        self.cancelled = 0
        self.cleaned = 0
        """The number of coroutines that completed an await in `finally`."""
        self.go = threading.Event()
        self.on_start: Callable[[], None] = lambda: None
        """Called by an inline body that has an outcome of `HELD`."""


STAGE = Stage()
_pool_events: list[Any] = []


def new_stage() -> Stage:
    """Begin a cell with a new stage; return it."""
    global STAGE  # noqa: PLW0603
    STAGE = Stage()
    return STAGE


def join_pool(started: Any, go: Any) -> None:
    """Initialize a process of the pool."""
    _pool_events[:] = [started, go]


def plain(outcome: str, value: object = None) -> Any:
    """Run as the body of `def` and of executors: wait in the thread or process if the outcome requires it."""
    return _perform(outcome, value, hold=_hold)


def inline(outcome: str, value: object = None) -> Any:
    """Run as the inline body: never wait, but call the stage's `on_start` if the outcome requires it."""
    stage = STAGE
    return _perform(outcome, value, hold=stage.on_start)


async def coroutine(outcome: str, value: object = None) -> Any:
    """Run as the `async def` body: wait in the event loop if the outcome requires it."""
    stage = STAGE
    if outcome == "cancels-itself":
        _cancel_this_task()
        await anyio.lowlevel.checkpoint()
    if outcome not in HELD:
        return _perform(outcome, value, hold=None)
    ballast = Parcel("ballast")
    stage.started += 1
    try:
        while not stage.go.is_set():  # noqa: ASYNC110 - so that a cancellation may come just as a sleep ends
            await anyio.sleep(0.002)
    except anyio.get_cancelled_exc_class():
        stage.cancelled += 1
        if not outcome.endswith("-swallowed"):
            raise
    finally:
        try:
            with anyio.CancelScope(shield=outcome.endswith("-swallowed")):
                await anyio.lowlevel.checkpoint()
                stage.cleaned += 1
                if outcome == "deadline-cleanup-raises":
                    raise ValueError("cleaning up has failed")
        finally:
            stage.ended += 1
    return _result(outcome, value, ballast)


def _perform(outcome: str, value: object, *, hold: Callable[[], None] | None) -> Any:
    stage = STAGE
    ballast = Parcel("ballast")
    stage.started += 1
    try:
        if hold is not None and outcome in HELD:
            hold()
        if outcome == "pool-breaks":
            os._exit(1)
        maker = odd.EXCEPTIONS.get(outcome)
        if maker is not None:
            raise maker()
        return _result(outcome, value, ballast)
    finally:
        stage.ended += 1


def _cancel_this_task() -> None:
    stage = STAGE
    stage.started += 1
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    stage.ended += 1


def replacement(outcome: str, value: object = None) -> Any:
    """Run as the replacement of the function of a held body."""
    return "replaced"


def _hold() -> None:
    if _pool_events:
        started, go = _pool_events
        started.release()
        assert go.wait(PATIENCE), "this body was not released"
    else:
        assert STAGE.go.wait(PATIENCE), "this body was not released"


def _result(outcome: str, value: object, ballast: Parcel) -> Any:
    maker = odd.RESULTS.get(outcome)
    if maker is not None:
        return maker()
    given = value.text if isinstance(value, Parcel) else value
    return Parcel(f"{outcome} of {given} with {ballast.text}")
