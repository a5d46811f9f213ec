"""The parts of one check: nodes with the driver under test, peers, seeds and functions. All end with the check."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from traceback import extract_tb, format_exception_only, format_list
from typing import Any
from urllib.parse import SplitResult, urlsplit

from mpreg_proto.config import NodeConfig
from mpreg_proto.ids import Address
from mpreg_proto.limits import MILLISECOND, SECOND, Limits
from mpreg_transports.testing.driver_checks.peers import CheckTooLong, Forwarder, Peer, Seed, Unexpected
from mpreg_transports.testing.driver_checks.report import DriverUnderTest, MakeDriver
from mpreg_transports.testing.simulation.checks import describe

LONG = 60 * SECOND
"""A limit that no check waits for: what would come only then counts as missing."""


WAITS = 10
"""The longest that one check may take, as a multiple of the limit of each wait. Reasonable: a correct
driver needs a few of them at most, also on a busy machine."""


_CLOSING_SECONDS = 0.5
"""The seconds within which a driver that fails ends after its connections: a peer sees their end first."""
_FRAMES = 4
"""The frames of the traceback of a driver's exception that a report shows."""


class WrongHandle(TypeError):
    """The object that `make` returned is not a handle of a driver. The text says what was expected."""


class RunningDriver:
    """The object that `make` returned. It keeps the first exception that the driver's own code raises."""

    def __init__(self, made: object) -> None:
        """Raise WrongHandle unless `made` has the members of `DriverUnderTest`."""
        missing = [name for name in ("url", "leave", "wait") if not hasattr(made, name)]
        if missing:
            raise WrongHandle(
                f"make returned {describe(made)} without {', '.join(missing)}: expected a handle with url, leave() and "
                "wait(seconds), see mpreg_transports.testing.DriverUnderTest"
            )
        self._made: Any = made
        self.error: Exception | None = None
        if not _is_address(self.url):
            raise WrongHandle(
                f"the url of the handle that make returned is {self.url!r:.60}: expected tcp://127.0.0.1:PORT for raw "
                "frames, or ws://127.0.0.1:PORT/PATH, once the node listens"
            )

    @property
    def url(self) -> str:
        """The address of the node."""
        url: str = self._made.url
        return url

    def leave(self) -> None:
        """Let the node leave."""
        self._call(self._made.leave)

    def wait(self, seconds: float) -> bool:
        """Return whether the driver has ended within this time."""
        return bool(self._call(self._made.wait, seconds))

    def _call(self, act: Callable[..., object], *args: object) -> object:
        try:
            return act(*args)
        except Exception as error:
            self.error = self.error or error
            raise


def _is_address(url: object) -> bool:
    try:
        where = urlsplit(url) if isinstance(url, str) else None
        return where is not None and where.scheme in ("tcp", "ws") and bool(where.hostname and where.port)
    except ValueError:  # a port that is no number
        return False


class Bench:
    """The objects of one check. `seconds` bounds each wait for the driver; a check may take `WAITS` of them."""

    def __init__(self, make: MakeDriver, seconds: float) -> None:
        self.longest: float = WAITS * seconds
        """The seconds after which the check ends, whatever happens."""
        self._seconds = seconds
        self.until: float = time.monotonic() + self.longest
        """The time of the monotonic clock at which the check ends."""
        self.cluster_id: str = f"driver-check-{os.urandom(8).hex()}"
        """A cluster of its own: a bad address may lead to a node that runs on this machine."""
        self._make = make
        self._make_error: Exception | None = None
        self._nodes: list[RunningDriver] = []
        self._left: list[DriverUnderTest] = []
        self._peers = 0
        self._closing: list[Callable[[], None]] = []
        self._held = threading.Event()
        self.holding: threading.Semaphore = threading.Semaphore(0)
        """Released by each call of `hold` that has begun."""

    @property
    def seconds(self) -> float:
        """The limit of the next wait for the driver. Raises CheckTooLong when the check has taken all of its time."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise CheckTooLong("each part of it had been in time")
        return min(self._seconds, left)

    @property
    def scheme(self) -> str:
        """The scheme of the addresses that the driver listens at, and dials."""
        return self._where().scheme

    @property
    def path(self) -> str:
        """The path in the address of the driver."""
        return self._where().path

    # -- the driver under test ----------------------------------------------------------------------------------------

    def start(self, *, seeds: Sequence[str] = (), name: str = "node", **limits: int) -> DriverUnderTest:
        """Start a node. Limits that a check does not set are long where they would hide that a report is missing."""
        defaults = {
            "handshake": LONG,
            "dial": LONG,
            "stalled": LONG,
            "drain_grace": LONG,
            "goodbye": LONG,
            "hang_up": 300 * MILLISECOND,
            "dial_first": 10 * MILLISECOND,
            "dial_longest": 50 * MILLISECOND,
        }
        config = NodeConfig(
            name=name,
            cluster_id=self.cluster_id,
            seeds=tuple(Address(seed) for seed in seeds),
            limits=Limits(**{**defaults, **limits}),
        )
        try:
            made = self._make(config, self.functions())
        except Exception as error:
            self._make_error = error
            raise
        node = RunningDriver(made)
        self._nodes.append(node)
        return node

    def _where(self) -> SplitResult:
        """Return the address of a node of the driver; start one for that if there is none yet."""
        return urlsplit((self._nodes[0] if self._nodes else self.start(name="probe")).url)

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that each node offers."""
        return {"add": add, "copy": copy, "blob": blob, "fail": fail, "hold": self.hold}

    def hold(self) -> str:
        """Return once the check calls `release`: a call that runs for as long as the check wants."""
        self.holding.release()
        self._held.wait()
        return "held"

    def wait_for_hold(self) -> None:
        """Wait until a call of `hold` has begun. Raises Unexpected."""
        if not self.holding.acquire(timeout=self.seconds):
            raise Unexpected(f"a call that the node had accepted did not begin within {self.seconds:g} s")

    def release(self) -> None:
        """Let all calls of `hold` return."""
        self._held.set()

    def end(self, node: DriverUnderTest, *, leave: bool = True) -> None:
        """Let a node leave, unless it does already, and wait for the end of its driver. Raises Unexpected."""
        if leave:
            node.leave()
        self._left.append(node)
        began = time.monotonic()
        if not node.wait(self._seconds):
            raise Unexpected(f"the driver had not ended {self._seconds:g} s after leave()")
        if time.monotonic() - began > self._seconds + 1:
            raise Unexpected(f"wait({self._seconds:g}) returned after {time.monotonic() - began:.1f} s")

    # -- peers --------------------------------------------------------------------------------------------------------

    def connect(self, node: DriverUnderTest, *, native: bool = True, buffer: int = 0, pings: bool = True) -> Peer:
        """Connect a peer, which has sent nothing yet."""
        self._peers += 1
        peer = Peer(
            node.url,
            seconds=self._seconds,
            until=self.until,
            name=f"peer-{self._peers}",
            native=native,
            buffer=buffer,
            answers_pings=pings,
        )
        self._closing.append(peer.close)
        return peer

    def client(self, node: DriverUnderTest, *, buffer: int = 0, pings: bool = True) -> Peer:
        """Connect a native client and exchange hellos."""
        return self.connect(node, buffer=buffer, pings=pings).greet()

    def seed(self, scheme: str) -> Seed:
        """Reserve an address for a seed."""
        seed = Seed(scheme)
        self._closing.append(seed.close)
        return seed

    def forwarder(self, scheme: str) -> Forwarder:
        """Open an address whose connections wait."""
        forwarder = Forwarder(scheme)
        self._closing.append(forwarder.close)
        return forwarder

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all that the check has started. Raises Unexpected for a node whose driver does not end."""
        self.release()
        for close in reversed(self._closing):
            close()
        for node in self._nodes:
            if node not in self._left:
                self.end(node)

    def died(self) -> str:
        """Return how a driver has ended although nothing has let its node leave; empty if none has."""
        for node in self._nodes:
            try:
                if node not in self._left and node.wait(_CLOSING_SECONDS):
                    return "the driver has ended by itself"
            except Exception as error:
                return f"the driver has ended with {type(error).__name__}: {error}"
        return ""

    def error(self) -> str:
        """Return the first exception of the driver's own code, with the last frames of its traceback; else empty."""
        for error in (self._make_error, *(node.error for node in self._nodes)):
            if error is not None:
                frames = [one for one in extract_tb(error.__traceback__) if one.filename != __file__][-_FRAMES:]
                return "".join([*format_list(frames), *format_exception_only(error)]).rstrip()
        return ""


def add(x: int, y: int) -> int:
    """Return the sum."""
    return x + y


def copy(value: object) -> object:
    """Return the argument."""
    return value


def blob(size: int) -> bytes:
    """Return bytes whose order can be checked."""
    return pattern(size)


def fail(text: str) -> None:
    """Raise ValueError with this text."""
    raise ValueError(text)


_NUMBERS = b"".join(number.to_bytes(4, "big") for number in range(65_536))


def pattern(size: int) -> bytes:
    """Return `size` bytes in which a missing, doubled or displaced piece shows."""
    return (_NUMBERS * (size // len(_NUMBERS) + 1))[:size]
