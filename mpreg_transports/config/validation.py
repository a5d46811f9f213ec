"""Checks of the arguments of `Server` and `register` before any use, with errors in the caller's terms.

Each function raises TypeError for a value of a wrong type, ValueError for an invalid value of the right type, and
changes nothing.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from mpreg_proto.describe import cut, short_name
from mpreg_proto.errors import MpregError
from mpreg_proto.limits import Limits
from mpreg_proto.wire.values import UnsendableValue
from mpreg_transports.config.addresses import Address, is_loopback, parse_address
from mpreg_transports.config.system_errors import error_reason, no_file_possible


class CannotJournal(MpregError, OSError):
    """The journal's file cannot be written. The text gives the reason and what to do."""


BACKENDS = ("asyncio", "trio")


_PLAIN: Final = frozenset({bool, int, float, bytes})
"""The types whose `repr` is always Python's own."""


def check_text(value: object, what: str, *, example: str) -> None:
    """Check a text, which may be empty.

    A subclass of str is refused: no message holds it, and it may format as anything.
    """
    if type(value) is not str:
        shown, kind = cut(repr(value), 80) if value is None or type(value) in _PLAIN else "...", short_name(type(value))
        raise TypeError(f"{what}={shown} is of type {kind}; write a text such as {what}={example!r}")
    check_encodable(value, what)


def check_encodable(text: str, what: str) -> None:
    """Raise ValueError for a text that no message can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} {text!r} cannot be sent: {error.reason}; write text that UTF-8 can encode") from None


def unsendable(call: str, error: UnsendableValue) -> TypeError:
    """Return the error for an argument that cannot be sent, with its place as the caller writes it.

    Places are such as `args[0].x` and `kwargs.rate`. The path of `error` lies within `[args, kwargs]`.
    """
    place = error.path.replace("$[0]", "args", 1).replace("$[1]", "kwargs", 1)
    return TypeError(f"call {call!r}: {place}: {error.type_name}: {error.reason}")


def check_port(port: object) -> None:
    """Check a port number, or 0 for any free port."""
    if type(port) is not int:
        raise TypeError(f"port={port!r} is of type {type(port).__name__}; write a whole number such as port=9001")
    if not 0 <= port <= 65_535:
        raise ValueError(f"port={port}: a whole number from 0 to 65535; 0 takes any free one")


def check_processes(processes: object) -> None:
    """Check the number of processes for `def` functions; 0 for none."""
    if type(processes) is not int:
        kind = type(processes).__name__
        raise TypeError(f"processes={processes!r} is of type {kind}; write a whole number such as processes=4")
    if not 0 <= processes <= 1_024:
        raise ValueError(f"processes={processes}: a whole number from 0 to 1024; with 0 def functions run in threads")


def check_name(name: object, what: str, limits: Limits) -> None:
    """Check a name: not empty, readable, and accepted by other nodes."""
    check_text(name, "name", example="worker")
    assert isinstance(name, str)
    if not name:
        raise ValueError(f"{what} is empty; leave name= out, or write some text")
    check_length(name, what, limits)


def check_length(text: str, what: str, limits: Limits) -> None:
    """Raise ValueError for a name that other nodes would refuse."""
    check_encodable(text, what)
    if len(text) > limits.name_length:
        raise ValueError(f"{what} has at most {limits.name_length} characters, not {len(text)}: {text[:40]}...")


def check_function(*, version: object, concurrency: object, queue: object, executor: object) -> None:
    """Check the options of `register` whose types are easily mistaken."""
    check_text(version, "version", example="2")
    if concurrency is not None and type(concurrency) is not int:
        raise TypeError(f"concurrency={concurrency!r} is of type {type(concurrency).__name__}; write a whole number")
    if queue is not None and type(queue) is not int:
        raise TypeError(f"queue={queue!r} is of type {type(queue).__name__}; write a whole number")
    if executor is not None and not isinstance(executor, Executor) and not callable(executor):
        raise TypeError(
            f"executor={executor!r} is of type {type(executor).__name__}, and no concurrent.futures Executor such as "
            "ThreadPoolExecutor(4), nor a function that makes one"
        )


CALL_KEYWORDS = ("resources", "kwargs", "timeout", "wait", "version", "retry", "on_progress")
"""The keywords of `Client.call` itself. A function's own keyword of such a name is passed in `kwargs=`."""


def warn_of_collisions(name: str, function: Callable[..., object]) -> None:
    """Warn of parameters that callers cannot pass as plain keywords, at the line that registers the function."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [one.name for one in parameters if one.kind in by_keyword and one.name in CALL_KEYWORDS]
    if taken:
        shown = ", ".join(f'"{one}": ...' for one in taken)
        warnings.warn(
            f"{name}: call() has {' and '.join(f'{one}=' for one in taken)} of its own; "
            f"callers pass yours as kwargs={{{shown}}}",
            stacklevel=_outside(),
        )


def _outside() -> int:
    """Return the `stacklevel` of the first caller outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("mpreg_transports."):
        frame, level = frame.f_back, level + 1
    return level


def check_backend(backend: str) -> None:
    """Check that anyio supports the event loop."""
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: " + " or ".join(f'"{name}"' for name in BACKENDS))


def refuse_open_host(host: str, *, insecure: bool, secret: bool = False) -> None:
    """Raise ValueError for an address that others can reach, unless there is a `secret`, or `insecure`."""
    if not insecure and not secret and not is_loopback(host):
        raise ValueError(
            f"refusing to listen on {host or 'all addresses'}: anybody who can reach it could run your functions. "
            "Make a secret for the cluster (mpreg secret new) and give it (--secret-file, secret_file=); or say "
            "--insecure (insecure=True) if the network is yours alone"
        )


def refuse_plain_text(address: str, what: str) -> None:
    """Raise ValueError for an address without TLS, where there is a secret."""
    parsed = parse_address(address)
    if not parsed.scheme.is_tls:
        secured = Address(parsed.scheme.with_tls, parsed.host, parsed.port, parsed.path)
        raise ValueError(f"{what} {address} is plain text, and with a secret all is encrypted; write {secured}")


def cannot_journal(file: Path, error: OSError) -> CannotJournal:
    """Return the error for a journal that cannot be written, with the reason."""
    if (why := no_file_possible(file, example="node.journal")) is None:
        taken = "there is such a file already, and it is no journal; name another, or move that one away"
        why = taken if isinstance(error, FileExistsError) else error_reason(error)
    return CannotJournal(f"cannot write the journal {file}: {why}")
