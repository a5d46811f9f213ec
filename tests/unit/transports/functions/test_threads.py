"""The threads of one event loop and their replacement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mpreg_transports.functions.threads import WorkerThreads, use_threads, worker_threads

pytestmark = pytest.mark.anyio


class Recorded:
    """Runs nothing."""

    def start(self, call: Callable[[], Any], done: Callable[[Any], None], soon: Callable[..., None]) -> None:
        raise AssertionError("nothing is started here")


async def test_each_event_loop_has_worker_threads() -> None:
    found = worker_threads()
    assert type(found) is WorkerThreads
    assert worker_threads() is found


async def test_use_threads_replaces_those_of_the_running_event_loop() -> None:
    before, replacement = worker_threads(), Recorded()
    use_threads(replacement)
    assert worker_threads() is replacement
    use_threads(before)
