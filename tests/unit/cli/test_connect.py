"""The node that a command asks: its address, and the secret that opens it."""

from pathlib import Path

import pytest

from mpreg_transports.cli.connect import NodeAccess, node_access
from mpreg_transports.cli.errors import CommandFailed
from mpreg_transports.security.secret import Secret, SecretError, write_secret

NOWHERE = Path("/dev/null")
SECRET = Secret(b"x" * 32)


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    file = tmp_path / "shop.secret"
    write_secret(file, SECRET)
    return str(file)


def test_url_in_its_normal_form() -> None:
    assert node_access("WS://LOCALHOST", NOWHERE, environ={}) == NodeAccess("ws://localhost:9001")
    assert node_access(None, NOWHERE, environ={"MPREG_URL": "tcp://a:1"}) == NodeAccess("tcp://a:1")


@pytest.mark.parametrize(
    ("url", "environ", "given_as", "source"),
    [
        ("foo", {}, "--url", "--url"),
        ("foo", {"MPREG_URL": "ws://a:1"}, "URL", "URL"),
        (None, {"MPREG_URL": "foo"}, "URL", "MPREG_URL in the environment"),
    ],
)
def test_error_of_a_url_names_its_source(url: str | None, environ: dict[str, str], given_as: str, source: str) -> None:
    with pytest.raises(CommandFailed, match=r"'foo' is not an address: .*; write it like ws://foo") as error:
        node_access(url, NOWHERE, environ=environ, given_as=given_as)
    assert str(error.value).endswith(f" ({source})")


def test_secret_of_flag_and_environment(secret_file: str) -> None:
    flag = node_access(None, NOWHERE, secret_file, environ={})
    assert flag == NodeAccess("wss://127.0.0.1:9001", SECRET, "default-cluster")
    environ = {"MPREG_SECRET_FILE": secret_file, "MPREG_CLUSTER_ID": "shop", "MPREG_URL": "tls://a:1"}
    assert node_access(None, NOWHERE, environ=environ) == NodeAccess("tls://a:1", SECRET, "shop")
    assert node_access(None, NOWHERE, None, "other", environ=environ).cluster_id == "other"


def test_cluster_without_a_secret_is_not_compared() -> None:
    assert node_access("ws://a:1", NOWHERE, None, "shop", environ={}) == NodeAccess("ws://a:1")


def test_plain_address_with_a_secret(secret_file: str) -> None:
    with pytest.raises(CommandFailed, match=r"ws://a:1/p is plain text, .*; write wss://a:1/p \(--url\)$"):
        node_access("ws://a:1/p", NOWHERE, secret_file, environ={})
    environ = {"MPREG_URL": "tcp://a:1"}
    with pytest.raises(CommandFailed, match=r"write tls://a:1 \(MPREG_URL in the environment\)$"):
        node_access(None, NOWHERE, secret_file, environ=environ)


def test_secret_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="no such file"):
        node_access(None, NOWHERE, str(tmp_path / "none"), environ={})
