"""The path of one request through the core, in functions, files and changes of file.

    python -m tests.hops [--list]

The command follows a request of one call from its bytes to `Run`, and its outcome from `finished` to the bytes of the
answer: for a node that serves it itself, and for two nodes. It counts the second request, so that one-time work of a
node is left out. `--list` prints each call in order.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType

import mpreg_proto
from mpreg_proto.client import ClientSession
from mpreg_proto.effects import Dial, Framing, Returned, Run, Send
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Call, Request
from mpreg_proto.wire.values import ValueCodec
from tests.helpers.node_harness import spec

CODEC = ValueCodec()
_CORE = str(Path(mpreg_proto.__file__).parent)
AIM = {"in": (50, 12, 20), "out": (22, 8, None)}
"""The aim for a request that a node serves itself: at most so many functions, files and changes of file."""


class Way:
    """The functions of the core that one input called, in order."""

    def __init__(self, title: str, calls: list[tuple[str, str]]) -> None:
        self.title = title
        self.calls = calls
        """The file and the qualified name of each."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """The functions called, the files that they are in, and the changes from one file to another."""
        files = [file for file, _ in self.calls]
        changes = sum(one != other for one, other in pairwise(files))
        return len(files), len(dict.fromkeys(files)), changes


def followed(title: str, step: Callable[[], object]) -> Way:
    """Run `step` and record each function of the core that starts. Comprehensions count as part of their function."""
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_CORE) and not code.co_name.startswith("<"):
            calls.append((code.co_filename.removeprefix(_CORE + "/"), code.co_qualname))

    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
    return Way(title, calls)


class Pair:
    """One or two nodes and a client, joined by streams."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.now = SECOND
        self.nodes: dict[str, Node] = {}
        self.client = ClientSession(name="client")
        self.runs: list[tuple[str, Run]] = []
        self.wires: dict[tuple[str, LinkId], tuple[str, LinkId]] = {}
        self.waiting: deque[tuple[str, LinkId, bytes]] = deque()
        self._links = 0
        for number, name in enumerate(names):
            seeds = (Address(f"tcp://{names[0]}"),) if number else ()
            config = NodeConfig(name=name, addresses=(Address(f"tcp://{name}"),), seeds=seeds)
            node = Node(
                config,
                me=MemberId(bytes([number + 1]) * 16),
                rng=Rng(number),
                entropy=lambda size: b"\x07" * size,
                now=self.now,
                codec=CODEC,
            )
            self.nodes[name] = node
        self.nodes[names[-1]].offer(spec("f"), now=self.now)
        self.connect("client", names[0])
        self.settle()

    def connect(self, one: str, other: str) -> None:
        """Join two of them by a link, which `one` dialled."""
        self._links += 1
        link = LinkId(self._links)
        self.wires[one, link], self.wires[other, link] = (other, link), (one, link)
        for name, dialled in ((one, Address(f"tcp://{other}")), (other, None)):
            if name == "client":
                self.client.link_opened(link, framing=Framing.STREAM, address=Address("tcp://a"), now=self.now)
            else:
                self.nodes[name].link_opened(link, framing=Framing.STREAM, dialled=dialled, now=self.now)

    def collect(self) -> None:
        """Take the effects of all nodes and of the client."""
        for effect in self.client.drain():
            self._carry("client", effect)
        for name, node in self.nodes.items():
            for effect in node.drain():
                self._carry(name, effect)

    def _carry(self, name: str, effect: object) -> None:
        match effect:
            case Send(link, chunks):
                self.waiting.append((*self.wires[name, link], b"".join(chunks)))
            case Dial(address):
                self.connect(name, address.removeprefix("tcp://"))
            case Run():
                self.runs.append((name, effect))

    def deliver(self) -> tuple[str, Callable[[], object]]:
        """Return the receiver of the oldest bytes in transit, and the function that delivers them."""
        name, link, data = self.waiting.popleft()
        if name == "client":
            return name, lambda: self.client.receive(link, data, now=self.now)
        return name, lambda: self.nodes[name].receive(link, data, now=self.now)

    def settle(self) -> None:
        """Advance the time by two seconds."""
        for _ in range(200):
            self.collect()
            while self.waiting:
                self.deliver()[1]()
                self.collect()
            self.now += 10 * MILLISECOND
            for node in self.nodes.values():
                node.wake(now=self.now)

    def ask(self) -> Iterator[Way]:
        """Send one request; yield each input of a node that follows, with the functions it called."""
        call = Call("x", "f", CODEC.encode([[1], {}]))
        self.client.submit(Request(0, (call,)), now=self.now)
        self.collect()
        while self.waiting or self.runs:
            while self.waiting:
                name, step = self.deliver()
                way = followed(f"{name}: bytes in", step)
                self.collect()
                if name != "client":
                    yield way
            while self.runs:
                name, run = self.runs.pop()
                step = partial(self.nodes[name].finished, run.run, Returned(2), now=self.now)
                yield followed(f"{name}: outcome", step)
                self.collect()


def ways(*names: str) -> list[Way]:
    """Return the inputs of a second request to nodes of these names. The last node offers the function."""
    pair = Pair(names)
    list(pair.ask())
    pair.settle()
    return list(pair.ask())


def main() -> int:
    """Print them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.hops", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="each call, in its order")
    listed = parser.parse_args().list
    print(f"{'input':<34}{'functions':>10}{'files':>7}{'changes':>9}   aim")
    for title, names in (("one node", ("a",)), ("two nodes", ("a", "b"))):
        for number, way in enumerate(ways(*names)):
            functions, files, changes = way.counts
            aim = list(AIM.values())[number] if names == ("a",) else None
            shown = "" if aim is None else "/".join("-" if one is None else str(one) for one in aim)
            print(f"{title + ', ' + way.title:<34}{functions:>10}{files:>7}{changes:>9}   {shown}")
            if listed:
                for file, name in way.calls:
                    print(f"    {file:<32} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
