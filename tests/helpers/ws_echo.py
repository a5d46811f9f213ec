"""An echo endpoint made of the WebSocket adapter itself: `python -m tests.helpers.ws_echo --port 0`.

It returns text as text and binary as binary, up to 16 MiB a message. It prints one line, `ready ws://HOST:PORT`, when
it listens, and ends without output on SIGTERM or SIGINT. It needs only the dependencies of the distribution.
"""

from __future__ import annotations

import argparse
import signal

import anyio

from mpreg_transports.config.addresses import Scheme, format_address
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.links.websocket import WebSocketLink
from mpreg_transports.runtime.listener import HttpRequest, HttpResponse, Listener


async def echo(link: Link) -> None:
    """Echo every message in its type, until the link ends."""
    if not isinstance(link, WebSocketLink):
        return
    try:
        while True:
            await link.send_typed(await link.receive())
    except LinkEnded:
        return


async def only_websocket(request: HttpRequest) -> HttpResponse:
    """Return the answer to plain HTTP."""
    return HttpResponse.text(426, "WebSocket only", ("upgrade", "websocket"))


async def main(host: str, port: int) -> None:
    """Serve until a signal comes."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        listener = await Listener.bind(host, port)
        async with anyio.create_task_group() as tasks:
            await tasks.start(listener.serve, echo, only_websocket)
            print(f"ready {format_address(Scheme.WS, listener.host, port=listener.port)}", flush=True)
            async for _ in signals:
                break
            await listener.close()
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    arguments = parser.parse_args()
    anyio.run(main, arguments.host, arguments.port, backend=arguments.backend)
