"""Graphs in a cluster of three servers: when calls start, when results return, and what a failure does to the rest."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest

from mpreg_proto.errors import LimitExceeded
from mpreg_proto.limits import Limits
from mpreg_transports import (
    Cancelled,
    Client,
    CommandNotFound,
    DeadlineExceeded,
    ExecutionFailed,
    Graph,
    InvalidRequest,
    Server,
    UnresolvedReference,
)
from tests.helpers.blocking_functions import BlockingCoroutine
from tests.helpers.servers import joined_servers

pytestmark = pytest.mark.anyio


class Cluster:
    """Three servers, each with its own functions; `held` and `brake` are functions that the test releases."""

    def __init__(self) -> None:
        self.held = BlockingCoroutine()
        self.brake = BlockingCoroutine()
        self.ran: list[object] = []
        self.servers = (
            Server(name="front", port=0),
            Server(name="left", port=0, resources={"left"}),
            Server(name="right", port=0, resources={"right"}),
        )
        for server in self.servers[1:]:
            server.register("add", self._add)
            server.register("note", self._note)
            server.register("fail", self._fail)
            server.register("fail-beside-held", self._fail_beside_held)
        self.servers[1].register("held", self.held.body)
        self.servers[2].register("brake", self.brake.body)

    client: Client

    def _add(self, *numbers: int) -> int:
        return sum(numbers)

    async def _note(self, what: object, *_: object) -> object:
        self.ran.append(what)
        return what

    def _fail(self, text: str, *_: object) -> None:
        raise ValueError(text)

    async def _fail_beside_held(self, text: str, *_: object) -> None:
        await self.held.until(started=1)
        raise ValueError(text)


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    async with joined_servers(*made.servers) as client:
        made.client = client
        yield made


# -- what returns ------------------------------------------------------------------------------------------------------


async def test_result_of_one_leaf_and_of_several() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        first = graph.call("echo", {"deep": [1, {"x": (2, 3)}]})
        total = graph.call("add", first["deep"][0], first["deep"][1]["x"][1], resources={"left"})
        twice = graph.call("add", total, total, resources={"right"})
        other = graph.call("echos", "echo", first, {"in": [total]})
        assert await graph.run() == {
            "add-2": 8,
            "echos": ["echo", {"deep": [1, {"x": (2, 3)}]}, {"in": [4]}],
        }
        assert await graph.run(twice) == 8
        assert await graph.run(total, twice, total) == (4, 8, 4)
        assert await graph.run(first["deep"][1], other[2]["in"]) == ({"x": (2, 3)}, [4])
        alone = Graph()
        one = alone.call("echo", 1)
        assert await at.client.run(alone) == {"echo": 1}
        assert await at.client.run(alone, one) == 1


async def test_only_wanted_results_are_sent_and_run() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        needed = graph.call("note", "needed")
        graph.call("note", "not needed")
        wanted = graph.call("note", "wanted", needed)
        graph.call("note", "after it", wanted)
        assert await graph.run(wanted) == "wanted"
        assert at.ran == ["needed", "wanted"]


async def test_after_orders_independent_calls() -> None:
    async with cluster() as at, anyio.create_task_group() as tasks:
        graph = at.client.graph()
        slow = graph.call("held", 1)
        other = graph.call("brake", 2)
        graph.call("note", "last", after=[slow, other])

        async def run() -> None:
            assert await graph.run() == {"note": "last"}

        tasks.start_soon(run)
        await at.held.until(started=1)
        await at.brake.until(started=1)
        at.held.release()
        await at.held.until(ended=1)
        await at.client.call("echo", 1)
        assert at.ran == []
        at.brake.release()


async def test_reference_to_a_missing_part() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        first = graph.call("echo", {"a": [1]})
        with pytest.raises(UnresolvedReference, match="b"):
            await graph.run(graph.call("echo", first["b"]))
        assert await graph.run(first["a"][0]) == 1
        with pytest.raises(UnresolvedReference, match=r"the result of 'echo' has no \['a'\]\[1\]"):
            await graph.run(first["a"][1])


# -- when calls start --------------------------------------------------------------------------------------------------


async def test_first_leaf_arrives_while_another_call_runs() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        graph.call("held", "slow")
        graph.call("add", 1, 2)
        graph.call("echo", "quick")
        got: dict[str, object] = {}
        async with aclosing(graph.stream()) as leaves:
            async for name, value in leaves:
                got[name] = value
                if len(got) == 2:
                    assert got == {"add": 3, "echo": "quick"}
                    assert at.held.ended == 0
                    at.held.release()
        assert got == {"add": 3, "echo": "quick", "held": "slow"}


async def test_stream_left_early_cancels_the_rest() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        graph.call("held")
        graph.call("echo", 1)
        async with aclosing(graph.stream()) as leaves:
            async for name, _ in leaves:
                assert name == "echo"
                await at.held.until(started=1)
                break
        await at.held.until(cancelled=1)
        async for name, _ in graph.stream():  # not closed explicitly, only dropped
            assert name == "echo"
            await at.held.until(started=2)
            break
        await at.held.until(cancelled=2)


async def test_stream_ends_with_the_first_error() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        graph.call("held")
        graph.call("fail-beside-held", "now", graph.call("echo", 1))
        with pytest.raises(ExecutionFailed, match="ValueError: now"):
            async for _ in graph.stream():
                raise AssertionError("no leaf has a result")
        lone = at.client.graph()
        lone.call("held")
        with pytest.raises(DeadlineExceeded):
            async for _ in lone.stream(timeout=0.5):
                raise AssertionError("no leaf has a result")
        await at.held.until(cancelled=2)


async def test_fast_arm_of_a_diamond_does_not_wait_for_the_slow_arm() -> None:
    async with cluster() as at, anyio.create_task_group() as tasks:
        graph = at.client.graph()
        top = graph.call("echo", 1)
        slow = graph.call("held", top)
        fast = graph.call("add", top, 1)
        then = graph.call("brake", fast)
        bottom = graph.call("add", slow, then)

        async def run() -> None:
            assert await graph.run(bottom) == 3

        tasks.start_soon(run)
        await at.brake.until(started=1)
        await at.held.until(started=1)
        assert at.held.ended == 0
        at.brake.release()
        await at.brake.until(ended=1)
        at.held.release()


# -- failure ----------------------------------------------------------------------------------------------------------


async def test_first_failure_ends_the_request_and_running_calls() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        graph.call("held")
        failing = graph.call("fail", "first")
        graph.call("note", "never", failing)
        with pytest.raises(ExecutionFailed) as caught:
            await graph.run()
        assert caught.value.details["call"] == "fail"
        assert caught.value.details["node"].split("#")[0] in ("left", "right")
        assert caught.value.details["maybe_executed"] is True
        await at.held.until(started=at.held.started, ended=at.held.started)
        assert at.ran == []


async def test_unplaceable_call_keeps_all_others_from_running() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        graph.call("note", "ran")
        graph.call("add", 1, resources={"left", "right"})
        with pytest.raises(CommandNotFound) as caught:
            await graph.run()
        assert caught.value.details["maybe_executed"] is False
        assert len(caught.value.details["lacks"]) == 1
        with pytest.raises(CommandNotFound):
            await graph.explain()
        await at.client.call("echo", 1)
        assert at.ran == []


async def test_partial_returns_the_computable_results() -> None:
    async with cluster() as at:
        graph = at.client.graph()
        good = graph.call("add", 1, 2)
        bad = graph.call("fail", "why")
        lost = graph.call("add", bad, good)
        nowhere = graph.call("nowhere")
        values = await graph.run(on_error="partial")
        # `good` and `bad` are not leaves.
        assert list(values) == [lost.name, nowhere.name]
        assert isinstance(values[lost.name], Cancelled)
        assert values[lost.name].details["because"] == "fail"
        assert isinstance(values[nowhere.name], CommandNotFound)
        one, two, three = await graph.run(good, bad, lost, on_error="partial")
        assert (one, type(two), type(three)) == (3, ExecutionFailed, Cancelled)
        with pytest.raises(ValueError, match='"fail" or "partial"'):
            await graph.run(on_error="ignore")  # type: ignore[arg-type]


async def test_mutated_input_is_unchanged_for_the_other_dependent() -> None:
    async with cluster() as at:

        def empty(rows: list[int], *_: object) -> list[int]:
            rows.clear()
            return rows

        at.servers[1].register("empty", empty)
        graph = at.client.graph()
        rows = graph.call("echo", [1, 2])
        emptied = graph.call("empty", rows)
        again = graph.call("empty", rows, emptied)
        whole = graph.call("echo", rows, name="whole")
        assert await graph.run(emptied, again, whole, wait=5) == ([], [], [1, 2])


# -- questions --------------------------------------------------------------------------------------------------------


async def test_explain_names_nodes_and_reasons_and_runs_nothing() -> None:
    async with cluster() as at:
        names = {row.name: row.shown for row in (await at.client.view()).members}
        graph = at.client.graph()
        graph.call("note", "any")
        graph.call("note", "left", resources={"left"})
        graph.call("echo", 1)
        rows = await graph.explain()
        assert [row.name for row in rows] == ["note", "note-2", "echo"]
        assert sorted(rows[0].nodes) == sorted((names["left"], names["right"]))
        assert rows[0].why == "drawn among 2 equals"
        assert rows[1].nodes == (names["left"],)
        assert len(rows[2].nodes) == 3
        assert at.ran == []
        with pytest.raises(InvalidRequest, match="this graph has no calls yet"):
            await at.client.graph().run()


async def test_trace_names_node_and_times_of_each_call() -> None:
    async with cluster() as at:
        names = {row.name: row.shown for row in (await at.client.view()).members}
        graph = at.client.graph()
        first = graph.call("add", 1, resources={"left"})
        graph.call("add", first, resources={"right"})
        answer = await at.client.answer(graph, trace=True)
        assert answer.values == {"add-2": 1}
        assert (answer.errors, answer.error) == ({}, None)
        assert [(row.name, row.node) for row in answer.trace] == [("add", names["left"]), ("add-2", names["right"])]
        before, after = answer.trace
        assert 0 <= before.queued <= before.moved <= before.started <= before.ended <= after.queued


async def test_graph_waits_for_a_later_registration() -> None:
    async with cluster() as at, anyio.create_task_group() as tasks:
        graph = at.client.graph()
        late = graph.call("late", graph.call("note", "ran"))

        async def run() -> None:
            assert await graph.run(late, wait=30) == ["ran"]

        tasks.start_soon(run)
        while not at.ran:
            await at.client.call("echo", 1)
        at.servers[2].register("late", lambda value: [value])


async def test_too_long_leaf_of_a_stream_raises_after_the_others() -> None:
    limits = Limits(message=20_000)
    async with Server(port=0, limits=limits) as server, Client(server.url, limits=limits) as client:
        server.register("big", lambda size: "x" * size, inline=True)
        graph = client.graph()
        graph.call("big", 10, name="small")
        graph.call("big", 30_000, name="large")
        came = []
        with pytest.raises(LimitExceeded) as found:
            async for name, _ in graph.stream(timeout=10):
                came.append(name)
        assert came == ["small"] and found.value.details["limit"] == "message"
