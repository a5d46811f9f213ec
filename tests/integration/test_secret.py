"""A cluster with a secret: nodes and clients that have it, those that do not, and what each is answered."""

import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream, SocketAttribute

from mpreg_proto.errors import RequestError, Unauthenticated
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_transports import Client, NotConnected, SecretError, Server, SyncClient
from mpreg_transports.links import tcp, websocket
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.security.authority import Role
from mpreg_transports.security.contexts import Credentials, authority_pem
from mpreg_transports.security.secret import Secret, new_secret, write_secret
from tests.helpers.servers import wait_until_meshed

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
SECRET, OTHER = Secret(b"x" * 32), Secret(b"y" * 32)
TEXT = SECRET.reveal()


@asynccontextmanager
async def served(**options: object) -> AsyncIterator[Server]:
    """Yield one node with the secret and a function."""
    server = Server(**{"port": 0, "secret": TEXT, **options})  # type: ignore[arg-type]

    @server.function(idempotent=True)
    def order(text: str) -> str:
        return f"ordered {text}"

    with anyio.fail_after(PATIENCE):
        async with server:
            yield server


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[tuple[int, bytearray]]:
    """Yield the port of a relay to another port, and a copy of all bytes that pass through it."""
    passed = bytearray()

    async def copy(source: ByteStream, target: ByteStream) -> None:
        try:
            while True:
                data = await source.receive()
                passed.extend(data)
                await target.send(data)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.aclose()

    async def on_connection(stream: ByteStream) -> None:
        async with stream, await anyio.connect_tcp("127.0.0.1", port) as other, anyio.create_task_group() as tasks:
            tasks.start_soon(copy, stream, other)
            await copy(other, stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, on_connection)
        yield listener.extra(SocketAttribute.local_port), passed
        tasks.cancel_scope.cancel()


# -- nodes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["auto", "websocket"])
async def test_nodes_join_and_run_each_others_calls(transport: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.secret"
    write_secret(file, SECRET)
    async with served(name="first", transport=transport) as first:
        assert first.url.startswith("wss://127.0.0.1:")
        other = Server(port=0, name="second", secret_file=file, peers=[first.url], transport=transport)
        other.register("second", lambda value: value * 2, idempotent=True)
        async with other, Client(first.url, secret=SECRET) as client:
            await wait_until_meshed(client, (first, other))
            assert await client.call("second", 21) == 42
            assert await client.call("second", b"v" * 3_000_000) == b"v" * 6_000_000
            graph = client.graph()
            doubled = graph.call("second", "ab")
            assert await client.run(graph, graph.call("order", doubled)) == "ordered abab"
            addresses = [address for row in (await client.view()).members for address in row.addresses]
            assert sorted(addresses) == sorted([first.url, other.url])


async def test_no_plain_text_passes_between_two_nodes_and_a_client() -> None:
    async with served(name="first") as first, relay(first.port) as (port, passed):
        other = Server(port=0, name="second", secret=TEXT, peers=[f"wss://127.0.0.1:{port}"])

        @other.function(name="an-unusual-name")
        async def there(text: str) -> str:
            return text[::-1]

        async with other, Client(f"wss://127.0.0.1:{port}", secret=TEXT) as client:
            await wait_until_meshed(client, (first, other))
            assert await client.call("an-unusual-name", "some very private text") == "txet etavirp yrev emos"
        for text in (b"an-unusual-name", b"private", b"etavirp", b"default-cluster", b"second", TEXT.encode()):
            assert text not in bytes(passed)
        assert len(passed) > 3000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"secret": OTHER}, "another secret or cluster id"),
        ({"secret": SECRET, "cluster_id": "other"}, "another secret or cluster id"),
        ({}, "certificate"),
    ],
    ids=["secret", "cluster", "none"],
)
async def test_node_that_does_not_prove_the_secret_stays_alone(
    options: dict[str, object], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(name="first") as first:
        scheme = "wss" if options else "tls"
        stranger = Server(port=0, name="stranger", peers=[f"{scheme}://127.0.0.1:{first.port}"], **options)  # type: ignore[arg-type]
        async with stranger:
            while not any("does not answer" in record.getMessage() for record in caplog.records):
                await anyio.lowlevel.checkpoint()
            if options:
                said = [record.getMessage() for record in caplog.records]
                assert sum(words in text and text.startswith("tls://") for text in said) == 1, said
            for one in (first, stranger):
                assert [row.me for row in one.view().members] == [True]


async def test_plain_node_that_dials_one_with_a_secret_stays_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with served(name="first") as first:
        for address in (f"ws://127.0.0.1:{first.port}", f"tcp://127.0.0.1:{first.port}"):
            async with Server(port=0, name="stranger", peers=[address]) as stranger:
                while not any("TLS only" in record.getMessage() for record in caplog.records):
                    await anyio.lowlevel.checkpoint()
                assert len(stranger.view().members) == len(first.view().members) == 1
            caplog.clear()


async def send_hello_of_a_node(link: Link) -> None:
    """Send the hello of a real node over a link that was dialled."""
    node = Node(NodeConfig(), me=MemberId(b"m" * 16), rng=Rng(1), entropy=lambda size: b"e" * size, now=0)
    node.link_opened(LinkId(1), framing=link.framing, dialled=Address("wss://x:1"), now=0)
    for effect in node.drain():
        if hasattr(effect, "chunks"):
            await link.send(effect.chunks)


async def answers(link: Link) -> bytes:
    """Return all that comes until the link ends."""
    received: list[bytes] = []
    try:
        while True:
            received += [bytes(one) for one in await link.receive() if not isinstance(one, str)]
    except LinkEnded:
        await link.close()
        return b"".join(received)


@pytest.mark.parametrize("by", ["raw", "websocket"])
@pytest.mark.parametrize("who", ["nobody", "client"])
async def test_hello_of_a_node_without_the_certificate_of_one(by: str, who: str) -> None:
    """A client's certificate, and none: neither makes a member, although both speak the protocol of nodes."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    context = anybody if who == "nobody" else Credentials(SECRET, "default-cluster", role=Role.CLIENT).dialling
    async with served(open_clients=True) as server:
        connect = tcp.connect if by == "raw" else websocket.connect
        link = await connect("127.0.0.1", server.port, tls=context)
        await send_hello_of_a_node(link)
        received = await answers(link)
        assert b"this peer is no node of the cluster" in received and b"default-cluster" not in received
        assert len(server.view().members) == 1
    node = Credentials(SECRET, "default-cluster").dialling
    async with served() as server:
        link = await tcp.connect("127.0.0.1", server.port, tls=node)
        await send_hello_of_a_node(link)
        (answer,) = await link.receive()
        assert b"default-cluster" in answer and b"this peer" not in answer, "the hello of the node"
        await link.close()


async def test_node_with_a_secret_never_dials_plain_text() -> None:
    """Also not at an address that another node or a setting names: it would show its hello to anybody."""
    with pytest.raises(ValueError, match=r"the peer ws://127\.0\.0\.1:1 is plain text, .*; write wss://127\.0\.0\.1:1"):
        Server(secret=TEXT, peers=["ws://127.0.0.1:1"])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with served() as server:
            with pytest.raises(LinkEnded, match="plain text"):
                await server._driver._dial_link(Address(f"ws://127.0.0.1:{silent.getsockname()[1]}"))  # type: ignore[union-attr]


# -- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["wss", "tls"])
async def test_client_with_the_secret(scheme: str) -> None:
    async with served() as server, Client(f"{scheme}://127.0.0.1:{server.port}", secret=TEXT) as client:
        assert await client.call("order", "shoes") == "ordered shoes"


async def test_blocking_client_with_the_secret(tmp_path: Path) -> None:
    file = tmp_path / "cluster.secret"
    write_secret(file, SECRET)

    def call(url: str) -> object:
        with SyncClient(url, secret_file=file) as client:
            return client.call("order", "shoes")

    async with served() as server:
        assert await anyio.to_thread.run_sync(call, server.url) == "ordered shoes"


async def test_client_of_another_cluster_id() -> None:
    async with served(cluster_id="shop") as server:
        async with Client(server.url, secret=TEXT, cluster_id="shop") as client:
            assert await client.call("order", "shoes") == "ordered shoes"
        with pytest.raises(NotConnected, match="another secret or cluster id") as caught:
            await Client(server.url, secret=TEXT).connect()
        assert caught.value.details["denied"] == [server.url]


@pytest.mark.parametrize("scheme", ["wss", "tls"])
async def test_client_whose_certificate_the_node_refuses(scheme: str) -> None:
    """The client verifies nothing, so its handshake ends before the node has judged: the reason is not lost."""
    async with served() as server:
        url = f"{scheme}://127.0.0.1:{server.port}"
        client = Client(url, secret=OTHER)
        client._open_link.keywords["tls"].dialling.verify_mode = ssl.CERT_NONE  # type: ignore[attr-defined]
        with pytest.raises(NotConnected, match="it does not trust the certificate of this end") as caught:
            await client.connect()
        assert caught.value.details["denied"] == [url]


@pytest.mark.parametrize("open_clients", [False, True])
async def test_client_that_proves_nothing(
    open_clients: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_context: Callable[[], None]
) -> None:
    (tmp_path / "ca.pem").write_text(authority_pem(SECRET, "default-cluster"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    fresh_context()
    async with served(open_clients=open_clients) as server:
        for scheme in ("wss", "tls"):
            client = Client(f"{scheme}://127.0.0.1:{server.port}")
            if open_clients:
                async with client:
                    assert await client.call("order", "shoes") == "ordered shoes"
            else:
                with pytest.raises(Unauthenticated, match="serves only those who prove the secret") as caught:
                    await client.connect()
                assert caught.value.code == 1030


@pytest.fixture
def fresh_context() -> object:
    """Return a function that forgets the context of the system's authorities; it is forgotten after the test too."""
    from mpreg_transports.runtime import dialing

    yield dialing._system_context.cache_clear
    dialing._system_context.cache_clear()


async def http(server: Server, request: bytes) -> tuple[int, bytes]:
    """Return the status and body of a response over TLS, verified as curl does."""
    context = ssl.create_default_context(cadata=authority_pem(SECRET, "default-cluster"))
    stream = await tcp.open_stream("localhost", server.port, tls=context)
    await stream.send(request)
    data = b""
    try:
        while True:
            data += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        await tcp.hang_up(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_http_in_tls() -> None:
    rpc = json.dumps({"role": "rpc", "u": "7", "cmds": [{"name": "x", "fun": "order", "args": ["shoes"]}]}).encode()
    post = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
    get = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with served() as server:
        assert (await http(server, get % b"/healthz")) == (200, b"ok\n")
        assert (await http(server, get % b"/api/status"))[0] == 401
        status, body = await http(server, post % (len(rpc), rpc))
        assert (status, json.loads(body)["u"], json.loads(body)["error"]["code"]) == (401, "7", 1030)
    async with served(open_clients=True) as server:
        assert (await http(server, get % b"/api/status"))[0] == 200
        status, body = await http(server, post % (len(rpc), rpc))
        assert (status, json.loads(body)["r"]) == (200, {"x": "ordered shoes"})


@pytest.mark.parametrize("address", ["ws", "tcp"])
async def test_plain_client_of_a_node_with_a_secret(address: str) -> None:
    async with served() as server:
        with pytest.raises((NotConnected, RequestError), match="this node serves TLS only"):
            await Client(f"{address}://127.0.0.1:{server.port}").connect()


async def test_client_with_a_secret_of_a_plain_node() -> None:
    async with Server(port=0) as server:
        with pytest.raises(NotConnected, match="it hung up in the TLS handshake; does it speak plain text"):
            await Client(f"wss://127.0.0.1:{server.port}", secret=TEXT).connect()


def test_arguments_that_are_wrong(tmp_path: Path) -> None:
    for kind in (Server, Client, SyncClient):
        with pytest.raises(SecretError, match="does not start with mpreg_secret_"):
            kind(secret="hunter2")
        with pytest.raises(ValueError, match="secret= and secret_file= are both given"):
            kind(secret=TEXT, secret_file=tmp_path / "x")
    for client in (Client, SyncClient):
        with pytest.raises(SecretError, match="no such file"):
            client(secret_file=tmp_path / "none")
        with pytest.raises(ValueError, match=r"the address ws://a:1 is plain text, .*; write wss://a:1"):
            client("ws://a:1", secret=TEXT)
        assert client(secret=TEXT).urls == ("wss://127.0.0.1:9001",)


async def test_secret_file_is_read_when_the_node_starts(tmp_path: Path) -> None:
    server = Server(port=0, secret_file=tmp_path / "later.secret")
    with pytest.raises(SecretError, match="no such file"):
        await server.serve()
    write_secret(tmp_path / "later.secret", SECRET)
    with anyio.fail_after(PATIENCE):
        async with server, Client(server.url, secret=TEXT) as client:
            assert await client.call("echo", 5) == 5


async def test_nothing_of_a_secret_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = new_secret()
    async with served(secret=secret) as server:
        for other in (secret, OTHER):
            client = Client(server.url, secret=other)
            try:
                async with client:
                    await client.call("order", "shoes")
            except NotConnected as error:
                assert secret.reveal()[20:40] not in repr(error)
        assert all(secret.reveal()[20:40] not in text for text in (repr(vars(server)), repr(vars(client))))
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert secret.reveal()[20:40] not in said and repr(secret.key)[2:20] not in said


async def test_long_message_of_a_client_that_proves_nothing_is_not_read(tmp_path: Path) -> None:
    anybody = ssl.create_default_context(cadata=authority_pem(SECRET, "default-cluster"))
    async with served() as server:
        status, _ = await http(server, b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n")
        assert status == 413
        link = await websocket.connect("localhost", server.port, tls=anybody)
        with pytest.raises(LinkEnded) as caught:
            await link.send([b"x" * 65_537])
            await link.receive()
        assert caught.value.code == 1009
        await link.close()
        raw = await tcp.connect("localhost", server.port, tls=anybody)
        await raw.send([(65_537).to_bytes(4, "big")])
        assert b"65537" in await answers(raw)
