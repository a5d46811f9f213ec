"""The example docs/examples/embed_starlette.py passes `check_driver` under uvicorn."""

import gc

import pytest

from docs.examples import embed_starlette
from mpreg_transports.testing import check_driver
from tests.helpers.drivers import starlette_driver


# uvicorn ends with the connection of a peer that takes nothing of the unsent bytes.
@pytest.mark.filterwarnings("ignore:unclosed (transport|<socket):ResourceWarning")
def test_starlette_example_passes_check_driver() -> None:
    # ASGI does not report the bytes that a peer took: a slow reader looks like a peer that reads nothing.
    check_driver(starlette_driver(embed_starlette), skip=["leave_with_a_slow_reader"])
    gc.collect()
