"""The common part of nodes that a test starts as a process: print the address in one line, and end with the parent."""

from __future__ import annotations

import json
import os
import threading

import anyio
from anyio.abc import TaskStatus

from mpreg_transports import Server


class Announced(Server):
    """A server that prints its address: one line of JSON on stdout."""

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """See `Server.serve`."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(super().serve)
            print(json.dumps({"url": self.url, "port": self.port}), flush=True)
            task_status.started()


def end_with_parent() -> None:
    """End this process when stdin ends, from a thread of its own."""
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)
