"""A node as a child process of `mpreg dev` or `demo`, configured by one JSON argument. It does not outlive its parent.

Its stdin is a pipe that only its parent holds: when the pipe ends, for whatever reason the parent ended, the node
leaves. When it listens it writes its address as one line of JSON to stdout. Its log goes to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from mpreg_transports.config.settings import Value


def command(target: str | None, settings: dict[str, Value]) -> list[str]:
    """Return the command that starts a child; the keys of `settings` are names of flags."""
    spec = json.dumps({"target": target, "settings": settings})
    return [sys.executable, "-m", "mpreg_transports.cli.node_process", spec]


def environment() -> dict[str, str]:
    """Return the environment of a child: all variables except the settings, which its parent has read already."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MPREG_") or name == "MPREG_DEBUG"}


def main() -> NoReturn:
    """Run the node until SIGTERM."""
    from mpreg_transports.cli.errors import report_error
    from mpreg_transports.cli.log_handler import log_to_stderr
    from mpreg_transports.cli.streams import tolerate_closed_streams
    from mpreg_transports.cli.target import prepare

    tolerate_closed_streams()
    threading.Thread(target=_follow_parent, name="mpreg parent", daemon=True).start()
    spec = json.loads(sys.argv[1])
    flags = {name: tuple(value) if isinstance(value, list) else value for name, value in spec["settings"].items()}
    try:
        server = prepare(spec["target"], flags, Path(os.devnull))
        log_to_stderr()
        server.run_until_signal(lambda: print(json.dumps({"name": server.name, "url": server.url}), flush=True))
    except (Exception, BaseExceptionGroup) as error:
        sys.exit(report_error(error))
    end_process()


def _follow_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock a thread must not hold at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def end_process(code: int = 0) -> NoReturn:
    """End without waiting for threads: functions that cannot be interrupted may run in them for ever."""
    import logging

    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader has ended
            stream.flush()
    main = threading.main_thread()
    if any(thread is not main and not thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
