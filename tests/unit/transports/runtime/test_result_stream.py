"""The stream of results: it ends once it is forgotten."""

from typing import NoReturn

import pytest

from mpreg_proto.wire.messages import Call, Request
from mpreg_transports.runtime.result_stream import ResultStream

pytestmark = pytest.mark.anyio


async def test_forgotten_stream_ends_and_starts_no_request() -> None:
    def start() -> NoReturn:
        raise AssertionError("a request was started")

    stream = ResultStream(start, bytes, Request(1, (Call("x", "f", b""),)))
    stream.forget()
    assert [leaf async for leaf in stream] == []
