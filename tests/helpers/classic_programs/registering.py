"""A server that registers a command while it runs: PORT NAME PEER...

Each input line is a command: `register RESULT` offers `my_function`, `shutdown` ends the server in order.
"""

import asyncio
import logging
import sys

from mpreg_transports.classic import MPREGServer, MPREGSettings, rpc_command

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

server = MPREGServer(MPREGSettings(port=int(sys.argv[1]), name=sys.argv[2], peers=sys.argv[3:]))


@rpc_command("whoami", resources=[f"port-of-{sys.argv[2]}"])
def whoami() -> str:
    return server.settings.name


async def main() -> None:
    running = asyncio.create_task(server.server())
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        if line[0] == "register":

            def my_callable(data: object, result: str = line[1]) -> list[object]:
                return [result, data]

            server.register_command("my_function", my_callable, ["my-dataset", "gpu-required"])
            print("registered", flush=True)
        elif line[0] == "shutdown":
            server.shutdown()
            break
    await running
    print("ended", flush=True)


asyncio.run(main())
