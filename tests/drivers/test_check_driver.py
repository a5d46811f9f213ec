"""The drivers of docs/examples pass `check_driver`; tests/drivers has those in a web framework or in Twisted."""

import pytest

from docs.examples import embed_asyncio, embed_selectors
from mpreg_transports.testing import check_driver
from mpreg_transports.testing.driver_checks.checks import CHECKS
from tests.docs.pages import PAGES, spans
from tests.helpers.drivers import asyncio_driver, selector_driver


def test_selectors_example_passes_check_driver() -> None:
    check_driver(selector_driver(embed_selectors))


def test_asyncio_example_passes_check_driver(caplog: pytest.LogCaptureFixture) -> None:
    check_driver(asyncio_driver(embed_asyncio))
    assert not [row for row in caplog.records if row.levelname == "ERROR"], "asyncio has logged no exception"


def test_every_check_is_in_the_contract() -> None:
    named = set(spans(PAGES["docs/howto/driver.md"]))
    assert [check.name for check in CHECKS if check.name not in named] == []
