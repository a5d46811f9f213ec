"""A node as a child of `mpreg dev` or `demo`: told what to be in one JSON argument, and never outlives its parent.

Its stdin is a pipe that only its parent holds: when that ends, however the parent ended, the node leaves. Once it
listens it says where in one line of JSON on stdout. What it has to say to people goes to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from mpreg_transports.settings import Value


def command(target: str | None, settings: dict[str, Value]) -> list[str]:
    """The command that starts such a child; `settings` by flags' names."""
    told = json.dumps({"target": target, "settings": settings})
    return [sys.executable, "-m", "mpreg_transports.cli.child", told]


def environment() -> dict[str, str]:
    """What a child inherits: all but the settings, which its parent has read already."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MPREG_") or name == "MPREG_DEBUG"}


def main() -> NoReturn:
    """Be that node until told to end."""
    from mpreg_transports.cli.serving import end_process, prepare
    from mpreg_transports.cli.streams import make_lasting
    from mpreg_transports.cli.talk import talk_by_log
    from mpreg_transports.cli.told import tell

    make_lasting()
    threading.Thread(target=_follow_parent, name="mpreg parent", daemon=True).start()
    told = json.loads(sys.argv[1])
    flags = {name: tuple(value) if isinstance(value, list) else value for name, value in told["settings"].items()}
    try:
        server = prepare(told["target"], flags, Path(os.devnull))
        talk_by_log()
        server.run_until_signal(lambda: print(json.dumps({"name": server.name, "url": server.url}), flush=True))
    except (Exception, BaseExceptionGroup) as error:
        sys.exit(tell(error))
    end_process()


def _follow_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock a thread must not hold at the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
