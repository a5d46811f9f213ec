"""`Server` passes `check_driver` on each event loop, over WebSocket or raw frames."""

import gc

import pytest

from mpreg_transports.testing import check_driver
from tests.helpers.drivers import server_driver


@pytest.mark.parametrize(("loop", "scheme"), [("asyncio", "ws"), ("trio", "tcp")])
def test_server_passes_check_driver(loop: str, scheme: str) -> None:
    check_driver(server_driver(loop, scheme=scheme))
    gc.collect()
