"""The client: which replies are errors."""

import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.wire.messages import Call, Done, Request, Result
from mpreg_transports import Client

pytestmark = pytest.mark.anyio


async def test_partial_reply_with_a_fault_and_results_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = Result(1, done=(Done("x", b"\x01"),), fault=Fault(1020, "too late", {"maybe_executed": True}))

    async def answered(submit: object) -> Result:
        return reply

    client = Client("ws://127.0.0.1:1")
    monkeypatch.setattr(client, "_reply", answered)
    assert await client._result(Request(1, (Call("x", "f", b""),), partial=True)) is reply
