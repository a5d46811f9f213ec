"""Keys from the secret: HKDF of RFC 5869, checked by an implementation of its own."""

import hashlib
import hmac

import pytest

from mpreg_transports.security.derivation import Use, derive
from mpreg_transports.security.secret import Secret

SECRET = Secret(bytes(range(32)))


def hkdf(key: bytes, info: bytes, length: int) -> bytes:
    """Return the output of RFC 5869, sections 2.2 and 2.3, with this project's salt."""
    extracted = hmac.digest(b"mpreg.1", key, hashlib.sha256)
    output, block, number = b"", b"", 0
    while len(output) < length:
        number += 1
        block = hmac.digest(extracted, block + info + bytes([number]), hashlib.sha256)
        output += block
    return output[:length]


@pytest.mark.parametrize("cluster", ["", "default-cluster", "läden", "a\0b"])
@pytest.mark.parametrize("use", list(Use))
def test_rfc_5869_with_label_and_cluster_in_the_info(use: Use, cluster: str) -> None:
    for length in (16, 32, 48, 100):
        expected = hkdf(SECRET.key, use.value + b"\0" + cluster.encode(), length)
        assert derive(SECRET, use, cluster, length=length) == expected


def test_another_key_for_another_cluster_or_secret() -> None:
    keys = {
        derive(secret, Use.AUTHORITY, cluster, length=32)
        for secret in (SECRET, Secret(b"x" * 32))
        for cluster in ("a", "b", "")
    }
    assert len(keys) == 6


def test_no_label_holds_a_nul_or_repeats() -> None:
    labels = [use.value for use in Use]
    assert len(set(labels)) == len(labels) and not any(b"\0" in label for label in labels)
