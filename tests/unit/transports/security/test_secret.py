"""The secret: its text, its file, and that nothing shows it by accident."""

import copy
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpreg_transports.security.secret import (
    PREFIX,
    Secret,
    SecretError,
    new_secret,
    parse_secret,
    read_secret,
    write_secret,
)

KEY = bytes(range(32))
TEXT = "mpreg_secret_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh85lWVq"


@given(st.binary(min_size=32, max_size=32))
def test_text_form_there_and_back(key: bytes) -> None:
    text = Secret(key).reveal()
    assert text.startswith(PREFIX) and text.isascii() and len(text) == 61
    assert parse_secret(f" {text}\n").key == key


def test_text_form_is_fixed() -> None:
    assert Secret(KEY).reveal() == TEXT


@given(st.binary(min_size=32, max_size=32), st.integers(0, 60), st.characters(codec="ascii"))
def test_one_changed_character_is_refused_and_not_shown(key: bytes, at: int, other: str) -> None:
    text = Secret(key).reveal()
    changed = text[:at] + other + text[at + 1 :]
    if changed.strip() == text:
        return
    with pytest.raises(SecretError) as caught:
        parse_secret(changed)
    assert text[len(PREFIX) + 4 : len(PREFIX) + 12] not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; make one with: mpreg secret new FILE"),
        ("  \n", "is empty"),
        ("hunter2", "does not start with mpreg_secret_, and a chosen password could be guessed"),
        ("mpreg_secret_hunter2", "7 characters after mpreg_secret_, not 48; copy it again"),
        (TEXT[:-1], "47 characters"),
        (TEXT + "A", "49 characters"),
        (TEXT[:-1] + "!", "a character that no secret has"),
        (TEXT[:-1] + "é", "a character that no secret has"),
        (TEXT[:-1] + "+", "a character that no secret has"),
        (TEXT[:-1] + "A", "its checksum does not match"),
        (TEXT.lower(), "its checksum does not match"),
    ],
)
def test_errors_in_words(text: str, words: str) -> None:
    with pytest.raises(SecretError) as caught:
        parse_secret(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", [None, b"mpreg_secret_", 5])
def test_text_of_another_type(value: object) -> None:
    with pytest.raises(SecretError, match="a secret is a text, not of type"):
        parse_secret(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33, "x" * 32])
def test_key_of_another_length_or_type(key: bytes) -> None:
    with pytest.raises(SecretError, match="32 random bytes"):
        Secret(key)


def test_new_secrets_differ() -> None:
    assert new_secret() != new_secret()
    assert new_secret(lambda size: KEY[:size]) == Secret(KEY)
    assert len({Secret(KEY), Secret(KEY), new_secret()}) == 2
    assert Secret(KEY) != TEXT


def test_nothing_shows_a_secret_by_accident() -> None:
    secret = Secret(KEY)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", repr([secret])):
        assert "Secret(...)" in shown
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle a Secret"):
            copied(secret)


# -- files ------------------------------------------------------------------------------------------------------------


def test_file_there_and_back_of_mode_0600(tmp_path: Path) -> None:
    file, secret = tmp_path / "cluster.secret", new_secret()
    write_secret(file, secret)
    assert read_secret(file) == secret == read_secret(str(file))
    assert file.read_text() == secret.reveal() + "\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_file_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "cluster.secret"
    write_secret(file, Secret(KEY))
    with pytest.raises(SecretError, match=r"there is a file .* already"):
        write_secret(file, new_secret())
    assert read_secret(file) == Secret(KEY)


def test_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="there is no folder"):
        write_secret(tmp_path / "none" / "cluster.secret", Secret(KEY))
    with pytest.raises(SecretError):
        write_secret(tmp_path, Secret(KEY))


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="no such file or directory; make one with"):
        read_secret(tmp_path / "none")
    with pytest.raises(SecretError, match="cannot read the secret file"):
        read_secret(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hunter2", b"\xff" * 61, TEXT.encode()[:-2], TEXT.encode() * 1000])
def test_file_that_holds_no_secret(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "cluster.secret"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(SecretError, match=r"cluster\.secret: "):
        read_secret(file)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o610, 0o601])
def test_file_that_others_can_read_or_change(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "cluster.secret"
    write_secret(file, Secret(KEY))
    file.chmod(mode)
    with pytest.raises(SecretError, match=rf"has mode {mode:04o}: others may use it; run chmod 600"):
        read_secret(file)


def test_pipe_in_place_of_a_file() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, TEXT.encode() + b"\n")
        os.close(writer)
        assert read_secret(f"/dev/fd/{reader}") == Secret(KEY)
    finally:
        os.close(reader)
