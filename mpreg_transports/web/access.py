"""Access checks for HTTP and WebSocket requests, by `Host` and `Origin`, so that no foreign web page uses a node.

A browser sends requests to this machine for any page that it shows. `Origin` names the page, so a foreign page is
refused. `Host` is the node's name in the page's address, so a page whose name was made to point here (DNS rebinding) is
refused. The listener calls `check` on each head before it reads a body; `HttpRoutes` adds the headers of `cors`.
Programs that are not browsers send no `Origin`. Nothing here answers an admitted request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mpreg_transports.config.addresses import is_loopback, normal_host
from mpreg_transports.links.http import HttpRequest, HttpResponse
from mpreg_transports.links.websocket import SUBPROTOCOL
from mpreg_transports.runtime import logs
from mpreg_transports.runtime.log_observer import printable

log: logs.NodeLog = logs.get("mpreg")

OPEN_PATHS = ("/healthz", "/readyz")
"""The paths that are open to everybody: they return one word and change nothing."""
_SCHEMES = {"http": 80, "https": 443}
_REMEMBERED = 100
"""The refused names that are logged; more of them are refused without a line."""
_PREFLIGHT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Origin:
    """The address of a web page without its path. `host` is normal, `port` is always present."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _SCHEMES[self.scheme] else f":{self.port}")


def parse_origin(text: str) -> Origin:
    """Parse `https://app.example.com` or `http://localhost:3000`. Raises ValueError with a correct example."""
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES:
        raise ValueError(f"{text!r} is not an origin: expected http:// or https://, such as https://app.example.com")
    found = split_authority(rest.removesuffix("/"))
    if found is None:
        raise ValueError(f"{text!r} is not an origin: expected a host and maybe a port, such as http://localhost:3000")
    return Origin(scheme, found[0], found[1] or _SCHEMES[scheme])


def parse_allowed_host(text: str) -> str:
    """Parse a host that requests may name, with or without a port, which is ignored. Raises ValueError."""
    found = split_authority(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a host: expected a name or a number, such as mpreg.example.com")
    return found[0]


def split_authority(text: str) -> tuple[str, int | None] | None:
    """Return the normal host and the port of `host`, `host:port` or `[v6]:port`; None for anything else."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            return None
        host, port = host + bracket, rest[1:]
    else:
        host, _, port = text.partition(":")
    if not host or any(one in "/\\?#@ ,*" or not one.isprintable() for one in host):
        return None
    if not port:
        return normal_host(host), None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) <= 65_535):
        return None
    return normal_host(host), int(port)


def allowed_names(hosts: Iterable[str], origins: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return `allow_hosts` and `allow_origins` in their normal form."""
    for name, given in (("allow_hosts", hosts), ("allow_origins", origins)):
        if isinstance(given, str):
            raise TypeError(f'{name}="{given}" is a bare string; write {name}=["{given}"]')
    return (
        tuple(parse_allowed_host(host) for host in hosts),
        tuple(str(parse_origin(origin)) for origin in origins),
    )


class Access:
    """The rules of one node. `names` are the hosts of the node: the advertised one, and those of `--allow-host`.

    Raises ValueError for an invalid origin.
    """

    def __init__(self, *, names: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._names = frozenset(normal_host(name) for name in names)
        self._origins = frozenset(parse_origin(origin) for origin in origins)
        self._logged: dict[str, None] = {}

    def check(self, request: HttpRequest) -> HttpResponse | None:
        """Check a request by its head: None admits it, a response refuses it or answers a preflight."""
        upgrade = request.asks_for_websocket()
        if request.path in OPEN_PATHS and not upgrade:
            return None
        asked = request.header("origin")
        if asked is None and upgrade and _offers_native(request):
            return None  # no browser omits Origin there (RFC 6455 section 4.1), and any name may lead to a balancer
        if not self._is_own(request):
            return self._refuse_host(request)
        if asked is None or _is_same(asked, request):
            return None
        if self.allowed_origin(request) is None:
            return self._refuse_origin(request, asked)
        return self._preflight(request) if request.method == "OPTIONS" else None

    def cors(self, request: HttpRequest) -> tuple[tuple[str, str], ...]:
        """Return the headers that let a page of an allowed origin read the response."""
        origin = self.allowed_origin(request)
        return () if origin is None else (("access-control-allow-origin", origin), ("vary", "origin"))

    def allowed_origin(self, request: HttpRequest) -> str | None:
        """Return the request's `Origin` as it was sent, if `--allow-origin` names it."""
        asked = request.header("origin")
        if asked is None or not self._origins:
            return None
        try:
            return asked if parse_origin(asked) in self._origins else None
        except ValueError:
            return None

    def _is_own(self, request: HttpRequest) -> bool:
        """Return whether `Host` is a name of this node, or the IP address at which the connection arrived."""
        found = split_authority((request.header("host") or "").strip())
        if found is None:
            return False
        # No web page can have a loopback name as its domain, and people use one for a port that is forwarded to this
        # node.
        return is_loopback(found[0]) or found[0] in self._names or found[0] == _without_zone(request.local)

    def _preflight(self, request: HttpRequest) -> HttpResponse:
        """Answer the request that a browser sends before a POST with JSON (Fetch standard, CORS preflight)."""
        allowed = (
            ("access-control-allow-methods", "GET, POST"),
            ("access-control-allow-headers", "content-type"),
            ("access-control-max-age", str(_PREFLIGHT_SECONDS)),
        )
        return HttpResponse(204, (*self.cors(request), *allowed))

    def _refuse_host(self, request: HttpRequest) -> HttpResponse:
        host = request.header("host")
        if host is None:
            return self._refuse(request, "there is no Host header", "send the host of this node's address as Host")
        found = split_authority(host.strip())
        name = found[0] if found is not None else "NAME"
        shown = printable(name)
        return self._refuse(
            request,
            f"Host {printable(host)} is not a name of this node",
            f"use the address on which it listens, or start it with --allow-host {shown} "
            f'(Server(allow_hosts=["{shown}"]))',
        )

    def _refuse_origin(self, request: HttpRequest, asked: str) -> HttpResponse:
        try:
            origin = str(parse_origin(asked))
        except ValueError:
            return self._refuse(
                request,
                f"Origin {printable(asked)} names no web page that could be allowed",
                "serve the page from http:// or https://, and start the node with --allow-origin ORIGIN",
            )
        shown = printable(origin)
        return self._refuse(
            request,
            f"web pages of {shown} may not use this node",
            f'if they should, start it with --allow-origin {shown} (Server(allow_origins=["{shown}"]))',
        )

    def _refuse(self, request: HttpRequest, reason: str, advice: str) -> HttpResponse:
        if reason not in self._logged and len(self._logged) < _REMEMBERED:
            self._logged[reason] = None
            log.warning("refused a request of %s: %s; %s", printable(request.peer), reason, advice)
        return HttpResponse.text(403, f"{reason}; {advice}")


def _offers_native(request: HttpRequest) -> bool:
    """Return whether it is the opening handshake of a node or of a native client."""
    offered = (request.header("sec-websocket-protocol") or "").split(",")
    return SUBPROTOCOL in [name.strip() for name in offered]


def _is_same(asked: str, request: HttpRequest) -> bool:
    """Return whether the page belongs to this node: same host and port. All loopback names are one host."""
    try:
        origin = parse_origin(asked)
    except ValueError:
        return False
    found = split_authority((request.header("host") or "").strip())
    if found is None:
        return False
    host, port = found[0], found[1] or _SCHEMES[origin.scheme]
    same = origin.host == host or (is_loopback(origin.host) and is_loopback(host))
    return same and origin.port == port


def _without_zone(host: str) -> str:
    """Return an address of this machine without the interface that an IPv6 address may name."""
    return host.partition("%")[0]
