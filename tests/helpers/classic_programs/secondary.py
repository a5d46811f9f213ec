"""The second server, which joins the first: PORT PEER."""

import asyncio
import logging
import sys

from mpreg_transports.classic import MPREGServer, MPREGSettings

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

asyncio.run(
    MPREGServer(
        MPREGSettings(
            port=int(sys.argv[1]),
            name="Secondary Server",
            resources={"model-b", "dataset-2"},
            peers=[sys.argv[2]],
        )
    ).server()
)
