"""Addresses: a valid text gets one normal form, an invalid text an error that shows the right form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpreg_transports.config.addresses import (
    Address,
    Scheme,
    address_evidence,
    can_be_advertised,
    format_address,
    is_loopback,
    is_wildcard,
    parse_address,
    reachable_host,
)


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "path", "normal"),
    [
        ("ws://127.0.0.1:9000", Scheme.WS, "127.0.0.1", 9000, "/", "ws://127.0.0.1:9000"),
        ("ws://host", Scheme.WS, "host", 9001, "/", "ws://host:9001"),
        ("WSS://Host.Example/", Scheme.WSS, "host.example", 9001, "/", "wss://host.example:9001"),
        ("tcp://10.0.0.1:1", Scheme.TCP, "10.0.0.1", 1, "/", "tcp://10.0.0.1:1"),
        ("tls://a:65535/", Scheme.TLS, "a", 65535, "/", "tls://a:65535"),
        ("ws://[::1]:9000", Scheme.WS, "::1", 9000, "/", "ws://[::1]:9000"),
        ("ws://[2001:DB8:0:0::1]", Scheme.WS, "2001:db8::1", 9001, "/", "ws://[2001:db8::1]:9001"),
        ("ws://host/behind/proxy?x=1", Scheme.WS, "host", 9001, "/behind/proxy?x=1", "ws://host:9001/behind/proxy?x=1"),
        ("ws://host?x=1", Scheme.WS, "host", 9001, "/?x=1", "ws://host:9001/?x=1"),
    ],
)
def test_parsed_and_normal_form(text: str, scheme: Scheme, host: str, port: int, path: str, normal: str) -> None:
    address = parse_address(text)
    assert address == Address(scheme, host, port, path)
    assert str(address) == normal
    assert format_address(scheme, host, port=port, path=path) == normal
    assert parse_address(normal) == address


@pytest.mark.parametrize(
    ("text", "words", "example"),
    [
        ("", "empty", "ws://127.0.0.1:9001"),
        ("localhost:9001", "does not start with one of ws://", "ws://localhost:9001"),
        ("http://a", "'http' is none of ws, wss, tcp, tls", "ws://127.0.0.1:9001"),
        ("ws://", "names no host", "ws://127.0.0.1:9001"),
        ("ws://:9001", "names no host", "ws://127.0.0.1:9001"),
        ("ws://::1:9001", "needs brackets", "ws://[::1]:9001"),
        ("tcp://[::1:9001", "brackets are not closed", "tcp://[::1]:9001"),
        ("tcp://[::1]9001", "brackets are not closed", "tcp://[::1]:9001"),
        ("ws://[nonsense]", "'nonsense' is not an IPv6 address", "ws://[::1]:9001"),
        ("ws://a:", "port '' is not a number from 1 to 65535", "ws://127.0.0.1:9001"),
        ("ws://a:0", "port '0'", "ws://127.0.0.1:9001"),
        ("ws://a:65536", "port '65536'", "ws://127.0.0.1:9001"),
        ("ws://a:+80", "port '+80'", "ws://127.0.0.1:9001"),
        ("ws://a:٣", "port '٣'", "ws://127.0.0.1:9001"),
        ("ws://a:" + "9" * 1000, "is not a number from 1 to 65535", "ws://127.0.0.1:9001"),
        ("tls://a/path", "tls:// address has no path", "tls://a"),
        ("ws://a#b", "fragment", "ws://127.0.0.1:9001"),
        ("ws://me:secret@a", "user or password", "ws://127.0.0.1:9001"),
        ("ws://a b", "spaces or control characters", "ws://127.0.0.1:9001"),
        ("ws://a\n", "spaces or control characters", "ws://127.0.0.1:9001"),
        ("ws://a/ü", "percent-encoded", "ws://127.0.0.1:9001"),
        ("ws://" + "a" * 5000, "5005 characters is too long", "ws://127.0.0.1:9001"),
    ],
)
def test_error_of_an_invalid_address(text: str, words: str, example: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_address(text)
    assert words in str(caught.value)
    assert str(caught.value).endswith(f"write it like {example}")


@given(st.text() | st.text(alphabet="ws:/[]1.a@#?%").map(lambda rest: "ws://" + rest))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError as error:
        assert "write it like" in str(error)
    else:
        assert parse_address(str(address)) == address


SEEDS = ("ws://10.0.0.9:9001",)


def test_evidence_for_the_advertised_address_by_strength() -> None:
    rows = [
        ("here", None),
        ("127.0.0.1", None),
        ("127.0.0.1", "ws://10.0.0.5:9001"),
        ("127.0.0.1", SEEDS[0]),
        ("10.0.0.1", None),
        ("10.0.0.1", "ws://10.0.0.5:9001"),
        ("10.0.0.1", SEEDS[0]),
    ]
    found = [address_evidence(host, dialled, seeds=SEEDS) for host, dialled in rows]
    assert found == sorted(set(found)) and found[0] == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "fe80::1%eth0", "169.254.3.3"])
def test_loopback_and_link_local_are_weak_evidence(host: str) -> None:
    best = address_evidence(host, SEEDS[0], seeds=SEEDS)
    assert best < min(address_evidence(other, None, seeds=SEEDS) for other in ("10.0.0.1", "2001:db8::1"))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1",
        "127.9.9.9",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "::1",
        "[::1]",
        "0:0:0:0:0:0:0:1",
        "::ffff:127.0.0.1",
        "[::ffff:7f00:1]",
    ],
)
def test_spellings_of_loopback(host: str) -> None:
    assert is_loopback(host)
    assert not is_wildcard(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "localhost.example",
        "127.0.0.1.example",
        "127.example",
        "128.1",
        "::2",
        "1 ",
        "127.0.0.1 x",
        "[::1",
        "²7.1",
    ],
)
def test_hosts_that_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["", "0", "0.0", "0.0.0.0", "0x0", "::", "[::]", "::0", "::ffff:0.0.0.0"])
def test_spellings_of_the_wildcard(host: str) -> None:
    assert is_wildcard(host)
    assert reachable_host(host) == "127.0.0.1"


def test_hosts_that_others_cannot_reach() -> None:
    assert not can_be_advertised("fe80::1%eth0", listening="::")
    assert not can_be_advertised("fd00::2", listening="0.0.0.0")
    assert can_be_advertised("fd00::2", listening="::")
    assert can_be_advertised("10.0.0.1", listening="0")
