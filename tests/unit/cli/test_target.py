"""TARGET: what is loaded, and the one-line error of each failure."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpreg_transports.cli.errors import CommandFailed
from mpreg_transports.cli.target import configured_server, load, own_settings, prepare, source_of
from mpreg_transports.config.settings import resolve
from mpreg_transports.server import Server

APP = """
from mpreg_transports import Server
first = Server(name="first", port=9005, resources={"b", "a"}, peers=["ws://127.0.0.1:9001"])
second = Server()
number = 5
@first.function
def f(): return 1
"""

ODD = """
class Odd(Exception):
    def __str__(self): raise ValueError
raise Odd
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with some modules. At the end it restores the imports of this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = dict(sys.modules)
    (tmp_path / "cli_app.py").write_text(APP, "utf-8")
    (tmp_path / "cli_needs.py").write_text("import there_is_no_such_module\n", "utf-8")
    (tmp_path / "cli_syntax.py").write_text("def (\n", "utf-8")
    (tmp_path / "cli_exits.py").write_text("\nraise SystemExit('bye')\n", "utf-8")
    (tmp_path / "cli_wrong.py").write_text("from mpreg_transports import Server\ns = Server(port='9')\n", "utf-8")
    (tmp_path / "cli_odd.py").write_text(ODD, "utf-8")
    (tmp_path / "cli_empty.py").write_text("", "utf-8")
    yield tmp_path
    for name in [name for name in sys.modules if name not in before]:
        del sys.modules[name]


@pytest.mark.parametrize("target", ["cli_app:first", "cli_app.py:first", "./cli_app.py:first"])
def test_server_by_module_or_file(target: str) -> None:
    server = load(target)
    assert server.name == "first"
    assert "f" in server.functions


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("cli_app", "TARGET 'cli_app' names no Server; write it as module:name or file.py:name, such as app.py:server"),
        ("cli_app:", "TARGET 'cli_app:' names no Server; write it as"),
        ("cli_app:third", "cli_app has no 'third'; Servers in it: first, second"),
        ("cli_app:number", "cli_app:number is no Server but of type int; Servers in it: first, second"),
        ("cli_empty.py:s", "cli_empty.py has no 's'; there is no Server in it at all"),
        ("cli_nope:s", "TARGET cli_nope:s: there is no module 'cli_nope' here or among what is installed"),
        ("cli_nope.py:s", "TARGET cli_nope.py:s: there is no file cli_nope.py"),
        (
            "cli_needs:s",
            "TARGET cli_needs:s does not import: ModuleNotFoundError: No module named 'there_is_no_such_module' "
            "(cli_needs.py, line 1)",
        ),
        (
            "cli_syntax.py:s",
            "TARGET cli_syntax.py:s does not import: SyntaxError: invalid syntax (cli_syntax.py, line 1)",
        ),
        (
            "cli_wrong.py:s",
            "TARGET cli_wrong.py:s does not import: TypeError: port='9' is of type str; write a whole number such as "
            "port=9001 (cli_wrong.py, line 2)",
        ),
        (
            "cli_odd.py:s",
            "TARGET cli_odd.py:s does not import: Odd: <no text: its __str__ raised ValueError> (cli_odd.py, line 4)",
        ),
        ("cli_exits.py:s", "TARGET cli_exits.py:s does not import: SystemExit: bye (cli_exits.py, line 2)"),
    ],
)
def test_error_of_a_target_is_one_line(target: str, message: str) -> None:
    with pytest.raises(CommandFailed) as error:
        load(target)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["random.py:s", "queue.py:s", "email/app.py:s", "queue:s", "anyio.py:s", "typer:s"])
def test_error_of_a_file_named_like_another_module(here: Path, target: str) -> None:
    for name in ("random", "queue", "email/__init__", "email/app", "anyio", "typer"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / f"{name}.py").write_text(APP, "utf-8")
    path, modules = list(sys.path), dict(sys.modules)
    with pytest.raises(CommandFailed, match="rename"):
        load(target)
    assert {name: sys.modules[name] for name in modules} == modules
    if ".py" in target:
        assert sys.path == path


def package(root: Path, *, init: bool) -> None:
    (root / "cli_shop" / "inner").mkdir(parents=True)
    for folder in ("cli_shop", "cli_shop/inner"):
        if init:
            (root / folder / "__init__.py").write_text("", "utf-8")
    (root / "cli_shop" / "prices.py").write_text("def price(): return 1\n", "utf-8")
    served = "from ..prices import price\nfrom . import cli_beside\nimport cli_beside as again\n" + APP
    (root / "cli_shop" / "inner" / "served.py").write_text(served + "first.register(None, price)\n", "utf-8")
    (root / "cli_shop" / "inner" / "cli_beside.py").write_text("", "utf-8")


def test_relative_imports_of_a_file_in_a_package(here: Path) -> None:
    package(here / "src", init=True)
    assert "price" in load("src/cli_shop/inner/served.py:first").functions
    assert sys.modules["cli_shop.inner.served"].__package__ == "cli_shop.inner"


@pytest.mark.parametrize(
    "target", ["cli_shop.inner.served", "src/cli_shop/inner/served.py", "cli_shop/inner/served.py"]
)
def test_relative_imports_below_the_app_dir(here: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package(here / "src", init=False)
    if target.endswith(".served"):
        monkeypatch.syspath_prepend(str(here / "src" / "cli_shop" / "inner"))
    assert "price" in load(f"{target}:first", Path("src")).functions
    assert source_of(f"{target}:first", Path("src")) is not None


def test_error_of_a_relative_import_names_the_app_dir(here: Path) -> None:
    package(here / "src", init=False)
    with pytest.raises(CommandFailed, match="no known parent package") as error:
        load("src/cli_shop/inner/served.py:first")
    assert error.value.hints == (f"name the folder that its package lies in:   --app-dir {here / 'src' / 'cli_shop'}",)
    with pytest.raises(CommandFailed, match="--app-dir nowhere: there is no such folder"):
        load("cli_app:first", Path("nowhere"))


def test_settings_override_those_of_a_server() -> None:
    server = load("cli_app:first")
    found = resolve(flags={"resource": ("c",)}, environ={"MPREG_PORT": "0"}, server=own_settings(server))
    assert configured_server(server, found) is server
    assert (server.port, server.name, server.resources, server.peers) == (
        0,
        "first",
        frozenset({"c"}),
        ("ws://127.0.0.1:9001",),
    )


def test_error_of_a_wrong_peer_names_its_source() -> None:
    with pytest.raises(CommandFailed, match=r"'http://x' is not an address: .*\(--peer\)$"):
        configured_server(None, resolve(flags={"peer": ("http://x",)}, environ={}))


def test_open_host_is_refused_without_insecure() -> None:
    with pytest.raises(CommandFailed, match=r"refusing to listen on 0\.0\.0\.0"):
        prepare(None, {"host": "0.0.0.0"}, None)
    assert isinstance(prepare(None, {"host": "0.0.0.0", "insecure": True}, None), Server)
    assert isinstance(prepare(None, {"host": "0.0.0.0", "secret-file": "any.secret"}, None), Server)


def test_secret_of_a_target_and_plain_addresses(here: Path) -> None:
    text = "Server(secret='mpreg_secret_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh85lWVq', host='0.0.0.0')"
    (here / "cli_secured.py").write_text(f"from mpreg_transports import Server\nserver = {text}\n", "utf-8")
    assert prepare("cli_secured.py:server", {}, None).has_secret
    with pytest.raises(CommandFailed, match=r"the peer ws://a:1 is plain text, .* write wss://a:1"):
        prepare("cli_secured.py:server", {"peer": ("ws://a:1",)}, None)
    with pytest.raises(CommandFailed, match=r"the advertised address tcp://a:1 is plain text, .* write tls://a:1"):
        prepare(None, {"secret-file": "any.secret", "advertise": "tcp://a:1"}, None)


def test_source_file_that_reload_watches(here: Path) -> None:
    assert source_of("cli_app.py:first") == Path("cli_app.py")
    assert source_of("cli_app:first") == here / "cli_app.py"
    assert source_of("cli_nope:first") is None
    assert "cli_app" not in sys.modules
