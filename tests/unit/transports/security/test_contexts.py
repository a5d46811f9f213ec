"""The TLS contexts: who gets through a handshake, as what, and with what OpenSSL checks strictly."""

import os
import ssl
import tempfile
from pathlib import Path

import pytest

from mpreg_proto.wire.handshake import Authentication
from mpreg_transports.security import contexts
from mpreg_transports.security.authority import Role
from mpreg_transports.security.contexts import Credentials, authority_pem
from mpreg_transports.security.secret import Secret

SECRET, OTHER = Secret(bytes(range(32))), Secret(b"x" * 32)


def shake_hands(dialling: ssl.SSLContext, listening: ssl.SSLContext, host: str | None = None) -> ssl.SSLObject:
    """Return the listening end of a handshake in memory. Raises the first error of either end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = dialling.wrap_bio(to_client, to_server, server_hostname=host)
    server = listening.wrap_bio(to_server, to_client, server_side=True)
    open_ends = [client, server]
    while open_ends:
        for end in list(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                pass
    client.write(b"hello")
    assert server.read(5) == b"hello"
    server.write(b"world")
    assert client.read(5) == b"world"
    return server


def admitted(dialling: Credentials, listening: Credentials) -> Authentication:
    return listening.verdict(shake_hands(dialling.dialling, listening.listening).getpeercert())


def test_two_nodes_of_one_secret() -> None:
    one, other = Credentials(SECRET, "shop"), Credentials(SECRET, "shop", open_clients=True)
    assert admitted(one, other) is admitted(other, one) is Authentication.NODE


def test_tls_1_3_and_strict_verification() -> None:
    one = Credentials(SECRET, "shop")
    assert shake_hands(one.dialling, one.listening).version() == "TLSv1.3"
    for context in (one.dialling, one.listening):
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake_hands(old, one.listening)


def test_client_with_the_secret_is_no_node() -> None:
    node, client = Credentials(SECRET, "shop"), Credentials(SECRET, "shop", role=Role.CLIENT)
    assert admitted(client, node) is Authentication.CLIENT


def test_certificate_of_a_client_does_not_serve() -> None:
    """A peer that was dialled is a node: a client's certificate is for the dialling side alone."""
    node, client = Credentials(SECRET, "shop"), Credentials(SECRET, "shop", role=Role.CLIENT)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(unsuitable|unsupported) certificate purpose"):
        shake_hands(node.dialling, client.listening)


@pytest.mark.parametrize(
    ("secret", "cluster"), [(OTHER, "shop"), (SECRET, "other"), (OTHER, "other")], ids=["secret", "cluster", "both"]
)
def test_another_secret_or_cluster(secret: Secret, cluster: str) -> None:
    one, other = Credentials(SECRET, "shop"), Credentials(secret, cluster)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(other.dialling, one.listening)
    # If the dialling end verifies nothing, the listening one still refuses its certificate.
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    contexts._load_certificate(careless, contexts.Authority(secret, cluster).issue(Role.NODE))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(careless, one.listening)


@pytest.mark.parametrize(("open_clients", "verdict"), [(False, Authentication.NONE), (True, Authentication.CLIENT)])
def test_peer_without_a_certificate(open_clients: bool, verdict: Authentication) -> None:
    node = Credentials(SECRET, "shop", open_clients=open_clients)
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    server = shake_hands(anybody, node.listening)
    assert server.getpeercert() is None and node.verdict(None) is verdict


def test_program_that_compares_host_names() -> None:
    node = Credentials(SECRET, "shop", hosts=["node.example.com", "127.0.0.1"])
    curl = ssl.create_default_context(cadata=authority_pem(SECRET, "shop"))
    curl.verify_flags |= ssl.VERIFY_X509_STRICT
    for host in ("node.example.com", "127.0.0.1"):
        shake_hands(curl, node.listening, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(curl, node.listening, "other.example.com")


def test_no_session_is_resumed() -> None:
    assert Credentials(SECRET, "shop").listening.num_tickets == 0


@pytest.mark.parametrize(
    "names",
    [
        (),
        (("DNS", "mpreg:shop/node"),),
        (("URI", "mpreg:other/node"),),
        (("URI", "mpreg:shop/node/"),),
        (("URI", "MPREG:shop/node"),),
        (("URI", "mpreg:shop/node"), ("URI", "mpreg:shop/client")),
    ],
)
def test_names_that_prove_no_role(names: tuple[tuple[str, str], ...]) -> None:
    assert Credentials(SECRET, "shop").verdict({"subjectAltName": names}) is Authentication.NONE


def test_key_by_a_private_file_where_there_is_no_memfd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[tuple[int, bytes]] = []

    def note(path: str) -> None:
        seen.append((os.stat(path).st_mode & 0o777, Path(path).read_bytes()))
        os.remove(path)

    monkeypatch.setattr(contexts.os, "unlink", note)
    one = Credentials(SECRET, "shop")
    monkeypatch.undo()
    assert admitted(one, Credentials(SECRET, "shop")) is Authentication.NODE
    assert seen and not list(tmp_path.iterdir())
    for mode, content in seen:
        assert mode == 0o600 and b"ENCRYPTED PRIVATE KEY" in content and b"BEGIN PRIVATE KEY" not in content


def test_no_descriptor_is_left() -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    Credentials(SECRET, "shop")
    before = open_files()
    for _ in range(5):
        Credentials(SECRET, "shop")
    assert open_files() == before
