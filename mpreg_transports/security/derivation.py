"""Keys from the secret: HKDF with SHA-256 (RFC 5869), one label for each use.

The label and the cluster id are the `info` of HKDF. So no key of one use or cluster says anything about another, and
nodes that share a secret but not a cluster id do not accept each other.
"""

from __future__ import annotations

import enum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpreg_transports.security.secret import Secret

_SALT = b"mpreg.1"


class Use(enum.Enum):
    """The label of each use. Changing one changes the keys of every cluster."""

    AUTHORITY = b"certificate authority"


def derive(secret: Secret, use: Use, cluster_id: str, *, length: int) -> bytes:
    """Return `length` bytes for one use in one cluster; the same on every node."""
    info = use.value + b"\0" + cluster_id.encode()  # no label holds a NUL, so no two pairs have one info
    return HKDF(algorithm=SHA256(), length=length, salt=_SALT, info=info).derive(secret.key)
