"""The certificate authority of a cluster, and the certificates that it issues.

Every node derives the same authority from the secret: the same P-256 key, serial number, subject and dates, and a
deterministic signature (RFC 6979), so also the same bytes. At its start each node makes a key and a certificate for
itself, in memory. P-256 and not Ed25519, as browsers do not accept the latter. The certificates are valid from 2000 to
9999: no handshake needs a clock, and nothing has to be renewed; a new secret ends them all. Their form satisfies
OpenSSL's X509_STRICT, which Python 3.13 sets by default.
"""

from __future__ import annotations

import datetime
import enum
import ipaddress
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpreg_transports.security.derivation import Use, derive
from mpreg_transports.security.secret import Secret

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of P-256 (FIPS 186-5; SEC 2, section 2.4.2)."""
_FIRST_DAY = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_LAST_SECOND = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280, section 4.1.2.5: a certificate without an expiration date."""
_SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mpreg cluster authority")])
_SERIAL = 1


class Role(enum.Enum):
    """The role that a certificate proves, and the last part of its URI."""

    NODE = "node"
    CLIENT = "client"


class Issued(NamedTuple):
    """A new certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Authority:
    """The authority of one secret and one cluster."""

    def __init__(self, secret: Secret, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self._key = _derived_key(secret, cluster_id)
        self._key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self.certificate: x509.Certificate = self._own_certificate()

    def issue(self, role: Role, *, hosts: Iterable[str] = ()) -> Issued:
        """Return a certificate with a new key for a node or a client. `hosts` are its names and IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role is Role.NODE:
            uses.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        names = [x509.UniformResourceIdentifier(role_uri(self.cluster_id, role)), *_host_names(hosts)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mpreg {role.value}")]))
            .issuer_name(_SUBJECT)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_FIRST_DAY)
            .not_valid_after(_LAST_SECOND)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._key_id), critical=False)
        )
        return Issued(builder.sign(self._key, SHA256()), key)

    def _own_certificate(self) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_SUBJECT)
            .issuer_name(_SUBJECT)
            .public_key(self._key.public_key())
            .serial_number(_SERIAL)
            .not_valid_before(_FIRST_DAY)
            .not_valid_after(_LAST_SECOND)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(self._key_id, critical=False)
        )
        return builder.sign(self._key, SHA256(), ecdsa_deterministic=True)


def role_uri(cluster_id: str, role: Role) -> str:
    """Return the URI by which a certificate names a role in a cluster."""
    return f"mpreg:{quote(cluster_id, safe='')}/{role.value}"


def _derived_key(secret: Secret, cluster_id: str) -> ec.EllipticCurvePrivateKey:
    """Return the private key, drawn evenly: FIPS 186-5, A.2.1, with 128 bits more than the order has."""
    drawn = int.from_bytes(derive(secret, Use.AUTHORITY, cluster_id, length=48), "big")
    return ec.derive_private_key(drawn % (_ORDER - 1) + 1, ec.SECP256R1())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    """Return the names of hosts, each once; what can be no name in a certificate is left out."""
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.partition("%")[0])))
        except ValueError:
            try:
                names.append(x509.DNSName(host.encode("idna").decode("ascii")))
            except (ValueError, UnicodeError):
                continue
    return names
