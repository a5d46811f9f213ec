"""Standard streams that outlive their readers: a closed stdout is no error of a command.

`mpreg nodes | head -1` closes the pipe while there is more to print; a service manager may start a command with closed
streams; a terminal may be closed. Later output is dropped, and commands continue and end with their own exit code. A
stdout that cannot be written for another reason, such as a full disk, is an error, raised once; stderr never is.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from mpreg_transports.config.system_errors import error_reason

_READER_GONE = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET, errno.EBADF, errno.ENXIO)
_ERRORS = "backslashreplace"
"""The error handler for characters that a terminal cannot show."""


class _TolerantWriter(io.FileIO):
    """A writer to a descriptor. After its reader has ended, it drops all output."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        self.reader_gone = False
        self._raised = number == 2

    def write(self, data: object, /) -> int | None:  # type: ignore[override]  # the buffer protocol, as in FileIO
        """Write as `io.RawIOBase.write` does. All data is accepted after the reader has ended."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            hung_up = error.errno == errno.EIO and os.isatty(self.fileno())
            if error.errno in _READER_GONE or hung_up:
                self._give_up()
            elif not self._raised:
                self._raised = True
                raise OSError(f"cannot write to stdout: {error_reason(error)}") from None
        return memoryview(data).nbytes  # type: ignore[arg-type]

    def _give_up(self) -> None:
        """Redirect the descriptor to the null device, also for child processes and other writers."""
        self.reader_gone = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.fileno())
        finally:
            os.close(nowhere)


def tolerate_closed_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` if they are the process's own.

    Descriptors that were closed at the start are opened to the null device.
    """
    _open_closed()
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for the rest of the process
            setattr(sys, name, stream)
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _tolerant(stream))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def reader_gone() -> bool:
    """Return whether stdout has lost its reader, so that a long output may end early."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _TolerantWriter) and raw.reader_gone


def _tolerant(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return the same stream over a `_TolerantWriter`. The old one stays open, because the interpreter holds it."""
    try:
        stream.flush()
        raw = _TolerantWriter(stream.fileno())
    except (OSError, ValueError):
        stream.reconfigure(errors=_ERRORS)
        return stream
    through = stream.write_through
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=_ERRORS,
        line_buffering=stream.line_buffering or through,
        write_through=through,
    )


def _open_closed() -> None:
    """Open each closed standard descriptor to the null device, so that no socket gets its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
