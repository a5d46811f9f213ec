"""The command line `mpreg`: one file for each family of commands, each a thin layer over `Server` and `Client`.

`main` is the entry point of the console script. It imports what a command needs only when that command runs, so that
`--help` is quick. It is also the only place where an error becomes text and an exit code.
"""

from __future__ import annotations

__all__ = ["main"]

_INTERRUPTED = 130
"""The exit code of typer after Ctrl-C. `main` replaces it by the code in docs/reference/errors.md."""


def main() -> None:
    """Run the command line in `sys.argv` and end the process with its exit code."""
    import sys

    from mpreg_transports.cli.app import build
    from mpreg_transports.cli.streams import tolerate_closed_streams

    tolerate_closed_streams()
    try:
        build()(prog_name="mpreg")
    except (Exception, BaseExceptionGroup) as error:
        from mpreg_transports.cli.errors import report_error

        sys.exit(report_error(error))
    except SystemExit as end:
        if end.code != _INTERRUPTED:
            raise
        from mpreg_transports.cli.errors import report_error

        sys.exit(report_error(KeyboardInterrupt()))
