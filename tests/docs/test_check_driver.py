"""The drivers of docs/examples pass `check_driver`."""

from docs.examples import embed_selectors
from mpreg_transports.testing import check_driver
from tests.helpers.drivers import selector_driver


def test_selectors_example_passes_check_driver() -> None:
    check_driver(selector_driver(embed_selectors))
