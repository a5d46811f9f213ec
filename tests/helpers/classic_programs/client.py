"""The client: URL. Prints each result as a line of JSON."""

import asyncio
import json
import sys

from mpreg_transports.classic import MPREGClientAPI, RPCCommand


async def main() -> None:
    async with MPREGClientAPI(sys.argv[1]) as client:
        result = await client.call("echo", "Hello MPREG!")
        print(json.dumps(result))

        result = await client._client.request(
            [
                RPCCommand(name="step1", fun="echo", args=("first step",), locs=frozenset()),
                RPCCommand(name="step2", fun="echo", args=("step1",), locs=frozenset()),
            ]
        )
        print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
