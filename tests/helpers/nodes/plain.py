"""A plain node as a process: told what to be in one JSON argument, says its address in one line, serves until told.

It offers `where`, the same on all, and `of-NAME`, its own. When its stdin ends, it does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import anyio
from anyio.abc import TaskStatus

from mpreg_transports import Server


class Plain(Server):
    """A server that says where it listens."""

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """See `Server.serve`."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(super().serve)
            print(json.dumps({"url": self.url}), flush=True)
            task_status.started()


def _follow_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    """Be that node until told to end."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    threading.Thread(target=_follow_parent, daemon=True).start()
    server = Plain(name=told["name"], port=told["port"], peers=told["peers"])
    server.register("where", lambda: server.name, inline=True)
    server.register(f"of-{server.name}", lambda: server.name, inline=True)
    server.run()


if __name__ == "__main__":
    main()
