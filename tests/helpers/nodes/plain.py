"""A plain node as a process: told what to be in one JSON argument, says its address in one line, serves until told.

It offers `where`, the same on all, and `of-NAME`, its own. When its stdin ends, it does.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.helpers.nodes.child import Announced, end_with_parent


def main() -> None:
    """Be that node until told to end."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    end_with_parent()
    server = Announced(name=arguments["name"], port=arguments["port"], peers=arguments["peers"])
    server.register("where", lambda: server.name, inline=True)
    server.register(f"of-{server.name}", lambda: server.name, inline=True)
    server.run()


if __name__ == "__main__":
    main()
