"""TARGET of `serve`, `dev` and `config`: `module:name` or `file.py:name`, a `Server` with its functions.

It imports the user's module as Python itself would from the working directory; what goes wrong there is told in one
line, because it is the user's code and not ours that has to be looked at.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from mpreg_transports.cli.told import CommandFailed
from mpreg_transports.importing import ServedWhileImported, importing
from mpreg_transports.server import Server
from mpreg_transports.settings import BY_NAME, SETTINGS, Resolved, Value

_HOW = "write it as module:name or file.py:name, such as app.py:server"


def load(target: str) -> Server:
    """The `Server` that TARGET names. Raises CommandFailed."""
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise CommandFailed(f"TARGET {target!r} names no Server; {_HOW}")
    module = _import(place, target)
    found = getattr(module, name, None)
    servers = [key for key, value in vars(module).items() if isinstance(value, Server)]
    there_are = f"Servers in it: {', '.join(servers)}" if servers else "there is no Server in it at all"
    if found is None and not hasattr(module, name):
        raise CommandFailed(f"{place} has no {name!r}; {there_are}")
    if not isinstance(found, Server):
        raise CommandFailed(f"{target} is no Server but of type {type(found).__name__}; {there_are}")
    return found


def source_of(target: str) -> Path | None:
    """The file that TARGET comes from, to be watched; None if it has none. Imports nothing but parent packages."""
    place = target.rpartition(":")[0] or target
    if _is_file(place):
        return Path(place)
    look_here()
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.has_location else None


def own_settings(server: Server) -> dict[str, Value]:
    """What the arguments of `Server(...)` were, by attribute."""
    own: dict[str, Value] = {}
    for setting in SETTINGS:
        if setting.attribute:
            value = getattr(server, setting.attribute)
            own[setting.attribute] = tuple(sorted(value)) if isinstance(value, frozenset) else value
    return own


def set_up(server: Server | None, found: Mapping[str, Resolved]) -> Server:
    """A server with these settings: a new one, or `server` with them laid over it. Raises CommandFailed."""
    arguments = {BY_NAME[name].attribute: one.value for name, one in found.items() if BY_NAME[name].attribute}
    try:
        made = Server(**arguments)  # type: ignore[arg-type]  # kinds were checked when they were resolved
    except (ValueError, TypeError) as error:
        given = [one for one in found.values() if one.setting.attribute and one.source != "default"]
        sources = dict.fromkeys(one.source for one in given if _quoted(one.value, error))
        raise CommandFailed(str(error) + (f" ({', '.join(sources)})" if sources else "")) from None
    if server is None:
        return made
    for attribute in arguments:
        setattr(server, attribute, getattr(made, attribute))
    return server


def _quoted(value: Value, error: Exception) -> bool:
    """Whether an error's text speaks of this value."""
    values = value if isinstance(value, tuple) else (value,)
    return any(isinstance(one, str) and len(one) > 1 and one in str(error) for one in values)


def _import(place: str, target: str) -> ModuleType:
    file = _is_file(place)
    if file and not Path(place).is_file():
        raise CommandFailed(f"TARGET {target}: there is no file {place}")
    try:
        with importing(f"TARGET {target}"):
            return _import_file(Path(place)) if file else _import_module(place)
    except KeyboardInterrupt:
        raise
    except ServedWhileImported as error:
        raise CommandFailed(f"{error}{_line(error)}") from None
    except BaseException as error:  # whatever the user's module raises, SystemExit too
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and not file and f"{place}.".startswith(f"{missing}."):
            text = f"TARGET {target}: there is no module {missing!r} here or among what is installed"
            raise CommandFailed(text, _HOW) from None
        why = " ".join(str(error).split())
        raise CommandFailed(f"TARGET {target} does not import: {type(error).__name__}: {why}{_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    directory = str(path.resolve().parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what is defined in it can be pickled for an executor
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    look_here()
    return importlib.import_module(name)


def look_here() -> None:
    """Find modules in the working directory, as `python -m` does and a console script does not."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or os.sep in place


def _line(error: BaseException) -> str:
    """Where in the user's code it happened: the last line of theirs, or the last of all if none is."""
    if isinstance(error, SyntaxError):
        return ""  # its text says so
    places: list[tuple[str, int]] = []
    step = error.__traceback__
    while step is not None:
        places.append((step.tb_frame.f_code.co_filename, step.tb_lineno))
        step = step.tb_next
    places = [(file, line) for file, line in places if not file.startswith("<")]
    theirs = [place for place in places if not place[0].startswith(_LIBRARIES)] or places
    return f" ({Path(theirs[-1][0]).name}, line {theirs[-1][1]})" if theirs else ""


_LIBRARIES = (
    str(Path(__file__).parents[1]),
    *(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib")),
)
"""Where code lies that is not the user's."""
