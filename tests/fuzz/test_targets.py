"""Every harness of fuzz/ over its corpus, over a few thousand mutations of it, and over what hypothesis draws.

The long runs are `python -m fuzz TARGET --seconds N` and hypofuzz, which takes the hypothesis test below as it is.
"""

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import CORPUS, make_corpus
from fuzz.__main__ import main
from mpreg_transports.testing.fuzz import TARGETS, command, harness
from mpreg_transports.testing.fuzz.draws import Draws
from mpreg_transports.testing.fuzz.mutation import mutations
from mpreg_transports.testing.fuzz.traces import TraceStep, packed, unpacked


def corpus(target: str) -> list[bytes]:
    return command.corpus(target, CORPUS)


SLOW = {"graph": 30, "peer": 120, "catalogue": 200, "requests": 200}
"""Mutations of targets whose inputs take long; 400 of the others."""


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_passes(target: str) -> None:
    function, inputs = harness(target), corpus(target)
    assert inputs
    for data in inputs:
        function(data)


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_of_it_pass(target: str) -> None:
    function = harness(target)
    for data in islice(mutations(corpus(target), 1), SLOW.get(target, 400)):
        function(data)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60)
@given(data=st.binary(max_size=300))
def test_any_bytes_pass(target: str, data: bytes) -> None:
    harness(target)(data)


def test_the_script_writes_a_corpus_the_same_every_time_and_it_is_small(tmp_path: Path) -> None:
    """A kept input may be older: conversations of an earlier core are as good to mutate."""
    for folder in ("one", "other"):
        make_corpus.write(tmp_path / folder, log=lambda row: None)
    for target in TARGETS:
        one, other = (
            {file.name: file.read_bytes() for file in (tmp_path / folder / target).iterdir()}
            for folder in ("one", "other")
        )
        assert one and one == other
    for folder in (CORPUS, tmp_path / "one"):
        assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 200 * 1024


def test_the_conversations_in_the_corpus_are_real_ones() -> None:
    """A trace that a node had refused at once would fuzz nothing but the handshake."""
    from mpreg_proto.wire.messages import Goodbye, Gossip, Hello, Request, Result
    from mpreg_transports.testing.fuzz.targets.peer import FuzzedNode

    received: dict[type, None] = {}
    answers = 0
    for data in corpus("peer"):
        world = FuzzedNode(dials=data[0] % 2 == 1)
        for step, payload in unpacked(data[1:]):
            if step is TraceStep.SAY:
                world.receive(world.link, payload)
            elif step is TraceStep.WAIT:
                world.wait(payload[0] * 100_000_000)
            elif step is TraceStep.ACT:
                world.submit()
        answers += sum(world.submitted.values())
        received.update(dict.fromkeys(map(type, world.transcripts[world.link].messages)))
    assert {Goodbye, Hello, Gossip, Request, Result} <= set(received)
    assert answers, "what the node itself asked is answered by its peer"


def test_a_trace_is_what_it_was_packed_of() -> None:
    steps = [(TraceStep.SAY, b"x" * 300), (TraceStep.WAIT, b"\7"), (TraceStep.CLOSE, b""), (TraceStep.ACT, b"\1")]
    assert list(unpacked(packed(steps))) == steps
    assert b"".join(part for _, part in unpacked(packed([(TraceStep.SAY, b"y" * 70_000)]))) == b"y" * 70_000


def test_draws_end_in_zeros() -> None:
    draws = Draws(b"\5\xff")
    assert (draws.below(4), draws.byte(), draws.more, draws.byte(), draws.text()) == (1, 255, False, 0, "")
    assert Draws(b"\1\0").order("abc") == ["b", "a", "c"]


def test_mutations_come_from_the_seed() -> None:
    assert list(islice(mutations([b"abc"], 5), 50)) == list(islice(mutations([b"abc"], 5), 50))
    assert list(islice(mutations([b"abc"], 5), 50)) != list(islice(mutations([b"abc"], 6), 50))


def test_a_run_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()] == list(TARGETS)
    assert main(["frames", "--seconds", "0.05", "--seed", "9", "--random", "--artifacts", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "executions" in out and "corpus 9" in out and "seed 9" in out


def test_a_crash_is_written_down_and_can_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(stream: bytes, limit: int) -> tuple[list[bytes], int | None]:
        return [], None

    monkeypatch.setattr("mpreg_transports.testing.fuzz.targets.frames.oracle", defect)
    assert main(["frames", "--seconds", "5", "--random", "--artifacts", str(tmp_path)]) == 1
    (file,) = tmp_path.iterdir()
    assert f"python -m fuzz frames --input {file}" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        main(["frames", "--input", str(file)])
    monkeypatch.undo()
    assert main(["frames", "--input", str(file)]) == 0
