"""What a command is told by flags, environment, file and `Server(...)`, and which of them wins.

A setting's name is its flag's name; the same name is its key in the TOML file, and `MPREG_` with that name in capitals
its variable. `resolve` looks at the places from the highest to the lowest (docs/reference/cli.md) and remembers
where each value came from, for `mpreg config`. Whether a value makes sense to a node is `Server`'s to say; only its
kind is checked here. Nothing here changes the environment or writes a file.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from mpreg_proto.errors import MpregError
from mpreg_transports.addresses import DEFAULT_PORT, Scheme, format_address

Value = str | int | bool | tuple[str, ...] | None
"""Lists are tuples; None is "not set"."""

CONFIG_FILE = "mpreg.toml"
"""Read from the working directory when no other file is named."""
CONFIG_VARIABLE = "MPREG_CONFIG"
DEBUG_VARIABLE = "MPREG_DEBUG"

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class SettingsError(MpregError):
    """A setting that cannot be used. The text names the key, the place it stands in, and what is wanted there."""


class Kind(enum.Enum):
    """What a setting's value is."""

    TEXT = "a text"
    PORT = "a whole number from 0 to 65535"
    LIST = "a list of texts"
    SWITCH = "true or false"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `attribute` is what `Server` calls it, empty for one of the client's side."""

    name: str
    kind: Kind
    default: Value
    attribute: str = ""
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "MPREG_" + self.name.replace("-", "_").upper()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A setting's value and the place that it came from, in words."""

    setting: Setting
    value: Value
    source: str


SETTINGS: tuple[Setting, ...] = (
    Setting("url", Kind.TEXT, format_address(Scheme.WS, "127.0.0.1")),
    Setting("host", Kind.TEXT, "127.0.0.1", "host"),
    Setting("port", Kind.PORT, DEFAULT_PORT, "port"),
    Setting("name", Kind.TEXT, "node", "name"),
    Setting("resource", Kind.LIST, (), "resources"),
    Setting("peer", Kind.LIST, (), "peers"),
    Setting("cluster-id", Kind.TEXT, "default-cluster", "cluster_id"),
    Setting("advertise", Kind.TEXT, None, "advertise"),
    Setting("transport", Kind.TEXT, "auto", "transport", ("auto", "websocket")),
    Setting("insecure", Kind.SWITCH, False, "insecure"),
    Setting("allow-host", Kind.LIST, (), "allow_hosts"),
    Setting("allow-origin", Kind.LIST, (), "allow_origins"),
    Setting("journal", Kind.TEXT, None, "journal"),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def resolve(
    *,
    flags: Mapping[str, Value],
    environ: Mapping[str, str],
    config: Path | None = None,
    server: Mapping[str, Value] | None = None,
) -> dict[str, Resolved]:
    """Every setting by name: flag, environment, file, `Server(...)` argument, default; a list replaces lower ones.

    `flags` holds what was given on the command line (None: not given); `config` is the file that `--config` names;
    `server` the attributes of a TARGET's `Server`. Raises SettingsError.
    """
    file = config_file(config, environ)
    in_file = read_file(file) if file is not None else {}
    own = server or {}
    found: dict[str, Resolved] = {}
    for setting in SETTINGS:
        flag = flags.get(setting.name)
        if flag is not None:
            checked = check(setting, flag, place="on the command line")
            found[setting.name] = Resolved(setting, checked, f"--{setting.name}")
        elif setting.variable in environ:
            value = _from_text(setting, environ[setting.variable])
            found[setting.name] = Resolved(setting, value, f"{setting.variable} in the environment")
        elif setting.name in in_file:
            found[setting.name] = Resolved(setting, in_file[setting.name], str(file))
        elif setting.attribute and own.get(setting.attribute, setting.default) != setting.default:
            found[setting.name] = Resolved(setting, own[setting.attribute], "Server(...)")
        else:
            found[setting.name] = Resolved(setting, setting.default, "default")
    return found


def config_file(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: `--config`, MPREG_CONFIG, or mpreg.toml here if there is one. Need not exist if it is named."""
    if named is not None:
        return named
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    here = Path(CONFIG_FILE)
    return here if here.is_file() else None


def read_file(path: Path) -> dict[str, Value]:
    """The settings in a TOML file. Raises SettingsError naming the file, the key, and which was meant."""
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the config file {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the config file {path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the config file {path} is not TOML: {error}") from None
    found: dict[str, Value] = {}
    for key, value in tree.items():
        setting = BY_NAME.get(key)
        if setting is None:
            raise SettingsError(f"unknown key {key!r} in {path}; {meant(key, BY_NAME)}")
        found[key] = check(setting, tuple(value) if isinstance(value, list) else value, place=f"in {path}")
    return found


def check(setting: Setting, value: object, *, place: str) -> Value:
    """`value` if it is of the setting's kind. Raises SettingsError."""
    match setting.kind:
        case Kind.TEXT if isinstance(value, str) and (not setting.choices or value in setting.choices):
            return value
        case Kind.PORT if type(value) is int and 0 <= value <= 65_535:
            return value
        case Kind.SWITCH if isinstance(value, bool):
            return value
        case Kind.LIST if isinstance(value, tuple) and all(isinstance(item, str) and item for item in value):
            return value
        case _:
            raise _wrong(setting, value, place)


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each MPREG_ variable that is no setting. No error: other programs may use such names."""
    known = {setting.variable: setting for setting in SETTINGS} | {CONFIG_VARIABLE: None, DEBUG_VARIABLE: None}
    return [
        f"{name} in the environment is no setting; {meant(name, known)}"
        for name in sorted(environ)
        if name.startswith("MPREG_") and name not in known
    ]


def _from_text(setting: Setting, text: str) -> Value:
    """The value that a variable's text means; lists are separated by commas or blanks."""
    value: Value = text
    if setting.kind is Kind.LIST:
        value = tuple(text.replace(",", " ").split())
    elif setting.kind is Kind.PORT and text.isascii() and text.isdecimal():
        value = int(text[:6])
    elif setting.kind is Kind.SWITCH and text.lower() in (*_TRUE, *_FALSE):
        value = text.lower() in _TRUE
    return check(setting, value, place=f"({setting.variable} in the environment)")


def _wrong(setting: Setting, value: object, place: str) -> SettingsError:
    wanted = f"one of {', '.join(setting.choices)}" if setting.choices else setting.kind.value
    text = f"{setting.name} {place} must be {wanted}, not {list(value) if isinstance(value, tuple) else value!r}"
    if setting.kind is Kind.LIST and isinstance(value, str):
        text += f'; write {setting.name} = ["{value}"]'
    return SettingsError(text)


def meant(name: str, known: Iterable[str]) -> str:
    """Which of `known` was meant by `name`, as a clause for an error; if none is like it, all of them."""
    names = list(known)
    close = get_close_matches(name, names, n=1) or get_close_matches(name.replace("_", "-").rstrip("s"), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
