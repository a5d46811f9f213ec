"""The first server: PORT."""

import asyncio
import logging
import sys

from mpreg_transports.classic import MPREGServer, MPREGSettings

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

asyncio.run(
    MPREGServer(
        MPREGSettings(port=int(sys.argv[1]), name="Primary Server", resources={"model-a", "dataset-1"})
    ).server()
)
