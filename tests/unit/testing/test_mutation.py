"""Mutants of a text, the sample, its results, and the survivors in the documentation. No test runs a mutant."""

import ast
from pathlib import Path

import pytest

from tests.mutation import ROOT
from tests.mutation.__main__ import read, summary
from tests.mutation.operators import compiles, mutants, mutated
from tests.mutation.reach import test_files as files_for
from tests.mutation.running import Result
from tests.mutation.sample import all_mutants, files, sample
from tests.mutation.survivors import survivors, table

NO_CODE = '''
"""A text with `1 < 2`."""
from typing import TYPE_CHECKING, Protocol
if TYPE_CHECKING:
    x = 1
class Speaks(Protocol):
    limit: int = 3
class Row:
    size: int | None
    def __repr__(self) -> str:
        return "x" * 2
    def check(self, value: int | str) -> None:
        """Return 1 + 1."""
        assert value == 1, "1 < 2"
        log.warning("failed", value + 1)
'''


def changes(text: str) -> set[tuple[str, str]]:
    found = [one for one in mutants(text) if compiles(text, one)]
    return {(one.operator, mutated(text, one)) for one in found}


@pytest.mark.parametrize(
    ("text", "operator", "after"),
    [
        ("a < b", "comparison", ["a >= b"]),
        ("a < b", "boundary", ["a <= b"]),
        ("a is not None", "comparison", ["a is None"]),
        ("(a)  in  (b)", "comparison", ["(a)  not in  (b)"]),
        ("a and b", "and and or", ["(((a)) or ((b)))"]),
        ("a and b", "drop operand", ["((a))", "((b))"]),
        ("not a", "drop not", ["(a)"]),
        ("x if a else y", "negate condition", ["x if not (a) else y"]),
        ("a - b", "arithmetic", ["a + b"]),
        ("a += b", "arithmetic", ["a -= b"]),
        ("a += b", "drop assignment", ["pass"]),
        ("x = 3", "constant", ["x = (3 + 1)", "x = (3 - 1)"]),
        ("x = 3.5", "constant", ["x = (3.5 * 2)"]),
        ("x = True", "constant", ["x = False"]),
        ("f(a)", "drop call", ["pass"]),
        ("del a[b]", "drop deletion", ["pass"]),
        ("raise E(1 + 1)", "drop raise", ["pass"]),
        ("min(a)", "call", ["max(a)"]),
        ("x = f(a, k=(b), m=c)", "drop keyword", ["x = f(a,  m=c)", "x = f(a, k=(b), )"]),
        ("def f():\n    return a", "return None", ["def f():\n    return None"]),
        ("@cache\ndef f(): return", "drop decorator", ["\ndef f(): return"]),
        ("while a:\n    break", "break and continue", ["while a:\n    continue"]),
    ],
)
def test_mutation_operator(text: str, operator: str, after: list[str]) -> None:
    assert sorted(new for kind, new in changes(text) if kind == operator) == sorted(after)


def test_text_that_is_no_code_has_no_mutants() -> None:
    assert changes(NO_CODE) == set()


def test_mutants_change_one_place_and_keep_the_rest() -> None:
    text = (ROOT / "mpreg_proto/cluster/suspicion.py").read_text("utf-8")
    found = mutants(text)
    assert len(found) > 50
    for one in found[::10]:
        after = mutated(text, one)
        raw = text.encode()
        assert after.encode().startswith(raw[: one.start]) and after.encode().endswith(raw[one.end :])
        assert compiles(text, one) and ast.parse(after)


def test_sample_is_repeatable_and_grows_at_its_end() -> None:
    names = ["mpreg_proto/timers.py", "mpreg_transports/values.py"]
    assert set(names) <= set(files())
    small, large = sample(10, 1, names), sample(20, 1, names)
    assert small == large[:10] and len(large) == 20
    assert [one.key for one in sample(20, 2, names)] != [one.key for one in large]


def test_keys_of_mutants_are_unique() -> None:
    keys = [one.key for one in all_mutants(["mpreg_proto/client.py", "mpreg_proto/cluster/members.py"])]
    assert len(set(keys)) == len(keys)


def test_tests_of_a_module_begin_with_its_own() -> None:
    own, others = files_for("mpreg_proto/requests/coordinator.py")
    assert own == ["tests/unit/proto/requests/test_coordinator.py"]
    assert "tests/unit/proto/requests/test_failover.py" in others
    own, others = files_for("mpreg_transports/links/websocket.py")
    assert {Path(one).name for one in own} == {"test_websocket_client.py", "test_websocket_server.py"}
    assert "tests/conformance/test_http.py" in others
    for file in files():
        assert all((ROOT / one).is_file() for group in files_for(file) for one in group), file


def test_results_after_a_run_that_was_cut(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    assert read(results) == []
    line = '{"key":"k","file":"mpreg_proto/x.py","line":1,"operator":"o","where":"","diff":"d","verdict":"killed"}'
    results.write_text(f"{line}\n{line[:40]}", "utf-8")
    assert [one.key for one in read(results)] == ["k"]


def test_summary_of_results() -> None:
    results = [
        Result("1", "mpreg_proto/x.py", 1, "o", "", "d", "killed", "seed 3: invariant 9"),
        Result("2", "mpreg_proto/x.py", 1, "o", "", "d", "killed", "tests/x.py::y - assert"),
        Result("3", "mpreg_transports/x.py", 1, "o", "", "d", "survived"),
    ]
    assert summary(results)[0] == (
        "both packages: 3 mutants, 1 killed by tests, 1 by seeds, 0 by the time limit, 1 survived"
    )


def test_survivors_have_a_reason_or_a_test() -> None:
    assert len({one.key for one in survivors()}) == len(survivors())
    for one in survivors():
        assert (ROOT / one.file).is_file(), one
        assert bool(one.reason) == (one.verdict == "equivalent") and bool(one.test) == (one.verdict == "fixed"), one
        if one.test:
            file, name = one.test.split("::")
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), one


def test_survivors_of_the_documentation() -> None:
    assert "\n".join(table()) in (ROOT / "docs/explanation/testing.md").read_text("utf-8")
