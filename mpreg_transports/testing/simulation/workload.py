"""A standard cluster and a standard workload: functions of every kind, and a stream of random requests for them.

Every function takes any values and is a pure function of them, so that a sequential oracle can compute the expected
results. The functions differ in how they run (inline, plain, coroutine), how long, whether they are idempotent, and on
which nodes. The requests are drawn before the run as a script of `submit` and `cancel` actions, from a chooser only.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from mpreg_proto.limits import DEFAULT, MILLISECOND, Limits
from mpreg_proto.wire.messages import Request
from mpreg_transports.functions.progress import Progress
from mpreg_transports.functions.sleep import sleep
from mpreg_transports.graph import Graph, Handle
from mpreg_transports.testing.simulation.chooser import Chooser
from mpreg_transports.testing.simulation.durations import SECOND, exponential, uniform
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import SERVICE, Spec
from mpreg_transports.testing.simulation.trace import Action, packed

_PRIME = 1_000_000_007
_SHELVES = tuple(f"shelf-{number:02}-of-the-library" for number in range(60))
"""So many resources that the entry of the function is too long for gossip, and must be fetched."""


# -- functions --------------------------------------------------------------------------------------------------------


def number(value: Any) -> int:
    """Return any value of this workload as a number.

    So every result may be an argument of every function.
    """
    if isinstance(value, int):
        return value % _PRIME
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(number(item) * (index + 1) for index, item in enumerate(value)) % _PRIME
    if isinstance(value, dict):
        return sum(number(item) for item in value.values()) % _PRIME
    return 1


def add(*values: Any) -> int:
    """The sum of all."""
    return sum(number(value) for value in values) % _PRIME


def concat(*values: Any) -> str:
    """All as one text."""
    return "".join(str(value) for value in values)[:400]


def join(*values: Any) -> list[Any]:
    """All as a list, which may grow deep but not large."""
    return [value if not isinstance(value, list) else number(value) for value in values]


def book(*values: Any) -> int:
    """Must not be done twice."""
    return (add(*values) * 31 + 7) % _PRIME


def pad(*values: Any) -> str:
    """A text of some kilobytes."""
    return "ab" * (500 + add(*values) % 5000)


def fail(*values: Any) -> NoReturn:
    """Raises always."""
    raise ValueError(f"no good: {add(*values)}")


def unsendable(*values: Any) -> object:
    """Gives what no message can carry."""
    return object()


async def ponder(*values: Any) -> int:
    """Sleeps twice, 0 to 0.4 s in all."""
    await sleep(add(*values) % 5 * 0.05)
    await sleep(add(*values) % 3 * 0.1)
    return add(1, *values)


async def dawdle(*values: Any) -> int:
    """Sleeps 0 to 3 s; must not be done twice."""
    await sleep(add(*values) % 7 * 0.5)
    return add(2, *values)


async def brew(*values: Any) -> int:
    """Sleeps 0 to 4 s; may be done again, but is of several versions."""
    await sleep(add(*values) % 5 * 1.0)
    return add(3, *values)


def bulk(*values: Any) -> bytes:
    """Some hundred kilobytes, which a narrow way carries for many seconds."""
    return bytes(200_000 + add(*values) % 400_000)


async def haul(*values: Any) -> int:
    """Sleeps 12 to 30 s, longer than the timers of a link; must not be done twice."""
    await sleep(12 + add(*values) % 19)
    return add(4, *values)


async def voyage(*values: Any) -> int:
    """Sleeps 45 to 90 s, longer than an idle link stays open; must not be done twice."""
    await sleep(45 + add(*values) % 46)
    return add(5, *values)


async def give_up(*values: Any) -> NoReturn:
    """Sleeps, then raises."""
    await sleep(0.05)
    raise LookupError(f"nothing for {add(*values)}")


def spool(*values: Any, progress: Progress) -> Iterator[int]:
    """Up to 60 numbers one by one, with a report for each."""
    total = add(*values) % 61
    for item in range(total):
        progress(item + 1, total)
        yield add(item, *values)


async def trickle(*values: Any) -> AsyncIterator[Any]:
    """Up to 40 texts of any length, with a sleep before some; must not be done twice."""
    for item in range(add(*values) % 41):
        if item % 7 == 3:
            await sleep(add(item, *values) % 4 * 0.05)
        yield "s" * (add(item, *values) % 2000)


async def burst(*values: Any) -> AsyncIterator[Any]:
    """Some items without a pause, then it raises, or not."""
    for item in range(add(*values) % 25):
        yield [item, *values][:3]
    if add(*values) % 3 == 0:
        await sleep(0.02)
        raise LookupError("no more items")


async def tally(rows: AsyncIterator[Any], *values: Any) -> int:
    """The sum of all items and values, with a sleep after some items."""
    total = add(*values)
    async for row in rows:
        total = add(total, row)
        if total % 5 == 0:
            await sleep(total % 4 * 0.05)
    return total


async def skim(rows: AsyncIterator[Any], *values: Any) -> list[int]:
    """The first items, at most 30; must not be done twice."""
    first: list[int] = []
    most = add(3, *values) % 31
    async for row in rows:
        if len(first) == most:
            break
        first.append(number(row))
    return first


async def sift(rows: AsyncIterator[Any], *values: Any) -> AsyncIterator[int]:
    """Most items as numbers, one by one, and then one more."""
    last = add(*values)
    async for row in rows:
        last = add(last, row)
        if last % 3:
            yield last
    await sleep(last % 3 * 0.02)
    yield last


def _everywhere(index: int) -> dict[str, Any]:
    return {
        "add": Fn(add, idempotent=True),
        "same": Fn(join, idempotent=True, inline=True),
        "fail": Fn(fail, duration=0.002),
        "wide": Fn(add, idempotent=True, resources=_SHELVES),
        "post": Fn(ponder, resources=(f"box-{index}",)),
        "haul": Fn(haul),
        "voyage": Fn(voyage),
        "trek": Fn(voyage, idempotent=True, resources=(f"camp-{index}",)),
        "spool": Fn(spool, idempotent=True, duration=exponential(0.01)),
        "trickle": Fn(trickle),
        "burst": Fn(burst, idempotent=True),
        "tally": Fn(tally, idempotent=True),
        "skim": Fn(skim, concurrency=1),
        "sift": Fn(sift, idempotent=True),
        "pooled": Fn(add, idempotent=True, duration=0.02, refuses=0.15, loses=0.15),
        "pooled-once": Fn(book, duration=0.02, refuses=0.15, loses=0.15),
    }


def _on_some(index: int) -> dict[str, Any]:
    """Return the functions that only some nodes offer, by the index of the node."""
    third = index % 3
    functions: dict[str, Any] = {"brew": Fn(brew, idempotent=True, version=str(1 + index // 2 % 2))}
    if index % 2 == 0:
        functions["concat"] = Fn(concat, idempotent=True, duration=exponential(0.01))
        functions["bulk"] = Fn(bulk, idempotent=True)
        functions["dawdle"] = Fn(dawdle, concurrency=1)
    else:
        functions["join"] = Fn(join, idempotent=True, duration=uniform(0.001, 0.02))
        functions["train"] = Fn(add, idempotent=True, resources=("model-a",), duration=0.03)
    if third != 2:
        functions["book"] = Fn(book, duration=exponential(0.02))
        functions["narrow"] = Fn(add, idempotent=True, concurrency=1, duration=0.5)
    if third != 0:
        functions["ponder"] = Fn(ponder, idempotent=True)
        functions["give_up"] = Fn(give_up)
        functions["pad"] = Fn(pad, idempotent=True, duration=0.002)
    if index == 2:
        functions["solo"] = Fn(book, duration=0.1, resources=("model-b",))
        functions["unsendable"] = Fn(unsendable)
        functions["quip"] = Fn(join, idempotent=True, inline=True)
        functions["balk"] = Fn(fail, inline=True)
    return functions


def _resources(index: int) -> frozenset[str]:
    return frozenset({1: ("gpu",), 2: ("disk",), 3: ("gpu", "disk"), 4: ("disk", "eu")}.get(index, ()))


def standard_nodes(count: int, *, joins: str = "first", limits: Limits = DEFAULT) -> dict[str, Spec]:
    """Return `count` nodes n0, n1, ...

    `joins` is first (all join the first node), chain (each joins the node before it), all (all join all) or service
    (all join a service name, which leads to any node).
    """
    names = [f"n{index}" for index in range(count)]
    nodes: dict[str, Spec] = {}
    for index, name in enumerate(names):
        before = (names[index - 1],) if index else ()
        peers = {"first": None, "chain": before, "service": (SERVICE,)}.get(joins, tuple(names))
        if peers is not None:
            peers = tuple(peer for peer in peers if peer != name)
        nodes[name] = Spec(
            functions={**_everywhere(index), **_on_some(index)},
            resources=_resources(index),
            peers=peers,
            limits=limits,
        )
    return nodes


# -- requests ---------------------------------------------------------------------------------------------------------

_FUNCTIONS: tuple[tuple[int, str, tuple[tuple[str, ...], ...]], ...] = (
    (20, "add", ((), ("gpu",), ("disk",))),
    (10, "concat", ((), ("disk",))),
    (10, "join", ((), ("gpu",), ("gpu", "disk"))),
    (14, "book", ((), ("gpu",), ("disk", "eu"))),
    (10, "ponder", ((), ("disk",))),
    (10, "dawdle", ((), ("eu",))),
    (6, "brew", ((),)),
    (8, "train", (("model-a",), ("gpu", "model-a"))),
    (8, "narrow", ((),)),
    (5, "same", ((),)),
    (5, "pad", ((), ("disk",))),
    (4, "solo", ((), ("model-b",))),
    (10, "post", (("box-0",), ("box-1",), ("box-2",))),
    (4, "echo", ((),)),
    (4, "wide", ((), _SHELVES[:2])),
    (4, "pooled", ((),)),
    (4, "pooled-once", ((),)),
    (3, "quip", ((),)),
    (3, "balk", ((),)),
    (1, "haul", ((), ("gpu",))),
    (1, "bulk", ((), ("disk",))),
    (1, "fail", ((),)),
    (1, "give_up", ((),)),
    (1, "unsendable", ((),)),
    (1, "nowhere", ((), ("gpu",))),
)
"""The weight of each function, and the resources it is called with. No node offers `nowhere`."""
_LONG = ("voyage", "voyage", "trek")
"""The functions of the long requests."""
LONGEST = 150
"""The longest timeout of a request, in seconds."""
_WEIGHTS = sum(weight for weight, _, _ in _FUNCTIONS)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a workload."""

    rate: float = 4.0
    """Requests per second."""
    clients: int = 2
    """Clients of each node."""
    hot: float = 0.0
    """The share of the requests that go to the first node, in addition to its normal share."""
    cancelled: float = 0.03
    retry: float = 0.2
    """The share of the requests that their client sends again after a refusal."""
    tight: float = 0.15
    """The share of the requests with a short deadline."""
    only: tuple[str, ...] = ()
    """The functions that are called; all if empty."""
    long: float = 0.0
    """The share of the requests with bodies of 45 to 90 s."""
    sizes: tuple[int, ...] = ()
    """Lengths near which some arguments are drawn, such as the limit of a message."""
    after: float = 0.0
    """The seconds for which short requests go on after the rest."""
    others: float = 0.0
    """The share of the requests that do not come from native clients: JSON, `POST /rpc`, queries, the node itself."""
    bursts: float = 0.0
    """The share of the requests of native and JSON clients that are followed by several more at the same moment."""
    plain: bool = False
    """True for requests that JSON can express."""
    streams: float = 0.06
    """The share of the requests that call a generator, most of them for its items one by one."""
    progress: float = 0.1
    """The share of the other requests that want the progress of their calls."""


def work(chooser: Chooser, names: list[str], seconds: float, load: Load) -> list[Action]:
    """Return requests and some cancellations over this many seconds, in the order of their times."""
    script: list[Action] = []
    at, label = 0.0, 0
    gap = exponential(1 / load.rate) if load.rate else None
    while gap is not None:
        at += gap.draw(chooser.fraction, "work gap") / SECOND
        if at >= seconds and not load.tight:
            load = msgspec.structs.replace(load, long=0.0, tight=0.7)
        if at >= seconds + load.after:
            break
        node = names[0] if chooser.chance("work hot", load.hot) else chooser.choice("work node", names)
        if chooser.chance("work other", load.others):
            caller = _OTHERS[chooser.choice("work caller", tuple(_OTHERS))]
            for _ in range(_burst(chooser, load) if caller is _json else 1):
                caller(chooser, script, at, node, load, len(script))
            continue
        client = f"{'abcdefgh'[chooser.below('work client', load.clients)]}@{node}"
        for _ in range(_burst(chooser, load)):
            made = request(chooser, load)
            args: dict[str, Any] = {"node": node, "request": packed(made), "client": client, "label": label}
            args |= {"stops_early": True} if made.streams else {}
            if chooser.chance("work retry", load.retry):
                args["retry"] = True
            script.append(Action(round(at * SECOND), "submit", args))
            if chooser.chance("work cancel", load.cancelled):
                later = at + chooser.fraction("work cancel") * 2
                script.append(Action(round(later * SECOND), "cancel", {"label": label}))
            label += 1
    return sorted(script, key=lambda action: action.at)


def _burst(chooser: Chooser, load: Load) -> int:
    """Return how many requests come at one moment: usually one."""
    return 2 + chooser.below("work burst", 12) if chooser.chance("work burst", load.bursts) else 1


def _action(script: list[Action], at: float, name: str, /, **args: Any) -> None:
    script.append(Action(round(at * SECOND), name, args))


def _json(chooser: Chooser, script: list[Action], at: float, node: str, load: Load, label: int) -> None:
    """A text on the link of a JSON client."""
    text = _json_text(chooser, load, label)
    _action(script, at, "send_json", client=f"{'jk'[chooser.below('work client', 2)]}@{node}", node=node, text=text)


def _post(chooser: Chooser, script: list[Action], at: float, node: str, load: Load, label: int) -> None:
    """A text by `POST /rpc`, sometimes of a client without patience."""
    patience = chooser.fraction("work patience") * 3 if chooser.chance("work patience", 0.15) else None
    text = _json_text(chooser, load, label)
    _action(script, at, "post", client=f"{'pq'[chooser.below('work client', 2)]}@{node}", node=node, text=text,
            patience=patience)  # fmt: skip


def _query(chooser: Chooser, script: list[Action], at: float, node: str, load: Load, label: int) -> None:
    """A query of a native client: for the view, or where a request would run."""
    explained = packed(request(chooser, load)) if chooser.chance("work explain", 0.5) else None
    _action(script, at, "query", client=f"{'ab'[chooser.below('work client', 2)]}@{node}", node=node, request=explained)


def _own(chooser: Chooser, script: list[Action], at: float, node: str, load: Load, label: int) -> None:
    """A request of the node's own process, which it sometimes cancels."""
    _action(script, at, "submit_own", node=node, request=packed(request(chooser, load)), label=_OWN + label)
    if chooser.chance("work cancel", 3 * load.cancelled):
        _action(script, at + chooser.fraction("work cancel") * 2, "cancel_own", label=_OWN + label)


_OTHERS: dict[str, Any] = {"json": _json, "post": _post, "query": _query, "own": _own}
_OWN = 3_000_000
"""The label of the first request of a node's own process."""
_BAD = ("", "[]", "{", '{"role": "rpc"}', '{"role": "rpc", "cmds": [{"name": "a"}]}', '{"role": "rpc", "cmds": []}')
"""Texts that are no requests."""


def _json_text(chooser: Chooser, load: Load, label: int) -> str:
    """Return a request of the classic dialect, with its references in one of both notations; sometimes no request."""
    if chooser.chance("work bad", 0.05):
        return chooser.choice("work bad", _BAD)
    graph = Graph()
    load = msgspec.structs.replace(load, plain=True, sizes=())
    shape = chooser.choice("work shape", _USUAL_SHAPES)
    handles = _SHAPES[shape](chooser, graph, load)
    commands = graph.commands()
    tree: dict[str, Any] = {"role": "rpc", "u": f"{label}", "cmds": commands, "refs": "explicit"}
    if chooser.chance("work classic", 0.5) and all(handle.name not in ("x", "y") for handle in handles):
        named = _by_name(commands)
        if named is not None:
            tree |= {"cmds": named, "refs": "classic"}
    if chooser.chance("work timeout", 0.5):
        tree["timeout"] = 0.02 + chooser.fraction("work timeout") * 20
    if chooser.chance("work wait", 0.2):
        tree["wait"] = chooser.fraction("work wait") * 5
    if chooser.chance("work partial", 0.3):
        tree["on_error"] = "partial"
    if chooser.chance("work trace", 0.1):
        tree["trace"] = True
    if chooser.chance("work wants", 0.2):
        tree["want"] = [handle.name for handle in handles[:2]]
    return json.dumps(tree)


def _by_name(tree: Any) -> Any:
    """Return commands with the names of calls in the place of references; None if one has a path."""
    if isinstance(tree, dict) and "$ref" in tree:
        return None if "path" in tree else tree["$ref"]
    if isinstance(tree, list):
        items = [_by_name(item) for item in tree]
        return None if any(new is None and old is not None for new, old in zip(items, tree, strict=True)) else items
    if isinstance(tree, dict):
        if "$data" in tree:
            return None
        entries = {key: _by_name(item) for key, item in tree.items()}
        return None if any(entries[key] is None and tree[key] is not None for key in tree) else entries
    return tree


def request(chooser: Chooser, load: Load) -> Request:
    """Return one random request.

    It is usually a single call, else a chain, a diamond, a fan or another graph without cycles.
    """
    if not load.only and not load.plain and chooser.chance("work stream", load.streams):
        return _stream(chooser)
    request = _usual_request(chooser, load)
    if chooser.chance("work progress", load.progress):
        request = msgspec.structs.replace(request, progress=True)
    return request


def _stream(chooser: Chooser) -> Request:
    """Return a call of a generator, mostly for its items one by one; sometimes with another call that uses its list."""
    name = chooser.choice("work generator", ("spool", "spool", "trickle", "burst"))
    graph = Graph()
    handle = graph.call(name, chooser.below("work generator", 1_000_000))
    fields: dict[str, Any] = {
        "timeout": (1 + chooser.below("work generator", 20)) * SECOND,
        "progress": name == "spool",
    }
    if chooser.chance("work generator", 0.7):
        fields["streams"] = (name,)
    if chooser.chance("work generator", 0.2):
        graph.call("add", handle)
    fields["partial"] = chooser.chance("work generator", 0.1)
    if chooser.chance("work consumer", 0.4):
        wanted = _consumers(chooser, graph, handle)
        return graph.request(*([handle, *wanted] if chooser.chance("work consumer", 0.15) else ()), **fields)
    return graph.request(**fields)


def _consumers(chooser: Chooser, graph: Graph, source: Handle) -> list[Handle]:
    """Add calls that take the items of a generator one by one: one, a chain of them, or two of which one gets a list.

    Some need another result too, perhaps one that needs the list. Return the last ones.
    """
    while chooser.chance("work consumer", 0.25):
        source = graph.call("sift", source, chooser.below("work consumer", 100))
    others: list[Any] = []
    if chooser.chance("work consumer", 0.3):
        others = [graph.call("ponder", chooser.below("work consumer", 100))]
    if chooser.chance("work consumer", 0.1):
        others.append(graph.call("add", source))
    count = 2 if chooser.chance("work consumer", 0.15) else 1
    return [graph.call(chooser.choice("work consumer", ("tally", "skim")), source, *others) for _ in range(count)]


def _usual_request(chooser: Chooser, load: Load) -> Request:
    """Return one random request that calls no generator."""
    graph = Graph()
    long = chooser.chance("work long", load.long)
    shape = chooser.choice("work shape", _LONG_SHAPES if long else _USUAL_SHAPES)
    if long:
        load = msgspec.structs.replace(load, only=_LONG, tight=0.0)
    handles = _SHAPES[shape](chooser, graph, load)
    wanted = [handle for handle in handles if chooser.chance("work want", 0.5)] if _often(chooser, "wants", 0.2) else []
    fields: dict[str, Any] = {
        "partial": _often(chooser, "partial", 0.25),
        "eager": _often(chooser, "eager", 0.2),
        "trace": _often(chooser, "trace", 0.1),
    }
    if _often(chooser, "wait", 0.2):
        fields["wait"] = (100 + chooser.below("work wait", 5000)) * MILLISECOND
    if long:
        fields["timeout"] = (100 + chooser.below("work timeout", LONGEST - 100)) * SECOND
    elif any(handle.name.startswith("haul") for handle in handles):
        fields["timeout"] = 60 * SECOND
    elif chooser.chance("work tight", load.tight):
        fields["timeout"] = (20 + chooser.below("work timeout", 2000)) * MILLISECOND
    elif _often(chooser, "timeout", 0.7):
        fields["timeout"] = (2 + chooser.below("work timeout", 18)) * SECOND
    return graph.request(*wanted, **fields)


def _often(chooser: Chooser, what: str, probability: float) -> bool:
    return chooser.chance(f"work {what}", probability)


def _call(chooser: Chooser, graph: Graph, load: Load, *needs: Handle) -> Handle:
    """Add one call that uses `needs`, sometimes inside a map.

    Sometimes the call does not use the last of them, and only waits for it.
    """
    name, resources = _function(chooser, load)
    arguments: list[Any] = [_value(chooser, load), *(_part(chooser, need) for need in needs)]
    after: tuple[Handle, ...] = ()
    if needs and _often(chooser, "nested", 0.2):
        arguments = [{"x": arguments[1:], "y": arguments[0]}]
    elif needs and not load.plain and _often(chooser, "after", 0.1):
        arguments, after = arguments[:-1], (needs[-1],)
    arguments = arguments[:1] if name == "echo" else arguments
    version = chooser.choice("work version", (None, "1", "2")) if name == "brew" and not load.plain else None
    return graph.call(name, *arguments, resources=resources, after=after, version=version)


def _part(chooser: Chooser, need: Handle) -> Handle:
    """Return a result, or sometimes the first item of a result that is a list."""
    return need[0] if need.name.startswith(("join", "same", "quip")) and _often(chooser, "part", 0.4) else need


def _function(chooser: Chooser, load: Load) -> tuple[str, tuple[str, ...]]:
    if load.only:
        return chooser.choice("work function", load.only), ()
    place = chooser.below("work function", _WEIGHTS)
    for weight, name, resources in _FUNCTIONS:
        place -= weight
        if place < 0:
            plain = name not in ("solo", "post") and not _often(chooser, "resources", 0.4)
            return name, resources[0] if plain else chooser.choice("work resources", resources)
    raise AssertionError("the weights add up")


def _value(chooser: Chooser, load: Load) -> Any:
    kind = chooser.below("work value", 8)
    drawn = chooser.below("work value", 1_000_000)
    if load.sizes and chooser.chance("work size", 0.1):
        return b"y" * max(0, chooser.choice("work size", load.sizes) - 400 + drawn % 500)
    if kind == 0:
        return "x" * (drawn % 300)
    if kind == 1:
        return [drawn, str(drawn), None, drawn / 8]
    if kind == 2 and drawn % 10 == 0 and not load.plain:
        return b"z" * (drawn % 60_000)
    return drawn


def _one(chooser: Chooser, graph: Graph, load: Load) -> list[Handle]:
    return [_call(chooser, graph, load)]


def _chain(chooser: Chooser, graph: Graph, load: Load) -> list[Handle]:
    handles = [_call(chooser, graph, load)]
    for _ in range(1 + chooser.below("work length", 4)):
        handles.append(_call(chooser, graph, load, handles[-1]))
    return handles


def _diamond(chooser: Chooser, graph: Graph, load: Load) -> list[Handle]:
    top = _call(chooser, graph, load)
    left, right = _call(chooser, graph, load, top), _call(chooser, graph, load, top)
    return [top, left, right, _call(chooser, graph, load, left, right)]


def _fan(chooser: Chooser, graph: Graph, load: Load) -> list[Handle]:
    handles = [_call(chooser, graph, load) for _ in range(2 + chooser.below("work width", 5))]
    if _often(chooser, "joined", 0.7):
        handles.append(_call(chooser, graph, load, *handles))
    return handles


def _bundle(chooser: Chooser, graph: Graph, load: Load) -> list[Handle]:
    """Calls that only one node can run, without dependencies, so that one dispatch or one relay has several of them."""
    box = chooser.below("work box", 5)
    name, place = chooser.choice("work bundle", (("post", "box"), ("post", "box"), ("trek", "camp")))
    if not load.long and name == "trek":
        name, place = "post", "box"
    width = 2 + chooser.below("work width", 3)
    return [graph.call(name, _value(chooser, load), resources=(f"{place}-{box}",)) for _ in range(width)]


def _any(chooser: Chooser, graph: Graph, load: Load) -> list[Handle]:
    handles: list[Handle] = []
    for _ in range(2 + chooser.below("work size", 8)):
        needs = [handle for handle in handles if chooser.chance("work edge", 0.3)]
        handles.append(_call(chooser, graph, load, *needs[-4:]))
    return handles


_SHAPES: Mapping[str, Any] = {
    "one": _one,
    "chain": _chain,
    "diamond": _diamond,
    "fan": _fan,
    "bundle": _bundle,
    "any": _any,
}
_USUAL_SHAPES = ("one", "one", "one", "chain", "diamond", "fan", "bundle", "any")
_LONG_SHAPES = ("one", "one", "fan", "bundle")
