"""The commands `mpreg call`, `run` and `explain`: one call, a request from a file, and where a request would run.

Arguments and files become a native `Request`; results are written to stdout as JSON. Classic files are translated with
the classic dialect of a node, so they have the same meaning.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from mpreg_transports.cli.options import ClusterId, Config, Json, Resources, SecretFile, Url, example, seconds_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mpreg_proto.errors import RequestError
    from mpreg_proto.wire.messages import Explained, Request, Traced
    from mpreg_transports.client import Client, GraphResult

REQUEST_KEYS = ("role", "cmds", "u", "refs", "want", "timeout", "wait", "on_error", "trace")
COMMAND_KEYS = ("name", "fun", "args", "kwargs", "locs")
_VALUE_OPTIONS = ("--kw", "--resource", "--timeout", "--url", "--config")
_NUMBER_MARK = "\0"
"""A mark before a negative number, which the parser would otherwise take for an option."""

RequestFile = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A JSON file with a request, or only its list of calls (cmds); - reads stdin."),
]


class NegativeNumberCommand(typer.core.TyperCommand):
    """A command that accepts `-1` as an argument, while a mistyped option is still reported as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Mark negative numbers that are not the value of an option, so that the parser accepts them."""
        end = args.index("--") if "--" in args else len(args)
        marked = list(args)
        for position, text in enumerate(args[:end]):
            if _is_negative(text) and (position == 0 or args[position - 1] not in _VALUE_OPTIONS):
                marked[position] = _NUMBER_MARK + text
        return super().parse_args(ctx, marked)


def _is_negative(text: str) -> bool:
    return text[:1] == "-" and text[1:2].isdigit() and type(argument(text)) in (int, float)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command(
        cls=NegativeNumberCommand,
        epilog=example(
            "mpreg call echo 'hi there!'",
            "mpreg call add -1 2.5 --timeout 5",
            "mpreg call train '{\"rows\": 3}' --kw deep=true --resource gpu-cluster",
        ),
    )(call)
    app.command(epilog=example("mpreg run request.json --timeline", "echo '[...]' | mpreg run - --json"))(run)
    app.command(epilog=example("mpreg explain request.json"))(explain)


def call(
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="The function's name.")],
    args: Annotated[
        list[str] | None, typer.Argument(metavar="ARG", help="An argument: JSON, or else a plain text.")
    ] = None,
    kw: Annotated[
        list[str] | None, typer.Option("--kw", metavar="NAME=JSON", help="A keyword argument; may be repeated.")
    ] = None,
    resource: Resources = None,
    timeout: Annotated[
        float | None,
        seconds_option(
            "--timeout",
            metavar="S",
            most=86_400,
            example=5,
            help="The most seconds that the call may take (default 60).",
        ),
    ] = None,
    url: Url = None,
    secret_file: SecretFile = None,
    cluster_id: ClusterId = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Call one function and print its result."""
    from mpreg_transports.cli.connect import node_access, with_interruptible_client
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.cli.progress_bars import progress_bars
    from mpreg_transports.config.settings import BY_NAME, Place, check

    positional = [argument(text) for text in args or ()]
    keywords = dict(keyword(text) for text in kw or ())
    warn_about_invalid_json([*positional, *keywords.values()])
    check(BY_NAME["resource"], tuple(resource or ()), Place.flag(BY_NAME["resource"]))

    async def operation(client: Client) -> Any:
        try:
            with progress_bars() as bars:
                return await client.call(
                    function,
                    *positional,
                    resources=resource or (),
                    kwargs=keywords,
                    timeout=timeout,
                    on_progress=bars,
                )
        except TypeError as error:  # such as a lone surrogate, which no argument can carry
            raise CommandFailed(str(error)) from None

    print_value(
        with_interruptible_client(node_access(url, config, secret_file, cluster_id), operation), as_json=as_json
    )


def run(
    file: RequestFile,
    timeline: Annotated[bool, typer.Option("--timeline", help="Draw where and when each call ran.")] = False,
    url: Url = None,
    secret_file: SecretFile = None,
    cluster_id: ClusterId = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run a request of many calls and print the results of its leaves.

    A leaf is a call that no other call refers to. With --json the output is one object of leaves; with --timeline too
    it is {"r": leaves, "trace": [...]}, with times in seconds.
    """
    import msgspec

    from mpreg_transports.cli.connect import node_access, with_interruptible_client
    from mpreg_transports.cli.errors import error_lines, exit_code, print_error
    from mpreg_transports.cli.progress_bars import progress_bars

    request = msgspec.structs.replace(read_request(file), trace=timeline)

    async def operation(client: Client) -> GraphResult:
        with progress_bars() as bars:
            return await client.answer(request, on_progress=bars)

    answer = with_interruptible_client(node_access(url, config, secret_file, cluster_id), operation)
    print_answer(answer, timeline=timeline, as_json=as_json)
    if answer.error is not None:
        for error in failures(answer):
            print_error(error_lines(error))
        raise typer.Exit(exit_code(answer.error))


def explain(
    file: RequestFile,
    url: Url = None,
    secret_file: SecretFile = None,
    cluster_id: ClusterId = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show where each call of a request would run now, and why, without running it.

    If several nodes are equally good for a call, one of them is drawn at random when it runs. The exit code is 4 if a
    call can run nowhere.
    """
    import msgspec

    from mpreg_transports.cli.connect import node_access, with_client
    from mpreg_transports.cli.console import emit_json, show
    from mpreg_transports.cli.errors import ExitCode, print_error

    request = msgspec.structs.replace(read_request(file), partial=True)  # a row for impossible calls too

    async def operation(client: Client) -> tuple[Explained, ...]:
        return await client.explain(request)

    rows = with_client(node_access(url, config, secret_file, cluster_id), operation)
    if as_json:
        emit_json(
            [
                {
                    "name": row.name,
                    "function": row.function,
                    "nodes": list(row.nodes),
                    "why": row.why,
                    "rejected": [{"node": node, "why": why} for node, why in row.rejected],
                }
                for row in rows
            ]
        )
    else:
        show(*explain_table(rows))
    if nowhere := [row.name for row in rows if not row.nodes]:
        count = f"{len(nowhere)} of {len(rows)} calls can run nowhere now: {', '.join(nowhere)}"
        print_error([count, "see who offers what:   mpreg functions"])
        raise typer.Exit(ExitCode.NO_ROUTE)


# -- input ------------------------------------------------------------------------------------------------------------


def argument(text: str) -> Any:
    """Return the value of one word of a command line: strict JSON, or else the word itself."""
    from mpreg_proto.wire.jsonvalues import MalformedJson, loads

    text = text.removeprefix(_NUMBER_MARK)
    try:
        return loads(text)
    except MalformedJson:
        return text


def warn_about_invalid_json(values: Sequence[Any]) -> None:
    """Warn about each text that looks like JSON but is not, and is therefore sent as a text."""
    from mpreg_proto.wire.jsonvalues import MalformedJson, loads
    from mpreg_transports.cli.console import print_message

    for value in values:
        if isinstance(value, str) and value[:1] in ("[", "{"):
            try:
                loads(value)
            except MalformedJson as error:
                print_message(f"mpreg: {value!r} is not JSON ({error}), so it is sent as a text")


def keyword(text: str) -> tuple[str, Any]:
    """Return `name=JSON` as a name and a value. Raises CommandFailed."""
    from mpreg_transports.cli.errors import CommandFailed

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise CommandFailed(f"--kw {text!r}: write it as --kw name=JSON, such as --kw deep=true")
    return name, argument(value)


def read_request(file: str) -> Request:
    """Return the request in a file.

    Raises CommandFailed for a file that cannot be read, a RequestError for a bad request.
    """
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.config.system_errors import error_reason
    from mpreg_transports.config.textfiles import decoded

    where = "stdin" if file == "-" else file
    try:
        text = _stdin() if file == "-" else decoded(Path(file).read_bytes())
    except UnicodeDecodeError:
        raise CommandFailed(f"{where} is not UTF-8 text") from None
    except OSError as error:
        raise CommandFailed(f"cannot read {where}: {error_reason(error)}") from None
    return request_of(text, where=where)


def _stdin() -> str:
    """Return all of stdin. Raises UnicodeDecodeError, or OSError if stdin is closed."""
    from mpreg_transports.config.textfiles import decoded

    if sys.stdin is None:
        raise OSError("it is closed")
    raw = getattr(sys.stdin, "buffer", None)
    return decoded(raw.read()) if raw is not None else sys.stdin.read().removeprefix("\ufeff")


def request_of(text: str, *, where: str) -> Request:
    """Return the native request for a classic one, or for its `cmds` list.

    Raises a RequestError whose text contains `where`.
    """
    from mpreg_proto.errors import Fault, exception_for
    from mpreg_proto.limits import DEFAULT
    from mpreg_proto.wire.classic import ClassicDialect
    from mpreg_proto.wire.dialects import BadRequest
    from mpreg_transports.values import default_codec

    refuse_unknown_keys(text, where=where)
    whole = text if not text.lstrip().startswith("[") else '{"role":"rpc","cmds":' + text + "}"
    request = ClassicDialect(default_codec(), DEFAULT.message).decode(whole)
    if isinstance(request, BadRequest):
        fault = request.fault
        raise exception_for(Fault(fault.code, f"{where}: {fault.message}", fault.details))
    return request


def refuse_unknown_keys(text: str, *, where: str) -> None:
    """Raise CommandFailed for an unknown key, with a suggestion.

    A file is written by hand and may contain typing errors. A node ignores unknown keys, because a newer client may
    have more of them. Text that is not JSON is reported elsewhere.
    """
    from mpreg_proto.wire.jsonvalues import MalformedJson, loads

    try:
        tree = loads(text)
    except MalformedJson:
        return
    if isinstance(tree, dict):
        _refuse_unknown(tree, REQUEST_KEYS, f"in {where}")
        tree = tree.get("cmds")
    for position, command in enumerate(tree if isinstance(tree, list) else ()):
        if isinstance(command, dict):
            _refuse_unknown(command, COMMAND_KEYS, f"at $.cmds[{position}] in {where}")


def _refuse_unknown(tree: dict[str, Any], known: Sequence[str], place: str) -> None:
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.config.settings import suggestion

    for key in tree:
        if key not in known:
            raise CommandFailed(f"unknown key {key!r} {place}; {suggestion(key, known)}")


# -- output -----------------------------------------------------------------------------------------------------------


def print_value(value: Any, *, as_json: bool) -> None:
    """Print a result: a text as it is, all else as JSON.

    Raises ExecutionFailed if JSON is required and the value has no JSON form.
    """
    from mpreg_proto.errors import ExecutionFailed
    from mpreg_proto.wire.encode_errors import UnsendableValue
    from mpreg_transports.cli.console import emit, escape_controls, pretty

    if type(value) is str and not as_json:
        emit(escape_controls(value))
        return
    try:
        text = pretty(json_tree(value))
        emit(text if as_json else escape_controls(text))
    except UnsendableValue as error:
        if as_json:
            raise ExecutionFailed(f"the result: {error}; without --json it is printed as Python writes it") from None
        emit(repr(value))


def json_tree(value: Any) -> object:
    """Return `value` as a tree for JSON. Raises UnsendableValue with the path of a value that has no JSON form."""
    from mpreg_proto.wire.jsonvalues import to_json
    from mpreg_transports.values import default_codec

    return to_json(value, default_codec())


def failures(answer: GraphResult) -> list[RequestError]:
    """Return the errors of a partial reply: first the cause, then those of the missing wanted results."""
    found = {error.message: error for error in (answer.error, *answer.errors.values()) if error is not None}
    return list(found.values())


def print_answer(answer: GraphResult, *, timeline: bool, as_json: bool) -> None:
    """Print the leaves, and the waterfall if `timeline`."""
    from mpreg_transports.cli.console import ascii_only, emit, emit_json, out, show
    from mpreg_transports.cli.waterfall import legend, waterfall

    if as_json:
        leaves = json_tree(answer.values)
        left_out = {"untraced": answer.untraced} if answer.untraced else {}
        emit_json({"r": leaves, "trace": [trace_row(row) for row in answer.trace], **left_out} if timeline else leaves)
        return
    print_value(answer.values, as_json=False)
    if timeline:
        emit("")
        show(*waterfall(answer.trace, width=out().width, ascii_only=ascii_only()))
        if answer.trace:
            show(legend(ascii_only=ascii_only()))
        if answer.untraced:
            emit(f"{answer.untraced} calls are not shown: with them the answer would be longer than a message")


def trace_row(row: Traced) -> dict[str, object]:
    """Return one row of a trace in the form of the classic dialect, with times in seconds since the request arrived."""
    seconds = {key: getattr(row, key) / 1e9 for key in ("queued", "moved", "started", "ended")}
    return {"name": row.name, "node": row.node, **seconds, "tries": row.tries, "why": row.why}


def explain_table(rows: Sequence[Explained]) -> list[RenderableType]:
    """Return a table of calls; below each call are the nodes that cannot be chosen."""
    from rich.text import Text

    from mpreg_transports.cli.console import table
    from mpreg_transports.cli.waterfall import cut

    cells: list[Sequence[str | Text]] = []
    for row in rows:
        where = Text("\n".join(row.nodes)) if row.nodes else Text("nowhere", style="red")
        why = Text(row.why)
        for node, reason in row.rejected:
            why.append(f"\nnot {node}: {reason}", style="dim")
        cells.append((cut(row.name, 16), cut(row.function, 16), where, why))
    made = table(("CALL", "FUNCTION", "WOULD RUN ON", "REASON"), cells)
    made.columns[2].no_wrap = True
    return [made]
