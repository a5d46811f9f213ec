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

from mpreg_proto.describe import object_text, short_name
from mpreg_transports.cli.errors import CommandFailed
from mpreg_transports.config.import_guard import ServedWhileImported, importing
from mpreg_transports.config.settings import BY_NAME, SETTINGS, Resolved, Value
from mpreg_transports.server import Server

_TARGET_FORM = "write it as module:name or file.py:name, such as app.py:server"


def load(target: str, app_dir: Path | None = None) -> Server:
    """The `Server` that TARGET names, found in `app_dir` (None: the working directory). Raises CommandFailed."""
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise CommandFailed(f"TARGET {target!r} names no Server; {_TARGET_FORM}")
    if app_dir is not None and not app_dir.is_dir():
        raise CommandFailed(f"--app-dir {app_dir}: there is no such folder")
    module = _import(place, target, app_dir)
    found = getattr(module, name, None)
    servers = [key for key, value in vars(module).items() if isinstance(value, Server)]
    there_are = f"Servers in it: {', '.join(servers)}" if servers else "there is no Server in it at all"
    if found is None and not hasattr(module, name):
        raise CommandFailed(f"{place} has no {name!r}; {there_are}")
    if not isinstance(found, Server):
        raise CommandFailed(f"{target} is no Server but of type {type(found).__name__}; {there_are}")
    return found


def source_of(target: str, app_dir: Path | None = None) -> Path | None:
    """The file that TARGET comes from, to be watched; None if it has none. Imports nothing but parent packages."""
    place = target.rpartition(":")[0] or target
    if _is_file(place):
        return _file(place, app_dir)
    search_modules_here(app_dir)
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.has_location else None


def app_dir_of(found: Mapping[str, Resolved]) -> Path | None:
    """The directory that the setting `app-dir` names."""
    value = found["app-dir"].value
    return Path(str(value)) if value is not None else None


def own_settings(server: Server) -> dict[str, Value]:
    """What the arguments of `Server(...)` were, by attribute."""
    own: dict[str, Value] = {}
    for setting in SETTINGS:
        if setting.attribute:
            value = getattr(server, setting.attribute)
            own[setting.attribute] = tuple(sorted(value)) if isinstance(value, frozenset) else value
    return own


def configured_server(server: Server | None, found: Mapping[str, Resolved]) -> Server:
    """A server with these settings: a new one, or `server` with them laid over it. Raises CommandFailed."""
    arguments = {BY_NAME[name].attribute: one.value for name, one in found.items() if BY_NAME[name].attribute}
    try:
        made = Server(**arguments)  # type: ignore[arg-type]  # kinds were checked when they were resolved
    except (ValueError, TypeError) as error:
        given = [one for one in found.values() if one.setting.attribute and one.source != "default"]
        sources = dict.fromkeys(one.source for one in given if _mentions(one.value, error))
        raise CommandFailed(str(error) + (f" ({', '.join(sources)})" if sources else "")) from None
    if server is None:
        return made
    for attribute in arguments:
        setattr(server, attribute, getattr(made, attribute))
    return server


def _mentions(value: Value, error: Exception) -> bool:
    """Whether an error's text speaks of this value."""
    values = value if isinstance(value, tuple) else (value,)
    return any(isinstance(one, str) and len(one) > 1 and one in str(error) for one in values)


def _import(place: str, target: str, app_dir: Path | None) -> ModuleType:
    file = _is_file(place)
    path = _file(place, app_dir)
    if file and not path.is_file():
        raise CommandFailed(f"TARGET {target}: there is no file {place}")
    try:
        with importing(f"TARGET {target}"):
            return _import_file(path, target, app_dir) if file else _import_module(place, target, app_dir)
    except (KeyboardInterrupt, CommandFailed):
        raise
    except ServedWhileImported as error:
        raise CommandFailed(f"{error}{_location(error)}") from None
    except BaseException as error:  # whatever the user's module raises, SystemExit too
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and not file and f"{place}.".startswith(f"{missing}."):
            text = f"TARGET {target}: there is no module {missing!r} here or among what is installed"
            raise CommandFailed(text, _TARGET_FORM) from None
        why = " ".join(object_text(error).split())
        text = f"TARGET {target} does not import: {short_name(type(error))}: {why}{_location(error)}"
        raise CommandFailed(text, *_how_to_import(error, path, file)) from error


def _file(place: str, app_dir: Path | None) -> Path:
    """The file of a TARGET: as it is written from here, else as it is written from `app_dir`."""
    here = Path(place)
    return here if app_dir is None or here.is_file() else app_dir / place


def _import_file(path: Path, target: str, app_dir: Path | None) -> ModuleType:
    """Import a file by the name that Python knows it by: with its packages, if it lies in some."""
    path = path.resolve()
    root, name = _root_and_name(path, app_dir)
    _refuse_taken_name(name, path, target)
    _add_to_sys_path(root, first=True)
    if "." in name:
        _add_to_sys_path(path.parent, first=False)  # what lies beside it, as when Python runs the file itself
        module = importlib.import_module(name)
        found = getattr(module, "__file__", None)
        if found is None or not Path(found).samefile(path):
            raise CommandFailed(f"TARGET {target}: {name} is {found}, not this file; rename one of them")
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what is defined in it can be pickled for an executor
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _root_and_name(path: Path, app_dir: Path | None) -> tuple[Path, str]:
    """The directory in which a file's outermost package is found, and its dotted name from there.

    That is `app_dir` if the file lies in it, else the first directory above it that has no `__init__.py`.
    """
    if app_dir is not None and path.is_relative_to(app_dir.resolve()):
        root = app_dir.resolve()
    else:
        root = path.parent
        while (root / "__init__.py").is_file() and root.name.isidentifier() and root.parent != root:
            root = root.parent
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    if all(part.isidentifier() for part in parts):
        return root, ".".join(parts)
    return path.parent, path.stem


def _refuse_taken_name(name: str, path: Path, target: str) -> None:
    """A file by the name of a module of Python's or one that is in use would take its place for all others."""
    top = name.partition(".")[0]
    own = path.parents[name.count(".") - 1].name if "." in name else path.name
    if top in sys.stdlib_module_names and top != "test":  # which only Python's own tests need
        owner = "Python's own module"
    else:
        loaded = getattr(sys.modules.get(top), "__file__", None)
        mine = path.parents[name.count(".") - 1] / "__init__.py" if "." in name else path
        if loaded is None or Path(loaded).resolve() == mine:
            return
        owner = f"the module {loaded}"
    raise CommandFailed(
        f"TARGET {target}: {own} has the name of {owner} {top!r}, which would be lost to all that needs it; rename it"
    )


def _import_module(name: str, target: str, app_dir: Path | None) -> ModuleType:
    search_modules_here(app_dir)
    module = importlib.import_module(name)
    beside = (app_dir or Path.cwd()) / f"{name}.py"
    found = getattr(module, "__file__", None)
    if "." not in name and beside.is_file() and (found is None or not beside.samefile(found)):
        owner = f"the module {found}" if name not in sys.stdlib_module_names else "Python's own module"
        raise CommandFailed(f"TARGET {target}: {name} is {owner}, not {beside.name} here; rename {beside.name}")
    return module


def _how_to_import(error: BaseException, path: Path, file: bool) -> tuple[str, ...]:
    """Advice for a file that imports relatively though it is known to be in no package."""
    if not file or not isinstance(error, ImportError) or "no known parent package" not in str(error):
        return ()
    folder = path.resolve().parent
    return (f"name the folder that its package lies in:   --app-dir {folder.parent}",)


def search_modules_here(app_dir: Path | None = None) -> None:
    """Find modules in the working directory, as `python -m` does and a console script does not, or in `app_dir`."""
    if app_dir is not None:
        _add_to_sys_path(app_dir.resolve(), first=True)
    elif "" not in sys.path:
        _add_to_sys_path(Path.cwd(), first=True)


def _add_to_sys_path(directory: Path, *, first: bool) -> None:
    """Let Python look for modules in `directory`: before all else, or after."""
    if str(directory) not in sys.path:
        sys.path.insert(0 if first else len(sys.path), str(directory))


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or os.sep in place


def _location(error: BaseException) -> str:
    """Where in the user's code it happened: the last line of theirs, or the last of all if none is."""
    if isinstance(error, SyntaxError):
        return ""  # its text says so
    places: list[tuple[str, int]] = []
    step = error.__traceback__
    while step is not None:
        places.append((step.tb_frame.f_code.co_filename, step.tb_lineno))
        step = step.tb_next
    places = [(file, line) for file, line in places if not file.startswith("<")]
    own = [place for place in places if not place[0].startswith(_LIBRARIES)] or places
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""


_LIBRARIES = (
    str(Path(__file__).parents[1]),
    *(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib")),
)
"""Where code lies that is not the user's."""


def prepare(target: str | None, flags: Mapping[str, Value], config: Path | None) -> Server:
    """The server that flags, environment, file and TARGET describe. Raises CommandFailed or SettingsError."""
    from mpreg_transports.cli.console import print_message
    from mpreg_transports.config.settings import kubernetes, resolve
    from mpreg_transports.config.validation import refuse_open_host

    if (ignored := kubernetes(os.environ)) is not None:
        print_message(ignored)
    found = resolve(flags=flags, environ=os.environ, config=config)  # a typo is told before the user's module runs
    loaded = load(target, app_dir_of(found)) if target is not None else None
    own = own_settings(loaded) if loaded is not None else {}
    server = configured_server(loaded, resolve(flags=flags, environ=os.environ, config=config, server=own))
    try:
        refuse_open_host(server.host, insecure=server.insecure)
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    return server
