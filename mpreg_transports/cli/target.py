"""The TARGET of `serve`, `dev` and `config`: `module:name` or `file.py:name`, a `Server` with its functions.

The user's module is imported as Python itself would import it from the working directory. An error in it is reported in
one line, because the cause is in the user's code and not in mpreg.
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
    """Return the `Server` that TARGET names, found in `app_dir` (None: the working directory). Raises CommandFailed."""
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
    """Return the file that TARGET comes from, to watch it for changes; None if it has none.

    Only parent packages are imported.
    """
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
    """Return the directory that the setting `app-dir` names."""
    value = found["app-dir"].value
    return Path(str(value)) if value is not None else None


def own_settings(server: Server) -> dict[str, Value]:
    """Return the arguments of `Server(...)`, by attribute."""
    own: dict[str, Value] = {}
    for setting in SETTINGS:
        if setting.attribute:
            value = getattr(server, setting.attribute)
            own[setting.attribute] = tuple(sorted(value)) if isinstance(value, frozenset) else value
    return own


def configured_server(server: Server | None, found: Mapping[str, Resolved]) -> Server:
    """Return a server with these settings: a new one, or `server` with the settings applied.

    Raises CommandFailed.
    """
    arguments = {BY_NAME[name].attribute: one.value for name, one in found.items() if BY_NAME[name].attribute}
    try:
        made = Server(**arguments)  # type: ignore[arg-type]  # the types were checked when the settings were resolved
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
    """Return whether an error's text contains this value."""
    values = value if isinstance(value, tuple) else (value,)
    text = str(error)
    return any(isinstance(one, str) and (repr(one) in text or (len(one) > 1 and one in text)) for one in values)


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
    except BaseException as error:  # a user's module may raise anything, also SystemExit
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and not file and f"{place}.".startswith(f"{missing}."):
            text = f"TARGET {target}: there is no module {missing!r} here or among what is installed"
            raise CommandFailed(text, _TARGET_FORM) from None
        why = " ".join(object_text(error).split())
        text = f"TARGET {target} does not import: {short_name(type(error))}: {why}{_location(error)}"
        raise CommandFailed(text, *_how_to_import(error, path, file)) from error


def _file(place: str, app_dir: Path | None) -> Path:
    """Return the file of a TARGET: relative to the working directory, else relative to `app_dir`."""
    here = Path(place)
    return here if app_dir is None or here.is_file() else app_dir / place


def _import_file(path: Path, target: str, app_dir: Path | None) -> ModuleType:
    """Import a file by its module name in Python: with its packages, if it is in a package."""
    path = path.resolve()
    root, name = _root_and_name(path, app_dir)
    _refuse_taken_name(name, path, target)
    _add_to_sys_path(root, first=True)
    if "." in name:
        _add_to_sys_path(path.parent, first=False)  # neighbours of the file, as when Python runs the file itself
        module = importlib.import_module(name)
        found = getattr(module, "__file__", None)
        if found is None or not Path(found).samefile(path):
            raise CommandFailed(f"TARGET {target}: {name} is {found}, not this file; rename one of them")
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its objects can be pickled for an executor
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _root_and_name(path: Path, app_dir: Path | None) -> tuple[Path, str]:
    """Return the directory of a file's outermost package, and the file's dotted name from there.

    The directory is `app_dir` if the file is in it, else the first directory above it that has no `__init__.py`.
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
    """Raise CommandFailed for a file with the name of a module of Python or of a module in use.

    The file would replace that module for all its users.
    """
    top = name.partition(".")[0]
    own = path.parents[name.count(".") - 1].name if "." in name else path.name
    if top in sys.stdlib_module_names and top != "test":  # used only by Python's own tests
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
    """Return advice for a file with relative imports that is in no known package."""
    if not file or not isinstance(error, ImportError) or "no known parent package" not in str(error):
        return ()
    folder = path.resolve().parent
    return (f"name the folder that its package lies in:   --app-dir {folder.parent}",)


def search_modules_here(app_dir: Path | None = None) -> None:
    """Search modules in `app_dir`, or in the working directory.

    `python -m` searches the working directory too; a console script does not.
    """
    if app_dir is not None:
        _add_to_sys_path(app_dir.resolve(), first=True)
    elif "" not in sys.path:
        _add_to_sys_path(Path.cwd(), first=True)


def _add_to_sys_path(directory: Path, *, first: bool) -> None:
    """Add `directory` to the module search path, at its start or at its end."""
    if str(directory) not in sys.path:
        sys.path.insert(0 if first else len(sys.path), str(directory))


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or os.sep in place


def _location(error: BaseException) -> str:
    """Return the place of an error in the user's code, or an empty text.

    It is the last line of the user's code, or the last line of all if none is the user's.
    """
    if isinstance(error, SyntaxError):
        return ""  # the text of the error contains the place
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
"""The directories of code that is not the user's."""


def prepare(target: str | None, flags: Mapping[str, Value], config: Path | None) -> Server:
    """Return the server that flags, environment, file and TARGET describe.

    Raises CommandFailed or SettingsError.
    """
    from mpreg_transports.cli.console import print_message
    from mpreg_transports.config.settings import kubernetes, resolve
    from mpreg_transports.config.validation import refuse_open_host

    if (ignored := kubernetes(os.environ)) is not None:
        print_message(ignored)
    found = resolve(flags=flags, environ=os.environ, config=config)  # report typing errors before the module runs
    loaded = load(target, app_dir_of(found)) if target is not None else None
    own = own_settings(loaded) if loaded is not None else {}
    server = configured_server(loaded, resolve(flags=flags, environ=os.environ, config=config, server=own))
    try:
        refuse_open_host(server.host, insecure=server.insecure, secret=server.has_secret)
        server.check_addresses()
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    return server
