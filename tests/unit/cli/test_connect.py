"""The address of the node that a command asks."""

from pathlib import Path

import pytest

from mpreg_transports.cli.connect import node_url
from mpreg_transports.cli.errors import CommandFailed

NOWHERE = Path("/dev/null")


def test_node_url_in_its_normal_form() -> None:
    assert node_url("WS://LOCALHOST", NOWHERE) == "ws://localhost:9001"
    assert node_url(None, NOWHERE, {"MPREG_URL": "tcp://a:1"}) == "tcp://a:1"


@pytest.mark.parametrize(
    ("url", "environ", "given_as", "source"),
    [
        ("foo", {}, "--url", "--url"),
        ("foo", {"MPREG_URL": "ws://a:1"}, "URL", "URL"),
        (None, {"MPREG_URL": "foo"}, "URL", "MPREG_URL in the environment"),
    ],
)
def test_error_of_a_url_names_its_source(url: str | None, environ: dict[str, str], given_as: str, source: str) -> None:
    with pytest.raises(CommandFailed, match=r"'foo' is not an address: .*; write it like ws://foo") as error:
        node_url(url, NOWHERE, environ, given_as=given_as)
    assert str(error.value).endswith(f" ({source})")
