"""The secret on the command line: real nodes and commands, and the words for each that does not get in."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_cli import Running, environment, mpreg


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    for name in ("mpreg.secret", "other.secret"):
        done = mpreg("secret", "new", name, cwd=folder)
        assert done.returncode == 0 and done.stdout == "" and "readable for you alone" in done.stderr
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    return folder


@pytest.fixture(scope="module")
def secured(here: Path) -> Iterator[str]:
    """Yield the address of a node with the secret that listens for other machines too."""
    words = ("serve", "--host", "0.0.0.0", "--port", "0", "--name", "front", "--secret-file", "mpreg.secret")
    with Running(*words, cwd=here) as node:
        node.said("listening for other machines at 0.0.0.0:[0-9]+, which need the secret of the cluster")
        yield node.said("ready at (wss://127.0.0.1:[0-9]+)")[1]
        assert node.end(signal.SIGINT)[0] == 0


@pytest.fixture(scope="module")
def plain(here: Path) -> Iterator[str]:
    """Yield the address of a node without a secret."""
    with Running("serve", "--port", "0", cwd=here) as node:
        yield node.said("ready at (ws://127.0.0.1:[0-9]+)")[1]
        assert node.end(signal.SIGINT)[0] == 0


def test_secret_is_made_once(here: Path) -> None:
    done = mpreg("secret", "new", "mpreg.secret", cwd=here)
    assert (done.returncode, done.stdout) == (2, "") and "there is a file mpreg.secret already" in done.stderr
    printed = mpreg("secret", "new", "-", cwd=here)
    assert printed.returncode == 0 and printed.stdout.startswith("mpreg_secret_") and len(printed.stdout) == 62


def test_authority(here: Path) -> None:
    made = [mpreg("secret", "ca", "--secret-file", name, cwd=here).stdout for name in ("mpreg.secret", "other.secret")]
    assert all(text.startswith("-----BEGIN CERTIFICATE-----\n") for text in made) and made[0] != made[1]
    assert mpreg("secret", "ca", "--secret-file", "mpreg.secret", cwd=here).stdout == made[0]
    done = mpreg("secret", "ca", cwd=here)
    assert (done.returncode, done.stdout) == (2, "") and "--secret-file FILE" in done.stderr


def test_second_node_joins_and_commands_use_the_secret(here: Path, secured: str) -> None:
    words = ("serve", "--port", "0", "--name", "second", "--secret-file", "mpreg.secret", "--peer", secured)
    with Running(*words, cwd=here) as second:
        second.said("ready at wss://")
        second.said("front is ALIVE")
        with_secret = ("--secret-file", "mpreg.secret", "--url", secured)
        names = [row["name"] for row in json.loads(mpreg("nodes", "--json", *with_secret, cwd=here).stdout)]
        assert sorted(names) == ["front", "second"]
        assert mpreg("call", "echo", "hi there!", *with_secret, cwd=here).stdout == "hi there!\n"
        assert mpreg("drain", "second", *with_secret, cwd=here).returncode == 0
        assert second.process.wait(20) == 0


def test_secret_from_the_environment_and_a_check(here: Path, secured: str) -> None:
    found = json.loads(mpreg("check", secured, "--secret-file", "mpreg.secret", "--json", cwd=here).stdout)
    assert found["identity"] == "proved by the secret of the cluster, on both sides" and found["problems"] == []
    with Running("config", cwd=here, env=environment(MPREG_SECRET_FILE="mpreg.secret", MPREG_PORT="9005")) as config:
        out, _ = config.process.communicate(timeout=20)
    assert "MPREG_SECRET_FILE in" in out and "wss://127.0.0.1:9005" in out and "mpreg_secret_" not in out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--secret-file", "other.secret"], 6, "a node of cluster 'default-cluster', but with another secret"),
        (
            ["--secret-file", "mpreg.secret", "--cluster-id", "shop"],
            6,
            "of another cluster: of 'default-cluster', and this command is for 'shop'",
        ),
        ([], 6, "a node of cluster 'default-cluster', which has a secret\n  give it:   --secret-file FILE"),
        (["--secret-file", "none.secret"], 2, "no such file or directory; make one with: mpreg secret new FILE"),
    ],
    ids=["another secret", "another cluster", "no secret", "no file"],
)
def test_check_explains_who_does_not_get_in(here: Path, secured: str, words: list[str], code: int, text: str) -> None:
    for command in (("check",), ("call", "echo", "1")):
        done = mpreg(*command, "--url", secured, *words, cwd=here)
        assert (done.returncode, done.stdout) == (code, "") and text in done.stderr


def test_check_explains_plain_text_against_tls(here: Path, secured: str) -> None:
    for scheme, code in (("ws", 3), ("tcp", 6)):
        done = mpreg("check", secured.replace("wss", scheme), cwd=here)
        assert done.returncode == code and "this node serves TLS only" in done.stderr
        done = mpreg("check", secured.replace("wss", scheme), "--secret-file", "mpreg.secret", cwd=here)
        assert done.returncode == 2 and "is plain text, and with a secret all is encrypted; write " in done.stderr


def test_check_explains_tls_against_plain_text(here: Path, plain: str) -> None:
    for more in ((), ("--secret-file", "mpreg.secret")):
        done = mpreg("check", plain.replace("ws", "wss"), *more, cwd=here)
        assert done.returncode == 3 and "it hung up in the TLS handshake; does it speak plain text?" in done.stderr


def test_node_without_the_right_secret_says_why(here: Path, secured: str) -> None:
    with Running("serve", "--port", "0", "--secret-file", "other.secret", "--peer", secured, cwd=here) as stranger:
        stranger.said("another secret or cluster id")
        assert stranger.end(signal.SIGINT)[0] == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--secret-file", "none.secret"], "cannot read the secret file none.secret: no such file or directory"),
        (["--secret-file", "mpreg.secret", "--peer", "ws://a:1"], "write wss://a:1"),
        (["--host", "0.0.0.0"], "Make a secret for the cluster (mpreg secret new)"),
    ],
)
def test_node_that_does_not_start(here: Path, words: list[str], text: str) -> None:
    done = mpreg("serve", "--port", "0", *words, cwd=here)
    assert (done.returncode, done.stdout) == (2, "") and text in done.stderr


def test_dev_cluster_with_a_secret_of_the_config_file(here: Path, tmp_path: Path) -> None:
    (tmp_path / "mpreg.toml").write_text(f'secret-file = "{here / "mpreg.secret"}"\n')
    with Running("dev", "--nodes", "2", cwd=tmp_path) as dev:
        url = dev.said("mpreg functions --url (wss://127.0.0.1:[0-9]+)")[1]
        found = mpreg("nodes", "--json", cwd=tmp_path, url=url)
        assert {row["name"] for row in json.loads(found.stdout)} <= {"node-1", "node-2"} and found.stdout != "[]\n"
        assert dev.end(signal.SIGINT)[0] == 0
