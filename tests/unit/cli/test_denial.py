"""The words for a node and a command that do not accept each other."""

import pytest

from mpreg_transports.cli.denial import explain_denial
from mpreg_transports.security.contexts import Credentials
from mpreg_transports.security.secret import Secret
from tests.helpers.loopback import listening

pytestmark = pytest.mark.anyio

SECRET = Secret(b"x" * 32)


@pytest.mark.parametrize(
    ("theirs", "own", "text", "hint"),
    [
        ("shop", "shop", "is a node of cluster 'shop', but with another secret", "compare the secret files"),
        ("shop", "other", "of 'shop', and this command is for 'other'", "name its cluster:   --cluster-id shop"),
        ("shop", None, "is a node of cluster 'shop', which has a secret", "give it:   --secret-file FILE"),
        ("a b; c", "d", "of 'a b; c', and", "name its cluster:   --cluster-id 'a b; c'"),
        ("läden/1", "d", "of 'läden/1', and", "--cluster-id 'läden/1'"),
        ("x\x1b[2J", "d", r"of 'x\x1b[2J', and", "--cluster-id"),
    ],
)
async def test_reason_by_the_certificate_that_a_node_shows(theirs: str, own: str | None, text: str, hint: str) -> None:
    async with listening(tls=Credentials(SECRET, theirs)) as listener:
        url = f"wss://127.0.0.1:{listener.port}"
        first, second = await explain_denial(url, own)
    assert first.startswith(url) and text in first and hint in second


async def test_long_name_is_cut() -> None:
    async with listening(tls=Credentials(SECRET, "x" * 1000)) as listener:
        assert all(len(line) < 250 for line in await explain_denial(f"tls://127.0.0.1:{listener.port}", "shop"))


async def test_node_that_has_gone_since() -> None:
    async with listening(tls=Credentials(SECRET, "shop")) as listener:
        url = f"wss://127.0.0.1:{listener.port}"
    (line,) = await explain_denial(url, "shop")
    assert line.startswith(f"cannot reach a node at {url}: ")


async def test_certificate_of_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpreg_transports.security.authority.role_uri", lambda cluster, role: "https://example.com/")
    foreign = Credentials(SECRET, "shop")
    monkeypatch.undo()
    async with listening(tls=foreign) as listener:
        text, hint = await explain_denial(f"wss://127.0.0.1:{listener.port}", "shop")
    assert "is of no node of a cluster with a secret" in text and "leave --secret-file out" in hint
