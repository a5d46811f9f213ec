"""The client: which replies are errors, and where an error takes the place of a value."""

import pytest

from mpreg_proto.errors import ErrorCode, ExecutionFailed, Fault
from mpreg_proto.wire.messages import Call, Done, Failed, Request, Result
from mpreg_transports import Client

pytestmark = pytest.mark.anyio


async def test_partial_reply_with_a_fault_and_results_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = Result(1, done=(Done("x", b"\x01"),), fault=Fault(1020, "too late", {"maybe_executed": True}))

    async def answered(submit: object, on_progress: object) -> Result:
        return reply

    client = Client("ws://127.0.0.1:1")
    monkeypatch.setattr(client, "_reply", answered)
    assert await client._result(Request(1, (Call("x", "f", b""),), partial=True)) is reply


async def test_part_of_a_failed_result_is_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault(ErrorCode.EXECUTION_FAILED, "it raised", {})
    client = Client("ws://127.0.0.1:1")
    graph = client.graph()
    good, bad = graph.call("f", name="good"), graph.call("f", name="bad")
    value = client._codec.encode({"key": 1})

    async def answered(submit: object, on_progress: object) -> Result:
        return Result(1, done=(Done("good", value),), failed=(Failed("bad", fault),), fault=fault)

    monkeypatch.setattr(client, "_reply", answered)
    found = await client.run(graph, good["key"], bad["key"], bad, on_error="partial")
    assert found[0] == 1
    assert [type(one) for one in found[1:]] == [ExecutionFailed] * 2
