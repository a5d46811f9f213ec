"""The TLS contexts of a node or client that has the secret, and the verdict on a peer's certificate.

Links and the listener use the contexts; both ends verify each other's certificate with the authority of the cluster,
whatever its host. The listening side accepts a peer without a certificate (a browser, a client), and `verdict` is the
verdict that the core gets for its link.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from mpreg_proto.wire.handshake import Authentication
from mpreg_transports.security.authority import Authority, Issued, Role, role_uri
from mpreg_transports.security.secret import Secret


class Credentials:
    """The proof of one node or client, and its check of others: an own certificate, and the authority's.

    `hosts` are the names and addresses of a node, for programs that compare them, such as curl. With `open_clients`
    peers that prove nothing may be clients.
    """

    def __init__(
        self,
        secret: Secret,
        cluster_id: str,
        *,
        role: Role = Role.NODE,
        hosts: Iterable[str] = (),
        open_clients: bool = False,
    ) -> None:
        self.cluster_id = cluster_id
        authority = Authority(secret, cluster_id)
        own = authority.issue(role, hosts=hosts)
        trusted = authority.certificate.public_bytes(Encoding.DER)
        self.listening: ssl.SSLContext = _context(ssl.PROTOCOL_TLS_SERVER, own, trusted)
        self.listening.verify_mode = ssl.CERT_OPTIONAL
        # No resumption: each handshake proves its certificate again, and nothing of one can be replayed.
        self.listening.num_tickets = 0
        self.dialling: ssl.SSLContext = _context(ssl.PROTOCOL_TLS_CLIENT, own, trusted)
        self.dialling.check_hostname = False  # a member of the cluster is one at any address
        self._verdicts = {
            role_uri(cluster_id, Role.NODE): Authentication.NODE,
            role_uri(cluster_id, Role.CLIENT): Authentication.CLIENT,
        }
        self._without = Authentication.CLIENT if open_clients else Authentication.NONE

    def verdict(self, certificate: dict[str, Any] | None) -> Authentication:
        """Return the verdict on a peer of a finished handshake, from `SSLObject.getpeercert()`."""
        names = (certificate or {}).get("subjectAltName", ())
        uris = [value for kind, value in names if kind == "URI"]
        return self._verdicts.get(uris[0], self._without) if len(uris) == 1 else self._without


def authority_pem(secret: Secret, cluster_id: str) -> str:
    """Return the authority's certificate as text, for programs that verify a node by it, such as curl."""
    return Authority(secret, cluster_id).certificate.public_bytes(Encoding.PEM).decode()


def _context(protocol: int, own: Issued, trusted: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=trusted)
    _load_certificate(context, own)
    return context


def _load_certificate(context: ssl.SSLContext, own: Issued) -> None:
    """Load a certificate and its key, which Python takes from a file only: one in memory, where there are such."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # without /proc
            return _load_from_memory(context, own)
    return _load_from_file(context, own)


def _load_from_memory(context: ssl.SSLContext, own: Issued) -> None:
    descriptor = os.memfd_create("mpreg certificate")
    with open(descriptor, "wb", buffering=0) as file:
        file.write(_pem(own, NoEncryption()))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _load_from_file(context: ssl.SSLContext, own: Issued) -> None:
    """Load them from a private file that is removed at once; should it stay, its random password is lost."""
    password = secrets.token_bytes(32).hex()
    descriptor, path = tempfile.mkstemp(prefix="mpreg-")
    try:
        with open(descriptor, "wb") as file:
            file.write(_pem(own, BestAvailableEncryption(password.encode())))
        context.load_cert_chain(path, password=password)
    finally:
        os.unlink(path)


def _pem(own: Issued, encryption: KeySerializationEncryption) -> bytes:
    key = own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return key + own.certificate.public_bytes(Encoding.PEM)
