"""`nodes`, `functions` and `check` on views made by hand: their output in 80 columns, and the problems they report."""

import re

import msgspec
import pytest
from rich.console import RenderableType

from mpreg_proto.view import FunctionRow, MemberView, NodeView
from mpreg_transports.cli.commands.cluster import assess, check_table, functions_table, members_table, observers_table
from mpreg_transports.cli.console import out


def member(name: str, *, standing: str = "alive", me: bool = False, catalogue: int = 3) -> MemberView:
    return MemberView(
        id=name * 8,
        shown=f"{name}#1a2b",
        name=name,
        standing=standing,
        incarnation=0,
        since=90 * 10**9,
        addresses=("ws://192.168.100.100:65535",),
        catalogue=catalogue,
        functions=2,
        resources=("dataset-2024-with-a-long-name", "gpu"),
        linked=True,
        me=me,
        waiting=0,
    )


def view(*members: MemberView, synced: bool = True, draining: bool = False) -> NodeView:
    row = FunctionRow(
        "train", "v2", "a#1a2b", ("gpu",), True, False, "(rows: 'list[int]', deep: 'bool' = False)", "Doc."
    )
    other = FunctionRow("train", "v2", "b#1a2b", ("cpu",), True, False, row.signature, "Doc.")
    return NodeView(
        id="00",
        shown="a#1a2b",
        cluster="c",
        draining=draining,
        synced=synced,
        requests=0,
        running=0,
        queued=0,
        links=1,
        members=members,
        functions=(row, other),
        waiting={"train": 12},
    )


def drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: RenderableType) -> str:
    """Return the output in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    out().print(what)
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines()), text
    return text


def test_observers_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"worker-{number}#1a2b" for number in range(12)]
    far = msgspec.structs.replace(member("bee"), rtt=1_500_000, lag=2, observers=tuple(names[:10]), accusers=3)
    near = msgspec.structs.replace(member("a", me=True), observers=tuple(names[2:]))
    others = [member(name.partition("#")[0], catalogue=0) for name in names]
    text = " ".join(drawn(capsys, monkeypatch, observers_table(view(near, far, *others))).split())
    assert re.search(r"1\.5 ms \d+ version 3, 2 behind", text) and "(3 suspect it)" in text
    assert "unknown" in text and names[9] in text and "all others" not in text
    both = [msgspec.structs.replace(one, observers=("x#1",)) for one in (near, far)]
    assert "all others" in drawn(capsys, monkeypatch, observers_table(view(*both)))


def test_members_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(capsys, monkeypatch, members_table(view(member("a", me=True), member("bee", standing="suspect"))))
    assert "a#1a2b *" in text
    assert "suspect" in text and "SERVER" in text
    assert text.count("ws://192.168.100.100:65535") == 2


def test_node_without_resources_is_a_balancer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    front = msgspec.structs.replace(member("front"), resources=())
    lines = drawn(capsys, monkeypatch, members_table(view(front, member("a", me=True)))).splitlines()
    assert ["BALANCER" in line for line in lines if "#1a2b" in line] == [True, False]


def test_draining_node_in_the_members_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = members_table(view(member("a", me=True), member("b", standing="draining")))
    lines = drawn(capsys, monkeypatch, shown).splitlines()
    assert [next(word for word in ("draining", "alive") if word in line) for line in lines if "#1a2b" in line] == [
        "alive",
        "draining",
    ]


def test_functions_table_lists_each_function_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = drawn(capsys, monkeypatch, functions_table(view()))
    assert [line.split()[-1] for line in text.splitlines() if "FUNCTION" in line or "gpu" in line] == ["WAITING", "12"]
    assert text.count("train(rows: list[int], deep: bool = False)") == 1
    assert text.count("Doc.") == text.count("v2 idempotent") == 1
    assert "a#1a2b  gpu" in text and "b#1a2b  cpu" in text


def test_check_of_a_sane_view(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = assess("ws://h:1", view(member("a", me=True), member("b")), protocol=1, reached=5_000_000, rtt=300_000)
    assert found.problems == ()
    assert (found.members, found.functions) == ({"alive": 2}, 1)
    text = drawn(capsys, monkeypatch, check_table(found))
    assert "ws://h:1, after 5.0 ms" in text and "300 us (the shortest of 5)" in text and "2 alive" in text


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (view(draining=True), "a#1a2b is leaving the cluster"),
        (view(synced=False), "a#1a2b has met none of its peers yet"),
        (view(member("b", standing="suspect")), "b#1a2b does not answer a#1a2b at the moment"),
        (view(member("b", catalogue=0)), "a#1a2b does not know yet what b#1a2b offers"),
    ],
)
def test_check_reports_a_problem(seen: NodeView, problem: str) -> None:
    found = assess("ws://h:1", seen, protocol=1, reached=1, rtt=1)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)


def test_check_ignores_dead_and_left_members() -> None:
    seen = view(member("b", standing="dead", catalogue=0), member("c", standing="left", catalogue=0))
    assert assess("ws://h:1", seen, protocol=1, reached=1, rtt=1).problems == ()
