"""Addresses of nodes, as people write them: `ws://host:9001/path`, `wss://`, `tcp://`, `tls://`.

The text comes from flags, files, `Client(...)` and gossip of other nodes. `parse_address` converts it to an `Address`,
and `str(address)` converts it back to the one normal form. `normal_host` does the same for a host alone. Nothing here
looks up a name or opens anything.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
from collections.abc import Collection
from dataclasses import dataclass

DEFAULT_PORT = 9001
"""The port of an address that names none (browsers block 6666, the port of the original prototype)."""

_LONGEST = 2048  # a URL longer than this is a mistake or an attack, and error messages quote it


class Scheme(enum.Enum):
    """The protocol at an address."""

    WS = "ws"
    WSS = "wss"
    TCP = "tcp"
    TLS = "tls"

    @property
    def is_websocket(self) -> bool:
        """True if it is WebSocket, where a path has a meaning."""
        return self in (Scheme.WS, Scheme.WSS)

    @property
    def is_tls(self) -> bool:
        """True if its bytes are encrypted."""
        return self in (Scheme.WSS, Scheme.TLS)

    @property
    def with_tls(self) -> Scheme:
        """The scheme of the same protocol in TLS."""
        return Scheme.WSS if self.is_websocket else Scheme.TLS


_EXAMPLES = {scheme: f"{scheme.value}://127.0.0.1:{DEFAULT_PORT}" for scheme in Scheme}


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a node.

    `host` has no brackets and is lower case; `path` is "/" except for WebSocket behind a proxy.
    """

    scheme: Scheme
    host: str
    port: int = DEFAULT_PORT
    path: str = "/"

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        return host_and_port(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.scheme.value}://{self.authority}{'' if self.path == '/' else self.path}"


def host_and_port(host: str, port: int) -> str:
    """Return `host:port` as in a URL or a log line, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def normal_host(host: str) -> str:
    """Return the one spelling of a host: the plain number of an IP address, else the name in lower case.

    `[::1]`, `127.1`, `0x7f.1`, `::ffff:127.0.0.1` and `localhost.` become the numbers and names as which the system
    reads them. Looks nothing up; an invalid host is returned in lower case.
    """
    text = host.strip().lower().removesuffix(".")
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if not text:
        return ""
    try:
        number = ipaddress.ip_address(text)
    except ValueError:
        return _old_number(text) or text
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    return str(mapped or number)


def is_host(text: str) -> bool:
    """Return whether `text` can be a host to listen on: a name or an IP address, without a port or a scheme.

    An empty text is one: it means all addresses of this machine.
    """
    if ":" in text:
        try:
            ipaddress.IPv6Address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
        except ValueError:
            return False
        return True
    return text.isprintable() and not any(character.isspace() or character in "/?#@[]" for character in text)


def _old_number(text: str) -> str | None:
    """Return the usual form of IPv4 with fewer parts, or octal or hexadecimal ones, as every resolver reads it."""
    if not text.isascii() or not text[0].isdigit() or any(character.isspace() for character in text):
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`, in any spelling."""
    normal = normal_host(host)
    try:
        return normal == "localhost" or ipaddress.ip_address(normal).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Return whether listening on `host` means all addresses of this machine, in any spelling."""
    return normal_host(host) in ("0.0.0.0", "::", "")


def can_be_advertised(host: str, *, listening: str) -> bool:
    """Return whether other machines could reach a node at this machine's IP address `host`.

    The node listens on all addresses: `listening`.
    """
    local_to_a_link = "%" in host  # means something else on each machine
    return not local_to_a_link and not (":" in host and normal_host(listening) == "0.0.0.0")


def reachable_host(host: str) -> str:
    """Return the host by which this machine reaches a node that listens on `host`."""
    return "127.0.0.1" if is_wildcard(host) else normal_host(host)


def format_address(scheme: Scheme, host: str, *, port: int = DEFAULT_PORT, path: str = "/") -> str:
    """Return the normal text of an address; `host` without brackets. Checks nothing: `parse_address` does."""
    return str(Address(scheme, host, port, path))


def parse_address(text: str) -> Address:
    """Parse an address.

    Raises ValueError, whose text names the error and shows a correct address.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"an address of {len(text)} characters is too long; write it like {_EXAMPLES[Scheme.WS]}")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise _address_error(text, "there are spaces or control characters in it")
    scheme, rest = _split_scheme(text)
    authority, path = _split_path(text, rest, scheme)
    host, port_text = _split_port(text, authority, scheme)
    return Address(scheme, host, _port(text, port_text, scheme), path)


def _address_error(text: str, reason: str, example: str = _EXAMPLES[Scheme.WS]) -> ValueError:
    return ValueError(f"{text!r} is not an address: {reason}; write it like {example}")


def _split_scheme(text: str) -> tuple[Scheme, str]:
    name, separator, rest = text.partition("://")
    if not separator:
        if not text:
            raise _address_error(text, "it is empty")
        known = ", ".join(f"{scheme.value}://" for scheme in Scheme)
        raise _address_error(text, f"it does not start with one of {known}", f"ws://{text.lstrip('/')}")
    try:
        return Scheme(name.lower()), rest
    except ValueError:
        known = ", ".join(scheme.value for scheme in Scheme)
        raise _address_error(text, f"{name!r} is none of {known}") from None


def _split_path(text: str, rest: str, scheme: Scheme) -> tuple[str, str]:
    """Return the authority and the path, which keeps its query."""
    if "#" in rest:
        raise _address_error(text, "a fragment (#) means nothing here", _EXAMPLES[scheme])
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:] or "/"
    if path.startswith("?"):
        path = "/" + path
    if path != "/" and not scheme.is_websocket:
        raise _address_error(text, f"a {scheme.value}:// address has no path", f"{scheme.value}://{authority}")
    if not path.isascii():
        raise _address_error(text, "its path must be percent-encoded ASCII", _EXAMPLES[scheme])
    if "@" in authority:
        raise _address_error(text, "a user or password does not belong in it", _EXAMPLES[scheme])
    return authority, path


def _split_port(text: str, authority: str, scheme: Scheme) -> tuple[str, str | None]:
    """Return the host, without brackets, and the text of the port, None if there is none."""
    if authority.startswith("["):
        inside, bracket, after = authority[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise _address_error(
                text, "its brackets are not closed before the port", f"{scheme.value}://[::1]:{DEFAULT_PORT}"
            )
        try:
            host = str(ipaddress.IPv6Address(inside))
        except ValueError:
            wrong = f"{inside!r} is not an IPv6 address"
            raise _address_error(text, wrong, f"{scheme.value}://[::1]:{DEFAULT_PORT}") from None
        return host, after[1:] if after else None
    if authority.count(":") > 1:
        raise _address_error(text, "an IPv6 host needs brackets", f"{scheme.value}://[::1]:{DEFAULT_PORT}")
    host, separator, port = authority.partition(":")
    if not host:
        raise _address_error(text, "it names no host", _EXAMPLES[scheme])
    return host.lower(), port if separator else None


def _port(text: str, port: str | None, scheme: Scheme) -> int:
    if port is None:
        return DEFAULT_PORT
    # isdecimal alone would accept digits of other scripts, and int() signs and underscores.
    if port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65_535 and len(port) <= 5:
        return int(port)
    raise _address_error(text, f"its port {port!r} is not a number from 1 to 65535", _EXAMPLES[scheme])


def address_evidence(host: str, dialled: str | None, *, seeds: Collection[str]) -> int:
    """Return how strongly a link shows the address by which others reach this machine.

    `host` is this machine's address at its end of the link. 0 is no evidence. Loopback is weak evidence, as health
    checks and people on the machine itself use it. A link to a seed is the strongest, as the other nodes are there.
    """
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return 0
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    role = 1 if dialled is None else 2 if dialled not in seeds else 3
    return role if address.is_loopback or address.is_link_local else 3 + role
