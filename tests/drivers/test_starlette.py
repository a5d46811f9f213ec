"""The example docs/examples/embed_starlette.py passes `check_driver` under uvicorn."""

import asyncio
import gc
import socket
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from docs.examples import embed_starlette
from mpreg_transports.testing import check_driver
from tests.helpers.drivers import starlette_driver

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


# uvicorn ends with the connection of a peer that takes nothing of the unsent bytes.
@pytest.mark.filterwarnings("ignore:unclosed (transport|<socket):ResourceWarning")
def test_starlette_example_passes_check_driver() -> None:
    # An ASGI server accepts a message of any length at once, and ASGI has no report of the bytes that the peer took.
    # So a slow peer looks like one that reads nothing, and is closed after `HangUp.within`. uvicorn drops the rest at
    # `timeout_graceful_shutdown`, also while the peer reads (measured with uvicorn and Starlette alone: with 1 s,
    # 6.8 of 8.4 MB arrived). An answer that needs longer, as on a busy machine, does not arrive whole.
    check_driver(starlette_driver(embed_starlette), skip=["leave_with_unsent_bytes"])
    gc.collect()


def test_uvicorn_takes_a_message_that_the_peer_does_not_read() -> None:
    """The reason for leaving `leave_with_unsent_bytes` out, without this project: remove both together."""
    returned = threading.Event()

    async def send_blob(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_bytes(bytes(64 * 1024 * 1024))  # more than any system buffers
        returned.set()
        await websocket.receive()

    async def main(listening: socket.socket) -> None:
        app = Starlette(routes=[WebSocketRoute("/", send_blob)])
        server = uvicorn.Server(uvicorn.Config(app, ws="wsproto", log_level="critical"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        with socket.create_connection(listening.getsockname()) as peer:
            peer.sendall(UPGRADE)
            assert await asyncio.to_thread(returned.wait, 30)
        server.should_exit = True
        await serving

    asyncio.run(main(socket.create_server(("127.0.0.1", 0))))
