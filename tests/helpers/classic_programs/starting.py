"""A server that is started without visible asyncio: PORT."""

import logging
import sys

from mpreg_transports.classic import MPREGServer, MPREGSettings

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

MPREGServer(MPREGSettings(port=int(sys.argv[1]))).start()
print("returned")
