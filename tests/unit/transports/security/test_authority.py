"""The authority of a cluster: the same bytes on every node; and the profile of what it issues."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from mpreg_transports.security.authority import Authority, Role, role_uri
from mpreg_transports.security.secret import Secret

SECRET = Secret(bytes(range(32)))


def test_pinned_fingerprint() -> None:
    """Whatever the version of Python, of cryptography and of OpenSSL: else nodes of one cluster would not agree."""
    made = Authority(SECRET, "default-cluster").certificate
    assert made.fingerprint(SHA256()).hex() == "f076271ce966a380674d9a87c0dcfd7d4f3e212d18d97fa3b61c2e1c7abd9b55"


def test_another_authority_for_another_cluster_or_secret() -> None:
    made = {
        Authority(secret, cluster).certificate.public_bytes(Encoding.DER)
        for secret in (SECRET, Secret(b"x" * 32))
        for cluster in ("a", "b")
        for _ in range(2)
    }
    assert len(made) == 4


def test_profile_of_the_authority() -> None:
    made = Authority(SECRET, "shop").certificate
    assert made.serial_number == 1 and made.subject == made.issuer and "shop" not in made.subject.rfc4514_string()
    assert made.not_valid_before_utc == datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    assert made.not_valid_after_utc == datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical and basic.value.ca and basic.value.path_length == 0
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and not usage.value.digital_signature
    key = made.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    made.verify_directly_issued_by(made)


@pytest.mark.parametrize("role", list(Role))
def test_profile_of_an_issued_certificate(role: Role) -> None:
    authority = Authority(SECRET, "shop")
    made, key = authority.issue(role, hosts=["node.example.com", "10.0.0.5", "::1", "fe80::1%eth0", "10.0.0.5"])
    made.verify_directly_issued_by(authority.certificate)
    assert made.public_key() == key.public_key()
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign
    uses = list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert uses == (both if role is Role.NODE else both[1:])
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"mpreg:shop/{role.value}"]
    assert names.get_values_for_type(x509.DNSName) == ["node.example.com"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5", "::1", "fe80::1"]
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == own.digest


def test_new_key_and_serial_number_each_time() -> None:
    authority = Authority(SECRET, "shop")
    one, other = (authority.issue(Role.NODE).certificate for _ in range(2))
    assert one.serial_number != other.serial_number and one.public_key() != other.public_key()


@pytest.mark.parametrize("host", ["", "a..b", "x" * 300, "no host"])
def test_host_that_can_be_no_name_is_left_out(host: str) -> None:
    made = Authority(SECRET, "shop").issue(Role.NODE, hosts=[host, "ok"]).certificate
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "ok" in names.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize(
    ("cluster", "uri"),
    [
        ("shop", "mpreg:shop/node"),
        ("", "mpreg:/node"),
        ("a/node", "mpreg:a%2Fnode/node"),
        ("läden 1", "mpreg:l%C3%A4den%201/node"),
    ],
)
def test_uri_of_a_cluster(cluster: str, uri: str) -> None:
    assert role_uri(cluster, Role.NODE) == uri
