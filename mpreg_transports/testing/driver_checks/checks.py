"""The checks of a driver, in the order of docs/howto/driver.md. Each has its own nodes and a limit on each wait.

A check raises `Unexpected` with what came instead. It waits for what it expects and never for a time: where nothing may
happen, another peer's round trips show that the driver had the opportunity. What a peer has sent counts as received
only when the check has seen an effect of it: a driver with a thread for each connection may carry out `leave()` before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.view import NodeView
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Goodbye, GoodbyeReason, Hello, Ping, Pong, Refused, Result
from mpreg_transports.testing.driver_checks.bench import LONG, Bench, pattern
from mpreg_transports.testing.driver_checks.members import VanishingMember
from mpreg_transports.testing.driver_checks.peers import Ended, Peer, Unexpected, connect, reset, shorten

MIB = 1024 * 1024
_ROUND_TRIPS = 5
"""The round trips of another peer after which a driver has had the opportunity to do what it should not."""
_NOT_PAUSED = 24 * MIB
"""The bytes that a driver may take from a client that should be paused: what the buffers of the system can hold."""


class Check(NamedTuple):
    """One check."""

    name: str
    expected: str
    advice: str
    run: Callable[[Bench], None]


CHECKS: list[Check] = []
"""All checks, in their order."""


def check(expected: str, *, advice: str) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Add the decorated function to `CHECKS`, under its own name."""

    def add(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        CHECKS.append(Check(run.__name__, expected, advice, run))
        return run

    return add


@check(
    "a node starts, listens at its URL, and ends after leave() with its listener closed",
    advice="drive the node until node.left and all links are closed, close the listener; wait() is True from then on",
)
def start_and_leave(bench: Bench) -> None:
    node = bench.start(name="given")
    peer = bench.client(node)
    peer.require("add", 1, 2, value=3)
    view = peer.view()
    if view.cluster != bench.cluster_id or not view.shown.startswith("given#"):
        raise Unexpected(f"the node is {view.shown} of cluster {view.cluster}: it does not have the configuration")
    peer.close()
    bench.end(node)
    if not node.wait(0):
        raise Unexpected("wait() returned True, and False when it was called again")
    _require_closed(node.url, bench.seconds)


# -- links that are accepted -------------------------------------------------------------------------------------------


@check(
    "a native client and a JSON client get the results of their calls",
    advice="the right Framing, receive for all bytes, Run with args and kwargs, finished, a flush after each input",
)
def clients(bench: Bench) -> None:
    node = bench.start()
    peer = bench.client(node)
    peer.require("add", 1, 2, value=3)
    by_name = msgspec.structs.replace(peer.request("add", 1, keywords={"y": 2}), trace=True)
    peer.send(by_name)
    _require_answer(peer, by_name.id, 3)
    peer.require("blob", 3 * MIB, value=pattern(3 * MIB))
    peer.require("copy", pattern(3 * MIB), value=pattern(3 * MIB))
    answer = bench.connect(node, native=False).ask_json("add", 1, 2)
    if answer != {"r": {"one": 3}, "error": None, "u": "1"}:
        raise Unexpected(f"the JSON client got {shorten(answer)}")


@check(
    "an exception of a function reaches the caller as error 1003 with its type and text, and the node goes on",
    advice="catch every Exception of a function and report finished(run, Raised(type, text)), in a thread too",
)
def raising_function(bench: Bench) -> None:
    peer = bench.client(bench.start())
    for _ in range(2):
        fault = peer.call("fail", "no such thing")
        if (
            not isinstance(fault, Fault)
            or fault.code != ErrorCode.EXECUTION_FAILED
            or "ValueError" not in fault.message
        ):
            raise Unexpected(f"the call of a function that raises ValueError was answered with {shorten(fault)}")
    peer.require("add", 1, 2, value=3)


@check(
    "messages arrive in their order, however the bytes are cut",
    advice="pass bytes to receive as they come; carry out the effects in the order of drain, and all chunks of a Send",
)
def cut_bytes(bench: Bench) -> None:
    node = bench.start()
    other = bench.client(node)
    slow = bench.connect(node)
    data = slow.frame(hello(cluster="", member=b"", name=slow.name)) + slow.frame(slow.request("add", 20, 22))
    for position in range(len(data)):
        slow.write(data[position : position + 1])
        other.view()  # the driver has read the byte before the next one comes
    slow.expect(Hello)
    _require_answer(slow, 1, 42)
    fast = bench.connect(node)
    pings = b"".join(fast.frame(Ping(number)) for number in range(200))
    unknown = fast.frame(fast.request("no such function"))
    fast.write(fast.frame(hello(cluster="", member=b"", name=fast.name)) + pings + unknown)
    fast.expect(Hello)
    pongs = [fast.expect(Pong).number for _ in range(200)]
    if pongs != list(range(200)):
        raise Unexpected("the answers to 200 pings of one write came in another order")
    fast.expect(Result)


@check(
    "a client that vanishes, also in the middle of a message, is reported once and ends nothing else",
    advice="report link_closed exactly once when a link ends, for EOF, a reset and any other error alike",
)
def vanishing_peers(bench: Bench) -> None:
    node = bench.start()
    other = bench.client(node)
    for vanish in (Peer.close, Peer.reset):
        for piece in (0, 1, 7, 60):
            peer = bench.client(node)
            whole = peer.frame(peer.request("add", 1, 2))
            peer.write(whole[:piece])
            vanish(peer)
        asking = bench.client(node)
        asking.submit("no such function", wait=60.0)
        vanish(asking)
        other.until_view(
            lambda view: view.links == 1 and view.requests == 0, "the node lets go of the links of peers that vanished"
        )
    other.require("add", 1, 2, value=3)


@check(
    "200 connections that are opened and closed at once leave nothing behind",
    advice="no exception of one connection may end the listener (accept, getpeername, setsockopt can fail)",
)
def many_connections(bench: Bench) -> None:
    node = bench.start()
    other = bench.client(node)
    for number in range(200):
        with suppress(Unexpected):
            peer = Peer(node.url, seconds=bench.seconds, until=bench.until) if number % 10 == 0 else None
            if peer is None:
                sock = connect(urlsplit(node.url), bench.seconds, 0)
                sock.sendall(b"\0\0"[: number % 3])
                reset(sock) if number % 2 else sock.close()
            elif number % 20:
                peer.close()
            else:
                peer.reset()
    other.until_view(lambda view: view.links == 1, "the node lets go of the links of peers that vanished")
    bench.client(node).require("add", 1, 2, value=3)


@check(
    "a peer that breaks the protocol receives the reason, then the end of its link; other links go on",
    advice="HangUp: close the link after all that was sent before it, and report link_closed",
)
def violation(bench: Bench) -> None:
    node = bench.start()
    other = bench.client(node)
    bad = bench.client(node)
    bad.write(bad.framed(b"\xc1") + bad.frame(bad.request("add", 1, 2)))
    last = bad.last_messages()
    if not last or type(last[0]) is not Refused or len(last) > 1:
        raise Unexpected(
            f"before the end of its link the peer got {[type(one).__name__ for one in last]}, not [Refused]"
        )
    if bad.websocket is not None and bad.websocket.code != 1002:
        raise Unexpected(f"the WebSocket close code was {bad.websocket.code}, not the 1002 of the HangUp")
    other.require("add", 1, 2, value=3)


@check(
    "a peer that resets its connection while the node hangs up ends only its own link",
    advice="a link may break between HangUp and close: close it once, report link_closed once, ignore later effects",
)
def double_close(bench: Bench) -> None:
    node = bench.start()
    other = bench.client(node)
    for number in range(20):
        bad = bench.client(node)
        bad.submit("blob", MIB)
        bad.write(bad.framed(b"\xc1") * (1 + number % 3))
        if number % 2:
            bad.write_some(bytes(70_000))
        bad.reset()
    other.until_view(lambda view: view.links == 1, "the node lets go of links that broke while they were hung up")
    other.require("add", 1, 2, value=3)


# -- slow and silent peers ---------------------------------------------------------------------------------------------


@check(
    "a client that reads slowly gets its large answers whole",
    advice="keep the rest of a partial write and send it first; write on when the socket takes more",
)
def slow_reader(bench: Bench) -> None:
    node = bench.start()
    slow = bench.client(node, buffer=4096)
    numbers = [slow.submit("blob", 2 * MIB) for _ in range(3)]
    bench.client(node).require("add", 1, 2, value=3)
    for number in numbers:
        _require_answer(slow, number, pattern(2 * MIB))


@check(
    "a JSON client that takes no answers is not read (Pause), until it has taken enough of them (Resume)",
    advice="report backlog(link, unsent bytes) when it changes; do not read a link between Pause and Resume",
)
def paused_client(bench: Bench) -> None:
    node = bench.start(backlog=128 * 1024)
    other = bench.client(node)
    lazy = bench.connect(node, native=False, buffer=64 * 1024)
    piece = "x" * (48 * 1024)  # so short that it is decoded at once
    sent, waiting = 0, memoryview(b"")
    blocked, limit = 0, time.monotonic() + bench.seconds
    while blocked < _ROUND_TRIPS:
        if not waiting:
            sent += 1
            waiting = memoryview(lazy.json_request("copy", piece))
        if sent * len(piece) > _NOT_PAUSED:
            raise Unexpected(f"the driver read {_NOT_PAUSED // MIB} MiB from a client that takes no answers")
        if lazy.is_writable():
            waiting = waiting[lazy.write_some(waiting) :]
            blocked, limit = 0, time.monotonic() + bench.seconds
        elif time.monotonic() < limit:
            blocked = blocked + 1 if not other.view().requests else 0  # all that was read has been answered
        else:
            raise Unexpected(f"the driver neither read nor answered the requests of a client for {bench.seconds:g} s")
    lazy.write_while_reading(waiting)
    for _ in range(sent):
        came = lazy.json_answer()
        if came["r"] != {"one": piece}:
            raise Unexpected(f"a JSON request was answered with {shorten(came)}, not {shorten(piece)}")
    if (came := lazy.ask_json("add", 1, 2))["r"] != {"one": 3}:
        raise Unexpected(f"a JSON request was answered with {shorten(came)}, not 3")


@check(
    "a peer that takes nothing for Limits.stalled is hung up",
    advice="report backlog(link, unsent bytes) when it changes, and carry out HangUp for a link with unsent bytes",
)
def stalled_peer(bench: Bench) -> None:
    node = bench.start(backlog=64 * 1024, stalled=200 * MILLISECOND, hang_up=100 * MILLISECOND)
    other = bench.client(node)
    stalled = bench.client(node, buffer=4096)
    for _ in range(2):
        stalled.submit("blob", 12 * MIB)
    other.until_view(lambda view: view.links == 1, "the node ends the link of a peer that takes nothing")
    other.close()
    bench.end(node)


@check(
    "leave() ends although a peer takes nothing of the unsent bytes (a half-open link)",
    advice="after HangUp.within nanoseconds in which the peer takes nothing, close the link all the same",
)
def half_open_link(bench: Bench) -> None:
    node = bench.start()
    stalled = bench.client(node, buffer=4096)
    stalled.submit("blob", 12 * MIB)
    stalled.wait_for_bytes("the beginning of the answer")
    bench.end(node)


@check(
    "a native peer that answers pings stays, and one that is silent is hung up",
    advice="call wake at next_timeout(), also when no input comes: compute the wait again after each flush; "
    "call progress for no ping that only the system has taken",
)
def silent_peer(bench: Bench) -> None:
    node = bench.start(ping_every=50 * MILLISECOND, gone_after=300 * MILLISECOND)
    answering = bench.client(node)
    while answering.pings < 2:
        answering.message("a ping")
    answering.require("add", 1, 2, value=3)
    answering.close()
    silent = bench.client(node, pings=False)
    silent.last_messages()
    if not silent.pings:
        raise Unexpected("the silent peer was hung up without a ping")


@check(
    "a JSON client over WebSocket that answers pings stays; one that answers none is hung up, unless none came",
    advice="KeepAlive: send a WebSocket ping, its pong is progress(link); without pings report progress at once",
)
def silent_json_client(bench: Bench) -> None:
    if bench.scheme != "ws":
        return  # raw frames have no ping: the core asks for none
    node = bench.start(ping_every=50 * MILLISECOND, gone_after=300 * MILLISECOND)
    client = bench.connect(node, native=False)
    assert client.websocket is not None
    client.read_until(lambda: client.websocket is not None and client.websocket.pings >= 3, seconds=0.9)
    client.ask_json("add", 1, 2)
    silent = bench.connect(node, native=False, pings=False)
    assert silent.websocket is not None
    try:
        silent.read_until(lambda: False, seconds=1.0)
    except Ended:
        if not silent.websocket.pings:
            raise Unexpected("a silent JSON client was closed without a ping") from None
        return
    if silent.websocket.pings:
        raise Unexpected("a JSON client that answered none of its pings was not hung up")


# -- links that are dialled --------------------------------------------------------------------------------------------


@check(
    "seeds and addresses of members that cannot be dialled end nothing: the node serves, and dials the others",
    advice="catch every exception of a dial (no such host, no such family, no URL) and report dial_failed(address)",
)
def bad_addresses(bench: Bench) -> None:
    good, later = bench.seed(bench.scheme), bench.seed(bench.scheme)
    good.listen()
    later.listen()
    bad = [f"{bench.scheme}://{host}" for host in _BAD_HOSTS]
    node = bench.start(seeds=[*bad[:_BAD_SEEDS], good.url], dial=500 * MILLISECOND)
    client = bench.client(node)
    good.accept(bench.seconds)
    # Of one member, a second address is dialled a little later, so the last one here comes after all others.
    for number, addresses in enumerate([*_batched(bad), ["gopher://127.0.0.1:1", later.url]]):
        client.require("add", 1, 2, value=3)
        member = VanishingMember(bench.connect(node), addresses, cluster_id=bench.cluster_id, number=number)
        member.join()
        client.until_view(partial(_knows, tuple(addresses)), "the node knows a member and its addresses")
        member.vanish()
    later.accept(bench.seconds)
    for _ in range(_ROUND_TRIPS):
        client.require("add", 1, 2, value=3)


def _knows(addresses: tuple[str, ...], view: NodeView) -> bool:
    return any(row.addresses == addresses for row in view.members)


def _batched(addresses: list[str]) -> list[list[str]]:
    """Return pairs: a cluster of few members is a full mesh, so that each of them is dialled."""
    return [addresses[first : first + 2] for first in range(0, len(addresses), 2)]


_BAD_HOSTS = (
    "does-not-exist.invalid:9001",
    "[::1]:1",
    "127.0.0.1:1",
    "255.255.255.255:9001",
    "a..b:9001",
    f"{'x' * 64}:9001",
    "[2001:db8::1]:9001",
    "[:::::]:9001",
    "[fe80::1%none]:9001",
    "%00:1",
    "\u00df\u2024:1",
)
"""Hosts of valid form that cannot be dialled. The first `_BAD_SEEDS` may also stand in the configuration of a user."""
_BAD_SEEDS = 4


@check(
    "a seed that refuses is dialled again, and reached once it listens",
    advice="report dial_failed(address) as soon as a dial fails; the core dials again later",
)
def refusing_seed(bench: Bench) -> None:
    seed = bench.seed(bench.scheme)
    node = bench.start(seeds=[seed.url])
    peer = bench.client(node)
    for _ in range(_ROUND_TRIPS):  # the first dial is refused meanwhile
        peer.require("add", 1, 2, value=3)
    seed.listen()
    seed.accept(bench.seconds)


@check(
    "a dialled link that ends is dialled again, whether the seed closes or resets it",
    advice="report link_closed exactly once for a link that you dialled too, for EOF and errors alike",
)
def closing_seed(bench: Bench) -> None:
    seed = bench.seed(bench.scheme)
    seed.listen()
    bench.start(seeds=[seed.url])
    for number in range(6):
        sock = seed.accept_bytes(bench.seconds)
        reset(sock) if number % 2 else sock.close()


@check(
    "a dial that hangs, and a seed that never answers, hold up neither the node nor its end",
    advice="dial without blocking the event loop; when the node has left, close dials in progress and end",
)
def hanging_seed(bench: Bench) -> None:
    scheme = bench.scheme
    hanging, mute = bench.seed(scheme), bench.seed(scheme)
    hanging.hang()
    mute.listen()
    node = bench.start(seeds=[hanging.url, mute.url], dial=200 * MILLISECOND, handshake=200 * MILLISECOND)
    peer = bench.client(node)
    mute.accept(bench.seconds)
    for _ in range(_ROUND_TRIPS):
        peer.require("add", 1, 2, value=3)
    mute.accept(bench.seconds)  # the core ends the dial or the link that gets no answer, and dials again
    peer.close()
    bench.end(node)


@check(
    "two nodes that dial each other at the same time become one cluster",
    advice="report each link under a number of its own; a HangUp of one link must not touch the other one",
)
def simultaneous_dials(bench: Bench) -> None:
    scheme = bench.scheme
    forwarder = bench.forwarder(scheme)
    second = bench.start(name="second", seeds=[forwarder.url + bench.path])
    first = bench.start(name="first", seeds=[second.url])
    forwarder.connect_to(first.url)
    for node in (first, second):
        peer = bench.client(node)
        peer.until_view(
            lambda view: sum(one.standing == "alive" and (one.linked or one.me) for one in view.members) == 2,
            "the node is linked to the other one",
        )
        peer.require("add", 1, 2, value=3)


# -- functions ---------------------------------------------------------------------------------------------------------


@check(
    "a call that outlives its deadline is answered in time, and its late end changes nothing",
    advice="report finished once for each Run, also after its Cancel; call wake at next_timeout()",
)
def late_end(bench: Bench) -> None:
    peer = bench.client(bench.start())
    number = peer.submit("hold", timeout=0.3)
    bench.wait_for_hold()
    fault = peer.answer(number)
    if not isinstance(fault, Fault) or fault.code != ErrorCode.DEADLINE_EXCEEDED:
        raise Unexpected(f"a call that outlived its deadline was answered with {shorten(fault)}, not with error 1020")
    peer.require("add", 1, 2, value=3)
    if peer.view().running != 1:
        raise Unexpected("finished was reported for a call whose function still runs")
    bench.release()
    peer.until_view(lambda view: view.running == 0, "finished is reported for a call after its Cancel")
    peer.require("add", 1, 2, value=3)


# -- the end -----------------------------------------------------------------------------------------------------------


@check(
    "leave() lets a running call end: its answer arrives, then the goodbye, then the end",
    advice="drive the node until node.left, write all that is unsent, then close the links and the listener",
)
def leave_with_a_call(bench: Bench) -> None:
    node = bench.start()
    peer, idle = bench.client(node), bench.client(node)
    number = peer.submit("hold")
    bench.wait_for_hold()
    node.leave()
    peer.until_view(lambda view: view.draining, "the node drains after leave()")
    if node.wait(0):
        raise Unexpected("the driver ended while a call was running")
    bench.release()
    _require_answer(peer, number, "held")
    for one in (peer, idle):
        _require_goodbye(one)
    bench.end(node, leave=False)
    _require_closed(node.url, bench.seconds)


@check(
    "an answer that is still unsent when the node leaves arrives whole, before the goodbye",
    advice="do not end at node.left alone: close each link only when its unsent bytes are written",
)
def leave_with_unsent_bytes(bench: Bench) -> None:
    node = bench.start(hang_up=LONG)  # a driver whose transport hides what the peer takes counts from the hang-up
    slow, other = bench.client(node, buffer=4096), bench.client(node)
    number = slow.submit("blob", 8 * MIB)
    slow.wait_for_bytes("the beginning of the answer")  # so that leave() does not overtake the request
    node.leave()
    _require_goodbye(other)
    slow.widen()
    _require_answer(slow, number, pattern(8 * MIB))
    _require_goodbye(slow)
    bench.end(node, leave=False)


@check(
    "after leave(), a peer that takes its unsent bytes slowly gets them all",
    advice="HangUp.within is the longest time in which the peer takes nothing: count it again whenever it took some",
)
def leave_with_a_slow_reader(bench: Bench) -> None:
    node = bench.start(hang_up=2 * SECOND)
    slow, other = bench.client(node, buffer=32 * 1024), bench.client(node)
    numbers = [slow.submit("blob", 12 * MIB) for _ in range(2)]
    slow.wait_for_bytes("the beginning of the answer")
    node.leave()
    _require_goodbye(other)
    slow.read_slowly(40)
    slow.widen()
    for number in numbers:
        _require_answer(slow, number, pattern(12 * MIB))
    _require_goodbye(slow)
    bench.end(node, leave=False)


@check(
    "a second leave() does not wait for running calls, and a third one changes nothing",
    advice="pass each leave to the node; drive it until node.left; a function that ends later may find no node",
)
def leave_twice(bench: Bench) -> None:
    node = bench.start()
    peer = bench.client(node)
    number = peer.submit("hold")
    bench.wait_for_hold()
    node.leave()
    node.leave()
    fault = peer.answer(number)
    if not isinstance(fault, Fault):
        raise Unexpected(f"a call that was given up was answered with {shorten(fault)}")
    _require_goodbye(peer)
    node.leave()
    bench.release()
    bench.end(node, leave=False)
    node.leave()


def _require_answer(peer: Peer, number: int, value: object) -> None:
    came = peer.answer(number)
    if came != value:
        raise Unexpected(f"request {number} was answered with {shorten(came)}, not {shorten(value)}")


def _require_goodbye(peer: Peer) -> None:
    last = [one for one in peer.last_messages() if type(one) is not Ping]
    if not last or last[-1] != Goodbye(GoodbyeReason.LEAVING):
        shown = shorten(last[-1]) if last else "nothing"
        raise Unexpected(f"the last message before the end of the link was {shown}, not the goodbye")


def _require_closed(url: str, seconds: float) -> None:
    try:
        connect(urlsplit(url), seconds, 0).close()
    except Unexpected:
        return
    raise Unexpected(f"wait() returned True, but {url} still accepts connections")
