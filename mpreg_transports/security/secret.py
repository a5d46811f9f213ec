"""The secret of a cluster: its text form, and its file.

The text is `mpreg_secret_`, then 32 random bytes and a checksum in base64url (RFC 4648, section 5). Everybody who can
connect to a node sees the public key of the authority that is derived from the secret, and could try guesses without
any further connection. Therefore only a secret that `new_secret` made is accepted: the checksum refuses a text that a
person has chosen. No error and no `repr` contains the secret or a part of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mpreg_proto.errors import MpregError
from mpreg_transports.config.system_errors import error_reason, no_file_possible

PREFIX = "mpreg_secret_"
SECRET_BYTES = 32
_CHECKSUM_BYTES = 4
_LENGTH = (SECRET_BYTES + _CHECKSUM_BYTES) * 4 // 3
"""The characters after the prefix. They hold whole bytes, so that each secret has one text."""
_MAKE_ONE = "make one with: mpreg secret new FILE"
_LONGEST_FILE = 4096


class SecretError(MpregError, ValueError):
    """A text or a file that is no secret, or that others can read. The text gives the reason and what to do."""


class Secret:
    """The secret of a cluster. `str` and `repr` do not show it; `reveal` returns its text."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take the 32 random bytes."""
        if type(key) is not bytes or len(key) != SECRET_BYTES:
            raise SecretError(f"a secret has {SECRET_BYTES} random bytes; {_MAKE_ONE}")
        self._key = key

    @property
    def key(self) -> bytes:
        """The random bytes, from which keys are derived."""
        return self._key

    def reveal(self) -> str:
        """Return the text form, for the file of `mpreg secret new`."""
        return PREFIX + base64.urlsafe_b64encode(self._key + _checksum(self._key)).decode()

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._key, other._key) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._key))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled: a pickle is sent or written somewhere."""
        raise TypeError("cannot pickle a Secret; pass the path of its file")


def new_secret(entropy: Callable[[int], bytes] = os.urandom) -> Secret:
    """Return a new secret."""
    return Secret(entropy(SECRET_BYTES))


def parse_secret(text: str) -> Secret:
    """Return the secret in a text that `Secret.reveal` has returned; blanks around it are ignored. Raises SecretError.

    The errors of a damaged copy and of a text that was never a secret differ.
    """
    if not isinstance(text, str):
        raise SecretError(f"a secret is a text, not of type {type(text).__name__}; {_MAKE_ONE}")
    given = text.strip()
    if not given:
        raise SecretError(f"the secret is empty; {_MAKE_ONE}")
    if not given.startswith(PREFIX):
        raise SecretError(
            f"this is no secret of mpreg: it does not start with {PREFIX}, and a chosen password could be guessed; "
            + _MAKE_ONE
        )
    encoded = given.removeprefix(PREFIX)
    if len(encoded) != _LENGTH:
        raise SecretError(
            f"the secret is damaged: it has {len(encoded)} characters after {PREFIX}, not {_LENGTH}; copy it again"
        )
    if not re.fullmatch("[A-Za-z0-9_-]+", encoded):
        raise SecretError("the secret is damaged: it has a character that no secret has; copy it again")
    decoded = base64.urlsafe_b64decode(encoded)
    key, checksum = decoded[:SECRET_BYTES], decoded[SECRET_BYTES:]
    if not hmac.compare_digest(checksum, _checksum(key)):
        raise SecretError("the secret is damaged: its checksum does not match; copy it again")
    return Secret(key)


def read_secret(file: str | os.PathLike[str]) -> Secret:
    """Return the secret in a file. Raises SecretError, also for a file that other users can read.

    As for the keys of PostgreSQL, the group may read a file of root: so a container runtime mounts secrets.
    """
    path = Path(file)
    try:
        with path.open("rb") as opened:
            _check_mode(path, os.fstat(opened.fileno()))
            data = opened.read(_LONGEST_FILE)
    except OSError as error:
        raise SecretError(f"cannot read the secret file {path}: {error_reason(error)}; {_MAKE_ONE}") from None
    try:
        return parse_secret(data.decode("ascii", "replace"))
    except SecretError as error:
        raise SecretError(f"{path}: {error}") from None


def given_secret(secret: Secret | str | None, secret_file: object) -> Secret | None:
    """Return the argument `secret`, parsed if it is a text. Raises SecretError, and ValueError if both are given."""
    if secret is None:
        return None
    if secret_file is not None:
        raise ValueError("secret= and secret_file= are both given; give one")
    return secret if isinstance(secret, Secret) else parse_secret(secret)


def write_secret(file: str | os.PathLike[str], secret: Secret) -> None:
    """Write a secret to a new file of mode 0600. Raises SecretError, also if there is such a file already."""
    path = Path(file)
    try:
        # Of this mode from the start: no moment in which others could read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SecretError(f"there is a file {path} already; name another, or remove that one") from None
    except OSError as error:
        why = no_file_possible(path, example="cluster.secret") or error_reason(error)
        raise SecretError(f"cannot write the secret file {path}: {why}") from None
    with open(descriptor, "w", encoding="ascii", newline="\n") as opened:
        opened.write(secret.reveal() + "\n")


def _check_mode(path: Path, found: os.stat_result) -> None:
    """Raise SecretError for a regular file that other users can read or change."""
    if sys.platform == "win32" or not stat.S_ISREG(found.st_mode):  # a pipe has no readers but this process
        return
    of_root = found.st_uid == 0 and os.geteuid() != 0
    if stat.S_IMODE(found.st_mode) & (0o037 if of_root else 0o077):
        mode = stat.S_IMODE(found.st_mode)
        raise SecretError(f"the secret file {path} has mode {mode:04o}: others may use it; run chmod 600 {path}")


def _checksum(key: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + key).digest()[:_CHECKSUM_BYTES]
