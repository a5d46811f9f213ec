"""Settings: the precedence of their sources, the error of a misspelt name, the values of each kind."""

from pathlib import Path

import pytest

from mpreg_transports.config.settings import (
    SETTINGS,
    SettingsError,
    Value,
    config_file,
    debugging,
    kubernetes,
    misspelt,
    read_file,
    resolve,
    resolve_one,
    resolve_url,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(
        'port = 3\nname = "file"\nresource = ["from-file", "too"]\ninsecure = true\nprocesses = 3\n', "utf-8"
    )
    return path


def test_precedence_of_flag_environment_file_and_server(config: Path) -> None:
    server = {"port": 4, "name": "server", "cluster_id": "server", "transport": "websocket"}
    environ = {"MPREG_PORT": "2", "MPREG_NAME": "environment"}
    found = resolve(flags={"port": 1, "host": None}, environ=environ, config=config, server=server)
    assert [(one.setting.name, one.value, one.source) for one in found.values()] == [
        ("url", "ws://127.0.0.1:9001", "default"),
        ("host", "127.0.0.1", "default"),
        ("port", 1, "--port"),
        ("name", "environment", "MPREG_NAME in the environment"),
        ("resource", ("from-file", "too"), str(config)),
        ("peer", (), "default"),
        ("cluster-id", "server", "Server(...)"),
        ("advertise", None, "default"),
        ("transport", "websocket", "Server(...)"),
        ("secret-file", None, "default"),
        ("open-clients", False, "default"),
        ("insecure", True, str(config)),
        ("allow-host", (), "default"),
        ("allow-origin", (), "default"),
        ("processes", 3, str(config)),
        ("journal", None, "default"),
        ("app-dir", None, "default"),
    ]


def test_list_setting_replaces_that_of_a_lower_source(config: Path) -> None:
    server = {"resources": ("own",)}
    assert resolve(flags={}, environ={}, config=config, server=server)["resource"].value == ("from-file", "too")
    environ = {"MPREG_RESOURCE": "a, b c"}
    assert resolve(flags={}, environ=environ, config=config)["resource"].value == ("a", "b", "c")
    flags = {"resource": ("flag",)}
    assert resolve(flags=flags, environ=environ, config=config)["resource"].value == ("flag",)


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_empty_variables_are_unset(config: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {setting.variable: empty for setting in SETTINGS} | {"MPREG_DEBUG": empty}
    assert resolve(flags={}, environ=environ, config=config) == resolve(flags={}, environ={}, config=config)
    assert resolve_url(None, environ=environ, config=config) == resolve_url(None, environ={}, config=config)
    assert not debugging(environ)
    monkeypatch.chdir(config.parent)
    assert config_file(None, {"MPREG_CONFIG": empty}) is None


def test_kubernetes_variables_are_unset() -> None:
    environ = {
        "MPREG_SERVICE_HOST": "10.0.0.1",
        "MPREG_SERVICE_PORT": "9001",
        "MPREG_SERVICE_PORT_RPC": "9001",
        "MPREG_PORT": "tcp://10.0.0.1:9001",
        "MPREG_PORT_9001_TCP": "tcp://10.0.0.1:9001",
        "MPREG_PORT_9001_TCP_PROTO": "tcp",
        "MPREG_PORT_53_UDP_ADDR": "10.0.0.1",
        "MPREG_NODE_PORT": "tcp://10.0.0.1:9001",
    }
    assert resolve(flags={}, environ=environ) == resolve(flags={}, environ={})
    assert resolve_url(None, environ=environ).value == "ws://127.0.0.1:9001"
    assert misspelt(environ) == []
    message = kubernetes(environ)
    assert message is not None and "Kubernetes" in message and "MPREG_PORT=tcp://10.0.0.1:9001" in message
    assert kubernetes({"MPREG_PORT": "9001"}) is None


def test_url_follows_the_host_and_port_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def asked(text: str, environ: dict[str, str] | None = None) -> object:
        (tmp_path / "mpreg.toml").write_text(text, "utf-8")
        return resolve_url(None, environ=environ or {}).value

    assert asked("port = 9107") == "ws://127.0.0.1:9107"
    assert asked('port = 9107\nhost = "0.0.0.0"') == "ws://127.0.0.1:9107"
    assert asked('port = 9107\nhost = "[::1]"') == "ws://[::1]:9107"
    assert asked("port = 0") == "ws://127.0.0.1:9001"
    assert asked("port = 9107", {"MPREG_PORT": "9108"}) == "ws://127.0.0.1:9108"
    assert asked('port = 9107\nurl = "ws://far:1"') == "ws://far:1"
    assert resolve_url(None, environ={}, config=tmp_path / "mpreg.toml").source == str(tmp_path / "mpreg.toml")
    asked("port = 9107")
    assert resolve_url(None, environ={}).source == "port (mpreg.toml)"


def test_client_command_ignores_errors_in_other_settings(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('url = "ws://a:1"\nprt = 1\npeer = "x"\nport = "y"\nzzz = 1\nname = 4\n', "utf-8")
    assert resolve_url(None, environ={"MPREG_INSECURE": "maybe"}, config=file).value == "ws://a:1"
    file.write_text("not TOML", "utf-8")
    assert resolve_url("ws://b:1", environ={"MPREG_PORT": "x"}, config=file).value == "ws://b:1"
    assert resolve_url(None, environ={"MPREG_URL": "ws://c:1", "MPREG_PORT": "x"}, config=file).value == "ws://c:1"
    file.write_text('port = "y"', "utf-8")
    with pytest.raises(SettingsError, match="port in"):
        resolve_url(None, environ={}, config=file)
    file.write_text('ulr = "ws://a:1"', "utf-8")
    with pytest.raises(SettingsError, match="did you mean 'url'"):
        resolve_url(None, environ={}, config=file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark_of_a_config_file(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.toml").write_bytes('name = "ž"\r\n'.encode(encoding))
    assert read_file(tmp_path / "x.toml") == {"name": "ž"}


def test_config_file_is_the_named_one_or_mpreg_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file(None, {}) is None
    Path("mpreg.toml").write_text("port = 7\n", "utf-8")
    assert resolve(flags={}, environ={})["port"].value == 7
    assert config_file(None, {"MPREG_CONFIG": "other.toml"}) == Path("other.toml")
    assert config_file(Path("flag.toml"), {"MPREG_CONFIG": "other.toml"}) == Path("flag.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 5", "unknown key 'prot' in {file}; did you mean 'port'?"),
        ("cluster_id = 'x'", "unknown key 'cluster_id' in {file}; did you mean 'cluster-id'?"),
        ("peers = []", "unknown key 'peers' in {file}; did you mean 'peer'?"),
        ("zzz = 1", "unknown key 'zzz' in {file}; there are url, host, port, name, "),
        ("port = '5'", "port in {file} must be a whole number from 0 to 65535, not '5'; write port = 5"),
        ("port = '1234567'", "port in {file} must be a whole number from 0 to 65535, not '1234567'; write port = 9001"),
        ("port = '70000'", "port in {file} must be a whole number from 0 to 65535, not '70000'; write port = 9001"),
        (
            "port = '0000001234567'",
            "port in {file} must be a whole number from 0 to 65535, not '0000001234567'; write port = 9001",
        ),
        (f"port = '{5_000 * '1'}'", "port in {file} must be a whole number from 0 to 65535, not '111"),
        ("port = ''", "port in {file} must be a whole number from 0 to 65535, not ''; write port = 9001"),
        ("port = true", "port in {file} must be a whole number from 0 to 65535, not true; write port = 9001"),
        ("port = 65536", "port in {file} must be a whole number from 0 to 65535, not 65536; write port = 9001"),
        ("[port]", "port in {file} must be a whole number from 0 to 65535, not a table; write port = 9001"),
        ("name = 5", 'name in {file} must be a text, not 5; write name = "trainer"'),
        ("name = 2020-01-01", 'name in {file} must be a text, not 2020-01-01; write name = "trainer"'),
        ("journal = ''", "journal in {file} must be a text that is not empty, not ''; write journal = "),
        ("host = 'a b'", "host in {file} must be a host name or an IP address, not 'a b'; write host = \"127.0.0.1\""),
        ("peer = 'ws://a:1'", "peer in {file} must be a list of texts, not 'ws://a:1'; write peer = [\"ws://a:1\"]"),
        ("resource = ['a', 1]", "resource in {file} must be a list of texts, not ['a', 1]; write resource = [\"gpu\"]"),
        ("resource = ''", "resource in {file} must be a list of texts, not ''; write resource = [\"gpu\"]"),
        ("resource = ['']", "resource in {file} must be a list of texts that are not empty, not ['']; write resource"),
        ("insecure = 'yes'", "insecure in {file} must be true or false, not 'yes'; write insecure = true"),
        ("insecure = ''", "insecure in {file} must be true or false, not ''; write insecure = false"),
        ("insecure = 0", "insecure in {file} must be true or false, not 0; write insecure = false"),
        ("transport = 'tcp'", "transport in {file} must be one of auto, websocket, not 'tcp'"),
        ("transport = ''", "transport in {file} must be one of auto, websocket, not ''; write transport = \"auto\""),
        ("port = ", "the config file {file} is not TOML: Invalid value (at end of document)"),
    ],
)
def test_error_in_a_config_file_names_key_and_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(SettingsError) as error:
        read_file(file)
    assert str(error.value).startswith(message.format(file=file))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("transport", "tcp", "--transport must be one of auto, websocket, not 'tcp'; write --transport auto"),
        ("transport", "", "--transport must be one of auto, websocket, not ''; write --transport auto"),
        ("resource", ("a", ""), "--resource must be a text that is not empty, not ''; write --resource gpu"),
        ("host", "ws://a", "--host must be a host name or an IP address, not 'ws://a'; write --host 127.0.0.1"),
        ("port", "", "--port must be a whole number from 0 to 65535, not ''; write --port 9001"),
        ("name", "", "--name must be a text that is not empty, not ''; write --name trainer"),
    ],
)
def test_error_of_a_flag(name: str, value: Value, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        resolve(flags={name: value}, environ={})
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "1234567", "be a whole number from 0 to 65535, not '1234567'; write MPREG_PORT=9001"),
        ("PROCESSES", "1025", "be a whole number from 0 to 1024, not 1025; write MPREG_PROCESSES=4"),
        ("INSECURE", "maybe", "be true or false, not 'maybe'; write MPREG_INSECURE=false"),
        ("TRANSPORT", "tcp", "be one of auto, websocket, not 'tcp'; write MPREG_TRANSPORT=auto"),
        ("HOST", "a b", "be a host name or an IP address, not 'a b'; write MPREG_HOST=127.0.0.1"),
    ],
)
def test_error_of_a_variable(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        resolve(flags={}, environ={f"MPREG_{name}": value})
    assert str(error.value) == f"MPREG_{name} in the environment must {message}"


def test_examples_of_errors_are_valid() -> None:
    for setting in SETTINGS:
        assert setting.example
        environ = {setting.variable: setting.example}
        assert resolve(flags={}, environ=environ)[setting.name].source == f"{setting.variable} in the environment"


@pytest.mark.parametrize("host", ["", "localhost", "a.example.com", "127.0.0.1", "::1", "[::1]", "fe80::1%eth0"])
def test_host_settings(host: str) -> None:
    assert resolve(flags={"host": host}, environ={})["host"].value == host


@pytest.mark.parametrize("host", ["127.0.0.1:9002", "a b", "http://a", "a/b", "[::1]:9001", "user@a", "a\n"])
def test_values_that_are_no_host(host: str) -> None:
    with pytest.raises(SettingsError, match="--host must be a host name or an IP address"):
        resolve(flags={"host": host}, environ={})


def test_error_of_an_unreadable_config_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the config file .*none\.toml: no such file"):
        resolve(flags={}, environ={}, config=tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        read_file(tmp_path / "bytes.toml")


@pytest.mark.parametrize("text", ["x", "-1", "70000", "1.0", "tcp://", "٣"])
def test_error_of_an_invalid_port_names_its_variable(text: str) -> None:
    with pytest.raises(SettingsError, match="MPREG_PORT in the environment"):
        resolve(flags={}, environ={"MPREG_PORT": text})


@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("off", False)])
def test_boolean_in_the_environment(text: str, value: bool) -> None:
    assert resolve(flags={}, environ={"MPREG_INSECURE": text})["insecure"].value is value


def test_misspelt_variables() -> None:
    known = {setting.variable: "" for setting in SETTINGS} | {"MPREG_CONFIG": "", "MPREG_DEBUG": "", "PATH": ""}
    assert misspelt(known) == []
    assert misspelt({"MPREG_PROT": ""}) == ["MPREG_PROT in the environment is no setting; did you mean 'MPREG_PORT'?"]


def test_url_of_a_node_here_with_a_secret(tmp_path: Path) -> None:
    for environ in ({}, {"MPREG_PORT": "9005", "MPREG_HOST": "0.0.0.0"}):
        secret = resolve_one("secret-file", "x.secret", environ=environ, config=Path("/dev/null"))
        assert (secret.value, secret.source) == ("x.secret", "--secret-file")
        found = resolve_url(None, environ=environ, config=Path("/dev/null"), secret=secret)
        assert found.value == f"wss://127.0.0.1:{environ.get('MPREG_PORT', 9001)}"
    file = tmp_path / "mpreg.toml"
    file.write_text('secret-file = "file.secret"\nport = "wrong"\n', "utf-8")
    assert resolve_one("secret-file", None, environ={}, config=file).value == "file.secret"
    assert resolve_one("cluster-id", None, environ={}, config=file).source == "default"
    named = {"MPREG_SECRET_FILE": "env.secret"}
    assert resolve_one("secret-file", None, environ=named, config=file).source == "MPREG_SECRET_FILE in the environment"
