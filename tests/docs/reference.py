"""The parts of docs/ that are written from the source: tables of messages, effects, errors, limits, settings, commands.

    uv run python -m tests.docs.reference

writes them again between `<!-- generated: NAME -->` and `<!-- end -->`; test_reference.py compares. A table holds what
the source holds: names, defaults and docstrings.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, get_args

import msgspec
import typer.main

import mpreg_proto
from mpreg_proto import ClientSession, Node, effects, errors, limits, notices
from mpreg_proto.limits import DEFAULT, HOUR, MILLISECOND, SECOND
from mpreg_proto.requests.request_state import TRANSITIONS, CallState
from mpreg_proto.wire import messages
from mpreg_proto.wire.session import STAGES, Stage
from mpreg_transports.cli.app import build
from mpreg_transports.config.settings import SETTINGS
from mpreg_transports.testing.invariants.all import INVARIANTS, invariants
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Watcher
from tests.docs.pages import PAGES, ROOT, part


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |\n" for row in lines)


def stages() -> str:
    """Return every transition of a link, as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(Stage)).name}"]
    lines += [f"    {before.name} --> {after.name}: {cause.name}" for (before, cause), after in STAGES.items()]
    lines += [f"    {stage.name} --> [*]" for stage in Stage if not any(before is stage for before, _ in STAGES)]
    return "\n".join([*lines, "```", ""])


def call_states() -> str:
    """Return a row per state of a call, with the states that may follow."""
    (node,) = [found for found, _ in _classes("mpreg_proto/requests/request_state.py", CallState.__name__)]
    meanings: dict[str, str] = {}
    for statement, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            meanings[ast.unparse(statement.targets[0])] = " ".join(str(after.value.value).split())
    rows = [
        (state.name, meanings[state.name], ", ".join(one.name for one in sorted(TRANSITIONS[state])) or "-")
        for state in CallState
    ]
    return table(("state", "meaning", "next"), rows)


def invariant_table() -> str:
    """Return a row per invariant, with the watchers that check it and their files."""
    rows = []
    for number, words in INVARIANTS.items():
        watchers = [kind for kind in map(type, invariants()) if number in _numbers(kind)]
        files: dict[str, list[str]] = {}
        for kind in watchers:
            files.setdefault(f"{kind.__module__.rpartition('.')[2]}.py", []).append(f"`{kind.__name__}`")
        checked = "; ".join(f"{file}: {', '.join(names)}" for file, names in files.items())
        rows.append((str(number), words, checked))
    return table(("", "what must hold", "checked in `testing/invariants`"), rows)


def _numbers(watcher: type) -> list[int]:
    """Return the invariants that the docstring of a watcher names."""
    found = re.match(r"Invariants? ([\d, and]+)", watcher.__doc__ or "")
    return [int(number) for number in re.findall(r"\d+", found[1])] if found else []


def error_table() -> str:
    """Return a row per code."""
    rows = []
    for kind in errors.KINDS:
        doc = " ".join((kind.__doc__ or "").split()).partition(": ")[2]
        also = [base.__name__ for base in kind.__mro__ if base in (TimeoutError, PermissionError, errors.GraphError)]
        safe = "yes" if kind.repeat_safe else "no"
        rows.append((str(kind.default_code), f"`{kind.kind}`", f"`{kind.__name__}`", ", ".join(also), safe, doc))
    return table(("code", "name", "class", "is also a", "repeat safe", "when"), rows)


def limit_table() -> str:
    """Return a row per limit."""
    rows = []
    for _, fields in _classes("mpreg_proto/limits.py", limits.Limits.__name__):
        rows = [(f"`{name}`", _amount(name, kind), doc) for name, kind, _, doc in fields]
    return table(("limit", "default", "what"), rows)


def message_tables() -> str:
    """Return every Struct of the wire, in the order of the file."""
    text = ""
    for node, fields in _classes("mpreg_proto/wire/messages.py"):
        kind = getattr(messages, node.name)
        if not issubclass(kind, msgspec.Struct):
            continue
        tag = kind.__struct_config__.tag
        text += f"### {node.name}{f' (kind {tag})' if tag is not None else ''}\n\n{_doc(node)}\n\n"
        rows = [
            (f"`{name}`", f"`{kind}`", f"`{default}`" if default else "", doc) for name, kind, default, doc in fields
        ]
        text += table(("field", "type", "default", ""), rows) + "\n"
    return text


def effect_table() -> str:
    """Return a row per effect."""
    members = [kind.__name__ for kind in effects.Effect.__args__]
    rows = []
    for node, fields in _classes("mpreg_proto/effects.py"):
        if node.name in members:
            rows.append((f"`{node.name}({', '.join(name for name, _, _, _ in fields)})`", _doc(node)))
    return table(("effect", "what the adapter does"), rows)


def outcome_table() -> str:
    """Return a row per outcome of a run."""
    kinds = {kind.__name__ for kind in effects.OUTCOMES}
    return _struct_table("outcome", "mpreg_proto/effects.py", kinds)


def notice_table() -> str:
    """Return a row per notice."""
    return _struct_table("notice", "mpreg_proto/notices.py", {kind.__name__ for kind in get_args(notices.Notice)})


def _struct_table(head: str, path: str, names: Collection[str]) -> str:
    rows = [
        (f"`{node.name}({', '.join(name for name, _, _, _ in fields)})`", _doc(node))
        for node, fields in _classes(path)
        if node.name in names
    ]
    return table((head, ""), rows)


_MACHINES = ("cluster", "coordinator", "relay")
"""Properties of a node that are no part of its public surface."""


def method_table(kind: type) -> str:
    """Return a row per public method and property of a machine, in the order of its source."""
    rows = []
    for name, member in vars(kind).items():
        if (name.startswith("_") and name != "__len__") or name in _MACHINES:
            continue
        if isinstance(member, property):
            rows.append((f"`.{name}`", _first_paragraph(member.__doc__)))
        elif callable(member):
            parameters = list(inspect.signature(member).parameters.values())[1:]
            shown = ", ".join(f"{one.name}=" if one.kind is one.KEYWORD_ONLY else one.name for one in parameters)
            text = "len(session)" if name == "__len__" else f"{name}({shown})"
            rows.append((f"`{text}`", _first_paragraph(member.__doc__)))
    return table(("", ""), rows)


def core_names() -> str:
    """Return a row per public name of the core that is in no other table of its page."""
    tabled = {"Node", "ClientSession"}
    tabled |= {kind.__name__ for kind in (*get_args(effects.Effect), *effects.OUTCOMES, *get_args(notices.Notice))}
    rows = []
    for name in mpreg_proto.__all__:
        found = getattr(mpreg_proto, name)
        if name in tabled:
            continue
        module = mpreg_proto._WHERE[name]
        documented = isinstance(found, type) or inspect.isfunction(found)
        rows.append((f"`{name}`", _first_paragraph(found.__doc__) if documented else _text_after(module, name)))
    return table(("name", ""), rows)


def _text_after(module: str, name: str) -> str:
    """Return the text after the definition of a name that is no class (an alias, a constant), else its value."""
    path = f"mpreg_proto/{module.replace('.', '/')}.py"
    body: list[ast.stmt | None] = [*ast.parse((ROOT / path).read_text("utf-8")).body, None]
    for statement, after in pairwise(body):
        if isinstance(statement, ast.Assign) and any(ast.unparse(one) == name for one in statement.targets):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return _first_paragraph(str(after.value.value))
            return f"`{ast.unparse(statement.value)}`"
    raise LookupError(f"{path} defines no {name}")


def _first_paragraph(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())


def setting_table() -> str:
    """Return a row per setting."""
    rows = []
    for one in SETTINGS:
        default = ", ".join(one.default) if isinstance(one.default, tuple) else one.default
        shown = "" if default in (None, "") else f"`{str(default).lower() if default is False else default}`"
        server = f"`{one.attribute}=`" if one.attribute else ""
        rows.append((f"`{one.name}`", f"`{one.variable}`", server, one.kind.value, shown))
    return table(("flag and key", "variable", "`Server(...)`", "kind", "default"), rows)


def command_tables() -> str:
    """Return each command of `mpreg` with its options."""
    text = ""
    for name, command in commands_of_mpreg().items():
        words = [_argument(one) for one in command.params if one.param_type_name == "argument"]
        text += f"### mpreg {' '.join([name, *words])}\n\n{' '.join((command.help or '').split())}\n\n"
        rows: list[tuple[str, ...]] = []
        for one in command.params:
            if one.param_type_name == "option" and "--help" not in one.opts:
                metavar = f" {one.metavar}" if one.metavar else ""
                rows.append((f"`{one.opts[0]}{metavar}`", " ".join((one.help or "").split())))
        text += (table(("option", "what"), rows) if rows else "It has no options.\n") + "\n"
    return text


def commands_of_mpreg() -> dict[str, Any]:
    """Return the commands by name, as typer makes them."""
    app: Any = typer.main.get_command(build())
    found: dict[str, Any] = {}
    for name, command in app.commands.items():
        nested = getattr(command, "commands", None)
        found |= {name: command} if nested is None else {f"{name} {one}": nested[one] for one in nested}
    return found


def _argument(one: Any) -> str:
    """Return an argument as a synopsis shows it."""
    word = str(one.metavar or one.name.upper()).strip("[].") + ("..." if one.nargs == -1 else "")
    return word if one.required else f"[{word}]"


def _classes(path: str, only: str | None = None) -> Iterator[tuple[ast.ClassDef, list[tuple[str, str, str, str]]]]:
    """Return each class of a file with its fields: name, type, default, the text after it."""
    for node in ast.parse((ROOT / path).read_text("utf-8")).body:
        if not isinstance(node, ast.ClassDef) or (only is not None and node.name != only):
            continue
        fields = []
        for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                said = after.value if isinstance(after, ast.Expr) else None
                text = said.value if isinstance(said, ast.Constant) else ""
                default = ast.unparse(statement.value) if statement.value is not None else ""
                doc = " ".join(str(text).split())
                fields.append((statement.target.id, ast.unparse(statement.annotation), default, doc))
        yield node, fields


def _doc(node: ast.ClassDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split())


def _amount(name: str, kind: str) -> str:
    """Return a limit's default with the unit that people use."""
    value = getattr(DEFAULT, name)
    mib = 1024 * 1024
    if name.endswith(("message", "expansion", "inputs", "values")):
        return f"{value // mib} MiB" if value % mib == 0 else f"{value:,} bytes"
    for unit, words in ((HOUR, "h"), (SECOND, "s"), (MILLISECOND, "ms")) if kind == "Span" else ():
        if value % unit == 0:
            return f"{value // unit} {words}"
    return f"{value:,}"


def watcher_table() -> str:
    """Return a row per hook of a `Watcher`, with what it gets."""
    return table(("hook", "when"), [(f"`{name}({given})`", doc) for name, given, doc in _methods(Watcher)])


def simulation_table() -> str:
    """Return a row per public name of a `Simulation`."""
    rows = [(f"`{name}({given})`", doc) for name, given, doc in _methods(Simulation)]
    rows += [(f"`{name}`", " ".join((inspect.getdoc(one) or "").split())) for name, one in _properties(Simulation)]
    for _, fields in _classes("mpreg_transports/testing/simulation/simulation.py", Simulation.__name__):
        rows += [(f"`{name}`", doc) for name, _, _, doc in fields]
    return table(("name", "what"), sorted(rows, key=lambda row: row[0]))


def _methods(kind: type) -> list[tuple[str, str, str]]:
    """Return the public methods of a class: name, parameters with their types, the first paragraph of the docstring."""
    found = []
    for name, method in vars(kind).items():
        if not name.startswith("_") and inspect.isfunction(method):
            given = [one for one in inspect.signature(method).parameters.values() if one.name != "self"]
            shown = ", ".join(_parameter(one) for one in given)
            found.append((name, shown, " ".join((inspect.getdoc(method) or "").split())))
    return found


def _parameter(one: inspect.Parameter) -> str:
    star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    default = "" if one.default is one.empty else f"={one.default!r}"
    given = str(one.annotation)
    kind = given if one.default is one.empty and not star and "[" not in given else ""
    return f"{star}{one.name}{f': {kind}' if kind else ''}{default}"


def _properties(kind: type) -> list[tuple[str, object]]:
    return [(name, one) for name, one in vars(kind).items() if isinstance(one, property) and not name.startswith("_")]


GENERATED: dict[str, Callable[[], str]] = {
    "stages": stages,
    "call-states": call_states,
    "invariants": invariant_table,
    "errors": error_table,
    "limits": limit_table,
    "messages": message_tables,
    "effects": effect_table,
    "outcomes": outcome_table,
    "notices": notice_table,
    "node": lambda: method_table(Node),
    "client-session": lambda: method_table(ClientSession),
    "core-names": core_names,
    "settings": setting_table,
    "commands": command_tables,
    "watcher": watcher_table,
    "simulation": simulation_table,
}


def renewed(source: str) -> str:
    """Return a page with its generated regions and the marked parts of files up to date."""
    return re.sub(
        r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{GENERATED[match[2]]().strip()}\n\n{match[3]}",
        source,
        flags=re.DOTALL,
    )


def with_parts(source: str) -> str:
    """Return a page with the marked parts of files inserted."""
    return re.sub(
        r"(<!-- part: (\S+) (\S+) -->\n```python\n).*?(```)",
        lambda match: f"{match[1]}{part(match[2], match[3])}{match[4]}",
        source,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for name, source in PAGES.items():
        if (fresh := with_parts(renewed(source))) != source:
            (ROOT / name).write_text(fresh, "utf-8")
            print(name)
