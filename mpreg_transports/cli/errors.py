"""The text of errors for people, and the exit codes for scripts (docs/reference/errors.md).

An error comes from the core, a transport, a setting or a command. The output names what was expected and what happened,
then the next command to type. A traceback is printed only with MPREG_DEBUG=1.
"""

from __future__ import annotations

import enum
import os
import sys
import traceback
from collections.abc import Sequence

from mpreg_proto.errors import ErrorCode, MpregError, RequestError
from mpreg_transports.config.addresses import DEFAULT_PORT, is_loopback, parse_address
from mpreg_transports.config.settings import DEBUG_VARIABLE, SettingsError, debugging
from mpreg_transports.config.system_errors import error_reason
from mpreg_transports.errors import CannotImport, NotConnected
from mpreg_transports.security.secret import SecretError


class ExitCode(enum.IntEnum):
    """The exit code of the process."""

    DONE = 0
    FUNCTION_RAISED = 1
    WRONG_USAGE = 2
    NOT_REACHABLE = 3
    NO_ROUTE = 4
    DEADLINE = 5
    DENIED = 6
    UNKNOWN = 7
    """The request was cancelled, or its outcome is unknown."""
    TRY_AGAIN = 8
    OTHER = 9


_BY_CODE: dict[int, ExitCode] = {
    ErrorCode.UNKNOWN_MESSAGE: ExitCode.WRONG_USAGE,
    ErrorCode.COMMAND_NOT_FOUND: ExitCode.NO_ROUTE,
    ErrorCode.EXECUTION_FAILED: ExitCode.FUNCTION_RAISED,
    ErrorCode.INVALID_ROLE: ExitCode.WRONG_USAGE,
    ErrorCode.INVALID_REQUEST: ExitCode.WRONG_USAGE,
    ErrorCode.DUPLICATE_NAME: ExitCode.WRONG_USAGE,
    ErrorCode.CYCLIC_REFERENCE: ExitCode.WRONG_USAGE,
    ErrorCode.UNRESOLVED_REFERENCE: ExitCode.WRONG_USAGE,
    ErrorCode.LIMIT_EXCEEDED: ExitCode.WRONG_USAGE,
    ErrorCode.DEADLINE_EXCEEDED: ExitCode.DEADLINE,
    ErrorCode.CANCELLED: ExitCode.UNKNOWN,
    ErrorCode.OVERLOADED: ExitCode.TRY_AGAIN,
    ErrorCode.OUTCOME_UNKNOWN: ExitCode.UNKNOWN,
    ErrorCode.DRAINING: ExitCode.TRY_AGAIN,
    ErrorCode.UNAUTHENTICATED: ExitCode.DENIED,
    ErrorCode.FORBIDDEN: ExitCode.DENIED,
}


_LISTED = 20
"""The most resources that a line of advice lists."""


class CommandFailed(MpregError):
    """A command failed: the text gives the reason, `hints` the next commands to type."""

    def __init__(self, text: str, *hints: str, code: ExitCode = ExitCode.WRONG_USAGE) -> None:
        super().__init__(text)
        self.hints = hints
        self.code = code


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code for `error`."""
    match error:
        case CommandFailed():
            return error.code
        case RequestError():
            return _BY_CODE.get(error.code, ExitCode.OTHER)
        case NotConnected():
            return ExitCode.NOT_REACHABLE
        case SettingsError() | CannotImport() | SecretError():
            return ExitCode.WRONG_USAGE
        case KeyboardInterrupt():
            return ExitCode.UNKNOWN
        case _:
            return ExitCode.OTHER


def error_lines(error: BaseException) -> list[str]:
    """Return the output for `error`: a line that describes it, then lines of advice."""
    match error:
        case CommandFailed():
            return [str(error), *error.hints]
        case RequestError():
            return [error.message, *_advice(error)]
        case NotConnected():
            return _unreachable(error)
        case KeyboardInterrupt():
            return ["interrupted"]
        case OSError() if error.strerror and not isinstance(error, MpregError):
            files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
            return [(f"{files}: " if files else "") + error_reason(error)]
        case MpregError() | OSError():
            return [str(error)]
        case _:
            text = " ".join(str(error).split())
            where = f"{DEBUG_VARIABLE}=1 shows where; please report it"
            return [f"a defect of mpreg: {type(error).__name__}: {text}", where]


def report_error(error: BaseException) -> ExitCode:
    """Print an error on stderr, and return the exit code."""
    error = innermost(error)
    sys.stdout.flush()
    print_error(error_lines(error))
    if debugging(os.environ):
        traceback.print_exception(error)
        remote = error.details.get("traceback") if isinstance(error, RequestError) else None
        if remote:
            print(f"on the node:\n{remote}", file=sys.stderr)
    return exit_code(error)


def print_error(lines: Sequence[str]) -> None:
    """Print the first line in red if there are colours, and the others below it."""
    from rich.text import Text

    from mpreg_transports.cli.console import escape_controls, print_message

    head, *rest = [escape_controls(line, sys.stderr) for line in lines]
    print_message(Text.assemble(("mpreg: ", "bold red"), head))
    for line in rest:
        print_message(Text(f"  {line}", style="dim"))


def started_lines(error: RequestError) -> list[str]:
    """Return what had started of a cancelled request, one call a line."""
    rows = [row for row in error.details.get("started", ()) if isinstance(row, dict)]
    lines: list[str] = []
    for row in rows:
        name, function = str(row.get("call")), str(row.get("function"))
        call = "" if name == function else f" (call {name})"
        lines.append(
            f"{'had ended:       ' if row.get('ended') else 'may have started:'} {function} on {row.get('node')}{call}"
        )
    if more := error.details.get("more"):
        lines.append(f"and {more} more calls")
    return lines or ["nothing had started"]


def innermost(error: BaseException) -> BaseException:
    """Return the error inside nested exception groups; the first of several."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _unreachable(error: NotConnected) -> list[str]:
    tried = error.details.get("tried", {})
    lines = [f"cannot reach a node at {url}: {_without_address(reason)}" for url, reason in tried.items()] or [
        error.message
    ]
    serve = next((hint for hint in map(_serve_hint, tried) if hint), "mpreg serve")
    return [*lines, f"start one:     {serve}", "ask another:   --url ws://HOST:PORT, or MPREG_URL"]


def _serve_hint(url: str) -> str:
    """Return the command that starts a node at `url`; "" if it is no address of this machine with a port of its own."""
    try:
        address = parse_address(url)
    except ValueError:
        return ""
    local = is_loopback(address.host) and address.port != DEFAULT_PORT
    return f"mpreg serve --port {address.port}" if local else ""


def _without_address(reason: str) -> str:
    """Return a reason without the address, which the line contains already."""
    return reason.partition(": ")[2] if reason.startswith("cannot connect to ") and ": " in reason else reason


def _advice(error: RequestError) -> list[str]:
    details = error.details
    match error.code:
        case ErrorCode.COMMAND_NOT_FOUND if details.get("unknown") == "resources" and details.get("exist"):
            exist = [str(name) for name in details["exist"]]
            listed = ", ".join(exist[:_LISTED]) + (", ..." if len(exist) > _LISTED else "")
            function = details.get("function", "it")
            return [f"{function} is offered with: {listed}", "see who offers what:   mpreg functions"]
        case ErrorCode.COMMAND_NOT_FOUND:
            return ["see who offers what:   mpreg functions"]
        case ErrorCode.EXECUTION_FAILED if details.get("traceback"):
            return [f"{DEBUG_VARIABLE}=1 shows where it was raised"]
        case ErrorCode.UNAUTHENTICATED:
            return ["give the secret of its cluster:   --secret-file FILE --url wss://HOST:PORT"]
        case ErrorCode.DEADLINE_EXCEEDED:
            return ['give it longer:   --timeout SECONDS (in a file: "timeout")']
        case ErrorCode.OVERLOADED | ErrorCode.DRAINING:
            return [f"nothing has run; try again in {details.get('retry_after', 1):g} s"]
        case ErrorCode.OUTCOME_UNKNOWN if details.get("maybe_executed") is False:
            return ["nothing has run; ask again"]
        case ErrorCode.OUTCOME_UNKNOWN:
            return ["it may have run: look before you repeat it"]
        case _:
            return []
