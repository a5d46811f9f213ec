"""The journal of a real node replays to the same hash, and a changed journal is detected."""

import errno
import inspect
import io
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.effects import Framing, Send
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.wire.handshake import Authentication, hello
from mpreg_proto.wire.messages import Refused
from mpreg_transports import Client, ExecutionFailed, Server
from mpreg_transports.config.validation import CannotJournal
from mpreg_transports.observe import journal
from mpreg_transports.observe.journal import Replayed, replay
from mpreg_transports.values import default_codec

pytestmark = pytest.mark.anyio


def fails() -> None:
    raise ValueError("no")


def unsendable() -> object:
    return object()


async def recorded(file: Path) -> str:
    """Run a node that serves some calls, local and remote, with its journal in `file`; return its id."""
    async with Server(name="a", port=0, journal=file) as a, Server(name="b", port=0, peers=[a.url]) as b:
        b.register(None, fails)
        a.register(None, unsendable)
        async with Client(a.url) as client:
            for number in range(300):
                assert await client.call("echo", number) == number
            for name in ("fails", "unsendable"):
                with pytest.raises(ExecutionFailed):
                    await client.call(name, wait=5)
            return (await client.view()).id


def again(file: Path, *, stop_at: int | None = None) -> Replayed:
    return replay(file, codec=default_codec(), stop_at=stop_at)


async def test_journal_replays_to_the_same_hash(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    identity = await recorded(file)
    first, second = again(file), again(file)
    assert first.agreed and first.marks > 1 and first.marked == first.inputs
    assert first.version == version("mpreg")
    assert (first.hash, first.inputs) == (second.hash, second.inputs)
    assert first.view.id == identity
    assert {member.name for member in first.view.members} == {"a", "b"}


async def test_long_text_of_surrogates_replays_to_the_same_hash(tmp_path: Path) -> None:
    def fails_at_length() -> None:
        raise ValueError("\udcff" * 20_000)

    file = tmp_path / "a.journal"
    async with Server(port=0, journal=file) as server, Client(server.url) as client:
        server.register(None, fails_at_length)
        with pytest.raises(ExecutionFailed):
            await client.call("fails_at_length")
    assert again(file).agreed


async def test_replay_stops_at_an_input(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    await recorded(file)
    early = again(file, stop_at=3)
    assert early.inputs == 3
    assert [member.name for member in early.view.members] == ["a"]
    assert early.last[0].startswith("1 at ")
    assert (early.marks, early.marked) == (0, 0)  # nothing was compared yet


async def test_changed_journal_is_detected(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    await recorded(file)
    data = file.read_bytes()
    at = data.index(b"boom") if b"boom" in data else data.index(b"fails")
    file.write_bytes(data[:at] + b"F" + data[at + 1 :])
    assert not again(file).agreed


async def test_killed_process_leaves_a_readable_journal(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    await recorded(file)
    whole = again(file)
    file.write_bytes(file.read_bytes()[:-20])
    cut = again(file)
    assert cut.agreed and cut.inputs <= whole.inputs


def files(folder: Path) -> list[Path]:
    """Return the contents of a folder, in order."""
    return sorted(folder.iterdir())


def written(folder: Path) -> list[Path]:
    """Return the files of a folder that are not empty."""
    return [path for path in files(folder) if path.stat().st_size]


def test_journal_record_types_are_complete() -> None:
    """`replay` refuses a record with any other name."""
    tapped = {}
    for name, method in vars(Node).items():
        if callable(method) and not name.startswith("__"):
            tapped.update(dict.fromkeys(re.findall(r'_tap\.input\("(\w+)"', inspect.getsource(method)), name))
    assert all(name == method for name, method in tapped.items()), tapped
    assert tapped.keys() == journal._INPUTS


async def test_each_run_has_its_own_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mpreg")
    file = tmp_path / "a.journal"
    (tmp_path / "a.journal.7").touch()
    for name in ("first", "second", "third"):
        async with Server(name=name, port=0, journal=file) as server, Client(server.url) as client:
            await client.call("echo", name)
    names = {path.name: again(path).view.shown.partition("#")[0] for path in written(tmp_path)}
    assert names == {"a.journal.8": "first", "a.journal.9": "second", "a.journal": "third"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in written(tmp_path))
    assert f"the journal of the run before is {file}.9 now" in caplog.messages


async def test_journal_of_a_run_killed_at_once_is_moved(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    for begun in (b"", journal.MAGIC[:5], journal.MAGIC):
        file.write_bytes(begun)
        async with Server(port=0, journal=file):
            pass
        assert again(file).agreed
        file.unlink()
    assert [path.read_bytes() for path in files(tmp_path)] == [b"", journal.MAGIC[:5], journal.MAGIC]


async def test_file_that_is_no_journal_is_never_overwritten_or_moved(tmp_path: Path) -> None:
    notes, link, folder = tmp_path / "notes.txt", tmp_path / "link", tmp_path / "folder"
    notes.write_text("mine", "utf-8")
    link.symlink_to(notes)
    folder.mkdir()
    taken = "there is such a file already, and it is no journal"
    for file, reason in ((notes, taken), (link, taken), (folder, "it is a folder; name a file in it")):
        with pytest.raises(CannotJournal, match=reason):
            async with Server(port=0, journal=file):
                pass
    assert notes.read_text("utf-8") == "mine" and files(tmp_path) == [folder, link, notes]


class FullDisk(io.FileIO):
    """A file on a disk that has room for `room` bytes."""

    room = 100_000

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self.room:
            taken = super().write(data[: self.room - self.tell()])
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return taken
        return super().write(data)


async def test_full_disk_ends_the_journal_and_not_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.journal"
    monkeypatch.setattr(journal, "_create", lambda file: io.BufferedWriter(FullDisk(file, "xb")))
    async with Server(port=0, journal=file) as server, Client(server.url) as client:
        for number in range(40):
            assert await client.call("echo", [number, "x" * 10_000]) == [number, "x" * 10_000]
    said = [record.getMessage() for record in caplog.records if "journal" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("the journal ends here, the node goes on: ")
    assert file.stat().st_size == FullDisk.room
    cut = again(file)  # the part that had room replays
    assert cut.agreed and cut.inputs > 5


def test_other_file_is_no_journal(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a node's journal"):
        again(file)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (None, "ends before its first record"),
        (b"", "record 2 is damaged: Input data was truncated"),
        (b"\x01", "record 2 is damaged: Expected `array`"),
        (b"\x93\xa4w4ke\x00\x90", "record 2 is damaged: there is no input 'w4ke'"),
    ],
)
async def test_damaged_record_is_named(tmp_path: Path, body: bytes | None, text: str) -> None:
    file = tmp_path / "a.journal"
    await recorded(file)
    data = file.read_bytes()
    start = len(journal.MAGIC)
    first = start + 4 + int.from_bytes(data[start : start + 4], "big")
    file.write_bytes(data[:start] if body is None else data[:first] + len(body).to_bytes(4, "big") + body)
    with pytest.raises(ValueError, match=text):
        again(file)


async def test_refused_command_and_messages_as_objects(tmp_path: Path) -> None:
    """A command that the node refuses is refused again; a node of a test may get messages that were never encoded."""
    file, now = tmp_path / "a.journal", 1_000_000_000
    config = NodeConfig(limits=Limits(functions=1))
    me, codec = MemberId(b"m" * 16), default_codec()
    written = journal.Journal(file, config, me=me, seed=1, now=now, codec=codec)
    node = Node(config, me=me, rng=Rng(1), entropy=written.entropy, now=now, codec=codec, tap=written)
    node.offer(FunctionSpec(name="f"), now=now)
    with pytest.raises(LocalProtocolError):
        node.offer(FunctionSpec(name="g"), now=now)
    node.link_opened(LinkId(1), framing=Framing.OBJECTS, dialled=None, now=now)
    node.handle(LinkId(1), hello(cluster="default-cluster", member=b"", name="x"), now=now)
    node.drain()
    written.close()
    done = again(file)
    assert done.agreed and done.inputs == 4


async def test_verdict_on_a_peer_is_recorded(tmp_path: Path) -> None:
    file, now = tmp_path / "a.journal", 1_000_000_000
    config = NodeConfig()
    me, codec = MemberId(b"m" * 16), default_codec()
    written = journal.Journal(file, config, me=me, seed=1, now=now, codec=codec)
    node = Node(config, me=me, rng=Rng(1), entropy=written.entropy, now=now, codec=codec, tap=written)
    node.link_opened(LinkId(1), framing=Framing.OBJECTS, dialled=None, now=now, verdict=Authentication.NONE)
    node.handle(LinkId(1), hello(cluster="default-cluster", member=b"", name="x"), now=now)
    assert any(isinstance(effect, Send) and isinstance(effect.message, Refused) for effect in node.drain())
    written.close()
    assert again(file).agreed
