"""A plain node as a process: configured by one JSON argument, prints its address in one line, serves until a signal.

It offers `where`, the same on all nodes, and its own `of-NAME`. The process ends when its stdin ends.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.helpers.nodes.child import Announced, end_with_parent


def main() -> None:
    """Run that node until a signal."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    end_with_parent()
    server = Announced(name=arguments["name"], port=arguments["port"], peers=arguments["peers"])
    server.register("where", lambda: server.name, inline=True)
    server.register(f"of-{server.name}", lambda: server.name, inline=True)
    server.run()


if __name__ == "__main__":
    main()
