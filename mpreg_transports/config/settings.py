"""The settings of a command from flags, environment, file and `Server(...)`, and their precedence.

A setting's name is the name of its flag and its key in the TOML file; `MPREG_` with that name in capitals is its
variable. `resolve` reads the sources from the highest to the lowest (docs/reference/cli.md) and records the source of
each value, for `mpreg config`. Only the kind of a value is checked here; `Server` checks whether it is valid for a
node. Nothing here changes the environment or writes a file.
"""

from __future__ import annotations

import datetime
import enum
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from mpreg_proto.describe import cut
from mpreg_proto.errors import MpregError
from mpreg_transports.config.addresses import DEFAULT_PORT, Scheme, format_address, is_host, reachable_host
from mpreg_transports.config.system_errors import error_reason
from mpreg_transports.config.textfiles import decoded

Value = str | int | bool | tuple[str, ...] | None
"""The value of a setting. Lists are tuples; None is "not set"."""

CONFIG_FILE = "mpreg.toml"
"""The file that is read from the working directory when no other file is named."""
CONFIG_VARIABLE = "MPREG_CONFIG"
DEBUG_VARIABLE = "MPREG_DEBUG"

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_KUBERNETES = re.compile(
    r"MPREG_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes puts into a pod for a service called `mpreg`, or `mpreg-` and more."""
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://\S+")


class SettingsError(MpregError):
    """A setting that cannot be used. The text names the key, its source, and what is expected there."""


class Kind(enum.Enum):
    """The kind of a setting's value."""

    TEXT = "a text"
    HOST = "a host name or an IP address"
    PORT = "a whole number from 0 to 65535"
    COUNT = "a whole number from 0 to 1024"
    LIST = "a list of texts"
    SWITCH = "true or false"


MOST = {Kind.PORT: 65_535, Kind.COUNT: 1_024}
"""The largest number of each kind of whole numbers."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `attribute` is its name in `Server`, empty for a setting of the client side.

    `example` is a value that errors show.
    """

    name: str
    kind: Kind
    default: Value
    attribute: str = ""
    example: str = ""
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "MPREG_" + self.name.replace("-", "_").upper()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A setting's value and the description of its source."""

    setting: Setting
    value: Value
    source: str


SETTINGS: tuple[Setting, ...] = (
    Setting("url", Kind.TEXT, format_address(Scheme.WS, "127.0.0.1"), "", format_address(Scheme.WS, "127.0.0.1")),
    Setting("host", Kind.HOST, "127.0.0.1", "host", "127.0.0.1"),
    Setting("port", Kind.PORT, DEFAULT_PORT, "port", str(DEFAULT_PORT)),
    Setting("name", Kind.TEXT, "node", "name", "trainer"),
    Setting("resource", Kind.LIST, (), "resources", "gpu"),
    Setting("peer", Kind.LIST, (), "peers", format_address(Scheme.WS, "127.0.0.1")),
    Setting("cluster-id", Kind.TEXT, "default-cluster", "cluster_id", "default-cluster"),
    Setting("advertise", Kind.TEXT, None, "advertise", format_address(Scheme.WS, "node.example.com")),
    Setting("transport", Kind.TEXT, "auto", "transport", "auto", ("auto", "websocket")),
    Setting("secret-file", Kind.TEXT, None, "secret_file", "mpreg.secret"),
    Setting("open-clients", Kind.SWITCH, False, "open_clients", "false"),
    Setting("insecure", Kind.SWITCH, False, "insecure", "false"),
    Setting("allow-host", Kind.LIST, (), "allow_hosts", "mpreg.example.com"),
    Setting("allow-origin", Kind.LIST, (), "allow_origins", "https://app.example.com"),
    Setting("processes", Kind.COUNT, 0, "processes", "4"),
    Setting("journal", Kind.TEXT, None, "journal", "node.journal"),
    Setting("app-dir", Kind.TEXT, None, "", "src"),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def resolve(
    *,
    flags: Mapping[str, Value],
    environ: Mapping[str, str],
    config: Path | None = None,
    server: Mapping[str, Value] | None = None,
) -> dict[str, Resolved]:
    """Return every setting by name: flag, environment, file, `Server(...)` argument, default.

    A list replaces lower ones. `flags` holds the values of the command line (None: not given); `config` is the file of
    `--config`; `server` holds the attributes of a TARGET's `Server`. An empty variable counts as not set. Raises
    SettingsError.
    """
    file = config_file(config, environ)
    in_file = read_file(file) if file is not None else {}
    own = server or {}
    found: dict[str, Resolved] = {}
    for setting in SETTINGS:
        flag = flags.get(setting.name)
        if flag is not None:
            checked = check(setting, flag, Place.flag(setting))
            found[setting.name] = Resolved(setting, checked, f"--{setting.name}")
        elif (in_environment := _from_environment(setting, environ)) is not None:
            found[setting.name] = in_environment
        elif setting.name in in_file:
            found[setting.name] = Resolved(setting, in_file[setting.name], str(file))
        elif setting.attribute and own.get(setting.attribute, setting.default) != setting.default:
            found[setting.name] = Resolved(setting, own[setting.attribute], "Server(...)")
        else:
            found[setting.name] = Resolved(setting, setting.default, "default")
    return found


def resolve_one(name: str, flag: Value, *, environ: Mapping[str, str], config: Path | None = None) -> Resolved:
    """Return one setting for a client command: flag, environment, file, default.

    It reads no other setting: errors in those do not concern such a command. Raises SettingsError.
    """
    setting = BY_NAME[name]
    if flag is not None:
        return Resolved(setting, check(setting, flag, Place.flag(setting)), f"--{name}")
    found = _from_environment(setting, environ)
    if found is not None:
        return found
    file = config_file(config, environ)
    in_file = read_file(file, only=(name,)) if file is not None else {}
    if name in in_file:
        return Resolved(setting, in_file[name], str(file))
    return Resolved(setting, setting.default, "default")


def resolve_url(
    flag: str | None, *, environ: Mapping[str, str], config: Path | None = None, secret: Resolved | None = None
) -> Resolved:
    """Return the URL of the node for a client command.

    It comes from flag, environment or file, or else from this `host` and `port`, with TLS if there is a `secret`, the
    setting `secret-file`. Raises SettingsError.
    """
    found = resolve_one("url", flag, environ=environ, config=config)
    if found.source != "default":
        return found
    places = {name: resolve_one(name, None, environ=environ, config=config) for name in ("host", "port")}
    return node_here(places | ({} if secret is None else {"secret-file": secret}))


def node_here(found: Mapping[str, Resolved]) -> Resolved:
    """Return the URL, for commands on this machine, of the node that `mpreg serve` starts with these settings."""
    host, port = found["host"], found["port"]
    if port.value == 0:  # any free port, which only the node can report
        port = Resolved(port.setting, DEFAULT_PORT, "default")
    secret = found.get("secret-file")
    scheme = Scheme.WSS if secret is not None and secret.value is not None else Scheme.WS
    address = format_address(scheme, reachable_host(str(host.value)), port=int(str(port.value)))
    given = [f"{one.setting.name} ({one.source})" for one in (host, port) if one.source != "default"]
    return Resolved(BY_NAME["url"], address, " and ".join(given) or "default")


def config_file(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: `--config`, MPREG_CONFIG, or an existing mpreg.toml here.

    A named file need not exist.
    """
    if named is not None:
        return named
    if environ.get(CONFIG_VARIABLE, "").strip():
        return Path(environ[CONFIG_VARIABLE])
    here = Path(CONFIG_FILE)
    return here if here.is_file() else None


def read_file(path: Path, *, only: Iterable[str] = ()) -> dict[str, Value]:
    """Return the settings in a TOML file. Raises SettingsError with the file, the key, and the likely intended key.

    With `only`, other settings are ignored, and also unknown keys that resemble other settings.
    """
    names = tuple(only)
    try:
        tree = tomllib.loads(decoded(path.read_bytes()))
    except OSError as error:
        raise SettingsError(f"cannot read the config file {path}: {error_reason(error)}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the config file {path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the config file {path} is not TOML: {error}") from None
    found: dict[str, Value] = {}
    for key, value in tree.items():
        setting = BY_NAME.get(key)
        if names and (setting.name not in names if setting is not None else _closest(key, BY_NAME) not in names):
            continue
        if setting is None:
            raise SettingsError(f"unknown key {key!r} in {path}; {suggestion(key, BY_NAME)}")
        found[key] = check(setting, tuple(value) if isinstance(value, list) else value, Place.file(setting, path))
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a setting's value, for errors."""

    name: str
    """The setting's name there."""
    before: str
    """The text before a value that is written there."""
    toml: bool = False

    @classmethod
    def flag(cls, setting: Setting) -> Place:
        """Return the place on the command line."""
        return cls(f"--{setting.name}", f"--{setting.name} ")

    @classmethod
    def environment(cls, setting: Setting) -> Place:
        """Return the place in the environment."""
        return cls(f"{setting.variable} in the environment", f"{setting.variable}=")

    @classmethod
    def file(cls, setting: Setting, path: Path) -> Place:
        """Return the place in a TOML file."""
        return cls(f"{setting.name} in {path}", f"{setting.name} = ", toml=True)


def check(setting: Setting, value: object, place: Place) -> Value:
    """Return `value` if it is of the setting's kind. Raises SettingsError."""
    match setting.kind:
        case Kind.TEXT if isinstance(value, str) and value and (not setting.choices or value in setting.choices):
            return value
        case Kind.HOST if isinstance(value, str) and is_host(value):
            return value
        case Kind.PORT | Kind.COUNT if type(value) is int and 0 <= value <= MOST[setting.kind]:
            return value
        case Kind.SWITCH if isinstance(value, bool):
            return value
        case Kind.LIST if isinstance(value, tuple) and all(isinstance(item, str) and item for item in value):
            return value
        case _:
            raise _setting_error(setting, value, place)


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each MPREG_ variable that is not a setting.

    Not an error: other programs may use such names.
    """
    known = {setting.variable: setting for setting in SETTINGS} | {CONFIG_VARIABLE: None, DEBUG_VARIABLE: None}
    return [
        f"{name} in the environment is no setting; {suggestion(name, known)}"
        for name in sorted(environ)
        if name.startswith("MPREG_") and name not in known and not _KUBERNETES.fullmatch(name)
    ]


def kubernetes(environ: Mapping[str, str]) -> str | None:
    """Return a sentence about an MPREG_PORT that Kubernetes set for a service called `mpreg`; None if there is none."""
    value = environ.get("MPREG_PORT", "")
    if not _is_of_kubernetes(value):
        return None
    return (
        f"MPREG_PORT={value} is of Kubernetes, for a service called mpreg, and is ignored; "
        "enableServiceLinks: false in the pod leaves it out, --port or port in the config file sets the port"
    )


def debugging(environ: Mapping[str, str]) -> bool:
    """Return whether MPREG_DEBUG requests tracebacks."""
    return environ.get(DEBUG_VARIABLE, "").strip().lower() not in ("", *_FALSE)


def _is_of_kubernetes(value: str) -> bool:
    return _KUBERNETES_PORT.fullmatch(value.strip()) is not None


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> Resolved | None:
    """Return the value of the setting's variable; None if it is not set, empty, or set by Kubernetes."""
    text = environ.get(setting.variable, "")
    if not text.strip() or (setting.kind is Kind.PORT and _is_of_kubernetes(text)):
        return None
    return Resolved(setting, _from_text(setting, text), f"{setting.variable} in the environment")


def _from_text(setting: Setting, text: str) -> Value:
    """Return the value of a variable's text; lists are separated by commas or blanks."""
    value: Value = text
    if setting.kind is Kind.LIST:
        value = tuple(text.replace(",", " ").split())
    elif setting.kind in MOST and (number := _whole_number(text)) is not None:
        value = number
    elif setting.kind is Kind.SWITCH and text.lower() in (*_TRUE, *_FALSE):
        value = text.lower() in _TRUE
    return check(setting, value, Place.environment(setting))


def _whole_number(text: str) -> int | None:
    """Return the number that a text of at most 6 ASCII digits stands for; None for another text."""
    return int(text) if len(text) <= 6 and text.isascii() and text.isdecimal() else None


def _setting_error(setting: Setting, value: object, place: Place) -> SettingsError:
    """Return the error for a value: where it is, what was expected, what came, and what to write there."""
    if setting.kind is Kind.LIST and isinstance(value, tuple) and not place.toml:
        value = next(item for item in value if not isinstance(item, str) or not item)
    kind = Kind.TEXT if setting.kind is Kind.LIST and not place.toml else setting.kind
    expected = f"one of {', '.join(setting.choices)}" if setting.choices else kind.value
    if kind is Kind.TEXT and value == "" and not setting.choices:
        expected += " that is not empty"
    elif kind is Kind.LIST and isinstance(value, tuple) and "" in value:
        expected += " that are not empty"
    written = f"{place.before}{_example(setting, value, place)}"
    return SettingsError(f"{place.name} must be {expected}, not {_shown(value, place)}; write {written}")


def _example(setting: Setting, value: object, place: Place) -> str:
    """Return a value as it is written at `place`: the value that was meant, if that is clear."""
    if not place.toml:
        return setting.example
    if setting.kind is Kind.LIST:
        return json.dumps([value if isinstance(value, str) and value else setting.example], ensure_ascii=False)
    if setting.kind in MOST:
        meant = _whole_number(value) if isinstance(value, str) else None
        return setting.example if meant is None or meant > MOST[setting.kind] else str(meant)
    if setting.kind is Kind.SWITCH:
        return "true" if isinstance(value, str) and value.lower() in _TRUE else setting.example
    return json.dumps(setting.example)


def _shown(value: object, place: Place) -> str:
    """Return a value as it is written at `place`, cut if it is long."""
    match value:
        case bool() if place.toml:
            return str(value).lower()
        case dict():
            return "a table"
        case datetime.date() | datetime.time():
            return str(value)
        case tuple():
            return cut(repr(list(value)), 80)
        case _:
            return cut(repr(value), 80)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a clause for an error: the one of `known` that is most like `name`; if none is like it, all of them."""
    names = list(known)
    close = _closest(name, names)
    return f"did you mean {close!r}?" if close else f"there are {', '.join(names)}"


def _closest(name: str, known: Iterable[str]) -> str | None:
    names = list(known)
    close = get_close_matches(name, names, n=1) or get_close_matches(name.replace("_", "-").rstrip("s"), names, n=1)
    return close[0] if close else None
