"""The reason why a node and a command do not accept each other's certificates, in words.

It connects to the node once more, without a check and without a certificate, only to read the one that the node shows.
Nothing is sent but a handshake.
"""

from __future__ import annotations

import shlex
import ssl
from urllib.parse import unquote

from mpreg_proto.describe import cut
from mpreg_transports.config.addresses import parse_address
from mpreg_transports.links import tcp
from mpreg_transports.links.base import LinkEnded
from mpreg_transports.links.tls import TlsStream


async def explain_denial(url: str, cluster_id: str | None) -> tuple[str, ...]:
    """Return a line with the reason and lines of advice. `cluster_id` is that of a command with a secret, else None."""
    try:
        names = await _shown_uris(url)
    except LinkEnded as end:
        return (f"cannot reach a node at {url}: {end.reason}",)
    clusters = [unquote(name[len("mpreg:") : -len("/node")]) for name in names if _is_node(name)]
    if len(clusters) != 1:
        text = f"{url} shows a certificate that is of no node of a cluster with a secret"
        return (text, "leave --secret-file out if its certificate is of an authority that this system knows")
    theirs = clusters[0]  # nobody has verified it: it may hold anything
    shown = cut(repr(theirs), 80)
    if cluster_id is None:
        return (f"{url} is a node of cluster {shown}, which has a secret", "give it:   --secret-file FILE")
    if theirs != cluster_id:
        text = f"{url} is a node of another cluster: of {shown}, and this command is for {cluster_id!r}"
        return (text, f"name its cluster:   --cluster-id {cut(shlex.quote(theirs), 80)}")
    text = f"{url} is a node of cluster {shown}, but with another secret than this command"
    return (text, "compare the secret files: all nodes and commands of a cluster need the same one")


def _is_node(uri: str) -> bool:
    return uri.startswith("mpreg:") and uri.endswith("/node")


async def _shown_uris(url: str) -> list[str]:
    """Return the URIs in the certificate that a node shows, which nobody has verified. Raises LinkEnded."""
    from cryptography import x509

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = parse_address(url)
    stream = await tcp.open_stream(address.host, address.port, tls=context)
    try:
        assert isinstance(stream, TlsStream)
        shown = stream.shown_certificate
    finally:
        await tcp.hang_up(stream)
    try:
        found = x509.load_der_x509_certificate(shown)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)
