"""The index: the members that offer a function, and the explanation when none does."""

import msgspec
import pytest

from mpreg_proto.cluster.catalogue import Catalogue, FunctionSpec
from mpreg_proto.cluster.index import Index, Provider
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim

ME = MemberId(b"m" * 16)


class World:
    """Members with offers, and the index over them."""

    def __init__(self) -> None:
        self.members = Members(ME, Card("me"), limits=Limits(), now=0)
        self.catalogue = Catalogue(ME, limits=Limits())
        self.index = Index(self.members, self.catalogue)

    def add(self, name: str, *specs: FunctionSpec, resources: tuple[str, ...] = (), drain: str = "") -> MemberId:
        member = MemberId(name.encode() * 16)
        self.members.merge([Claim(member, 0, 0, msgspec.msgpack.encode(Card(name)))], 0)
        owner = Catalogue(member, limits=Limits())
        owner.set_resources(resources)
        for spec in specs:
            owner.offer(spec)
        if drain:
            owner.drain()
        delta = owner.delta(member, 0)
        assert delta is not None
        self.catalogue.apply(delta)
        self.index.changed()
        return member

    def names(self, function: str, resources: tuple[str, ...] = (), version: str | None = None) -> str:
        return "".join(row.shown[0] for row in self.index.offers(function, resources, version))


def f(*resources: str, version: str = "", idempotent: bool = False) -> FunctionSpec:
    return FunctionSpec(name="f", resources=resources, version=version, idempotent=idempotent)


def test_offers_with_a_superset_of_resources_in_the_order_of_ids() -> None:
    world = World()
    world.add("c", f("gpu", "big"))
    world.add("a", f("gpu"), resources=("local",))
    world.add("b", f(), resources=("gpu",))
    assert world.names("f") == "abc"
    assert world.names("f", ("gpu",)) == "abc"
    assert world.names("f", ("gpu", "local")) == "a"
    assert world.names("f", ("gpu", "unheard-of")) == ""
    exact = [row.shown[0] for row in world.index.offers("f", ("gpu",), None) if row.exact]
    assert exact == ["b"], "what a function holds is its node's and its own"


def test_fields_of_an_offer_for_placement() -> None:
    world = World()
    she = world.add("s", f("gpu", version="3", idempotent=True))
    assert world.index.offers("f", ("gpu",), "3") == (
        Provider(she, "s#7373", exact=True, suspect=False, idempotent=True, version="3", capacity=2),
    )
    world.members.declare(she, Standing.SUSPECT, 0)
    world.index.changed()
    assert [row.suspect for row in world.index.offers("f", (), None)] == [True]


def test_pinned_version() -> None:
    world = World()
    world.add("a", f(version="1"))
    world.add("b", f(version="2"))
    world.add("c", f())
    assert [world.names("f", (), version) for version in (None, "1", "2", "", "3")] == ["abc", "a", "b", "c", ""]


@pytest.mark.parametrize("standing", [Standing.DEAD, Standing.RETIRED])
def test_dead_retired_and_draining_members_are_no_candidates(standing: Standing) -> None:
    world = World()
    ended = world.add("a", f())
    world.add("b", f(), drain="yes")
    world.add("c", f())
    world.members.declare(ended, standing, 0)
    world.index.changed()
    assert world.names("f") == "c"


def test_cached_offers_until_a_change() -> None:
    world = World()
    world.add("a", f())
    generation = world.index.generation
    first = world.index.offers("f", (), None)
    assert world.index.offers("f", (), None) is first
    assert world.index.offers("g", (), None) == ()
    world.add("b", f())
    assert world.index.generation > generation
    assert world.names("f") == "ab"


def test_bounded_cache_of_offers() -> None:
    world = World()
    world.add("a", f("gpu"))
    for number in range(20_000):
        world.index.offers("f", (f"tag-{number}",), None)
    assert len(world.index._cache) <= 8_192
    assert len(world.index._bits) <= 16_400
    assert world.names("f", ("gpu",)) == "a"


def test_unknown_function_with_close_names() -> None:
    world = World()
    world.add("a", FunctionSpec(name="train"), FunctionSpec(name="trace"), FunctionSpec(name="zip"))
    assert world.index.explain_no_match("trian", ("gpu",), None) == {
        "unknown": "function",
        "function": "trian",
        "resources": ["gpu"],
        "close": ["train", "trace"],
    }


def test_unknown_version_with_existing_versions() -> None:
    world = World()
    world.add("a", f(version="2"))
    world.add("b", f(version="1"))
    details = world.index.explain_no_match("f", (), "3")
    assert (details["unknown"], details["version"], details["versions"]) == ("function", "3", ["1", "2"])


def test_missing_resources_with_the_nearest_node() -> None:
    world = World()
    world.add("a", f("red"))
    world.add("b", f("red", "blue"), resources=("local",))
    assert world.index.explain_no_match("f", ("red", "blue", "green"), None) == {
        "unknown": "resources",
        "function": "f",
        "resources": ["red", "blue", "green"],
        "node": "b#6262",
        "lacks": ["green"],
        "exist": ["blue", "local", "red"],
        "close": [],
        "corrections": {},
    }


def test_close_names_of_misspelt_resources() -> None:
    world = World()
    world.add("a", f("gpu-cluster"))
    world.add("b", f("dataset-v2", "gpu-cluster"))
    world.add("c", f("gpu-clusters"))

    def close(*resources: str) -> object:
        return world.index.explain_no_match("f", resources, None)["close"]

    assert close("gpu-clutser") == ["gpu-cluster", "gpu-clusters"]
    assert close("gpu-clutser", "datasetv2") == ["gpu-cluster", "dataset-v2"]
    assert close("gpu-clutser", "dataset-v2") == ["gpu-cluster", "gpu-clusters"]
    assert close("dataset-v2", "gpu-clusters") == [], "both exist, on two members"
    assert close("warehouse") == []
    details = world.index.explain_no_match("f", ("gpu-clutser", "datasetv2"), None)
    assert details["corrections"] == {"gpu-clutser": "gpu-cluster", "datasetv2": "dataset-v2"}


def test_close_name_among_thousands_of_resources() -> None:
    world = World()
    for name in "abcd":
        world.add(name, f(), resources=tuple(f"{name}-shard-{number}" for number in range(60)))
    world.add("e", f(), resources=tuple(f"shelf/{number}" for number in range(3000)))
    details = world.index.explain_no_match("f", ("shelf/77x",), None)
    assert "shelf/77" in details["close"] and len(details["close"]) == 3 and len(details["exist"]) == 64
    assert set(details["close"]) <= set(details["exist"])


def test_bound_of_the_compared_resources_of_one_provider() -> None:
    world = World()
    world.add("a", f(), resources=tuple(f"tag-{number:05}" for number in range(5_000)))
    details = world.index.explain_no_match("f", ("tag-04096x", "tag-00042", "tag-04998"), None)
    assert details["lacks"] == ["tag-04096x"], "all of them are compared with the call"
    assert len(details["close"]) == 3 and max(details["close"]) < "tag-04096"


def test_bound_of_corrected_resources() -> None:
    world = World()
    world.add("a", f(*(f"tag-{letter}" for letter in "abcdefghijklmnop")))
    details = world.index.explain_no_match("f", tuple(f"tag_{letter}" for letter in "abcdefghijklmnop"), None)
    assert len(details["close"]) == 8 and len(details["lacks"]) == 16


def test_close_names_among_3000_functions() -> None:
    world = World()
    world.add("a", *(FunctionSpec(name=f"{letter}{number}") for letter in "gh" for number in range(1500)))
    assert "g77" in world.index.explain_no_match("g77x", (), None)["close"]


def test_table_of_offers() -> None:
    world = World()
    world.add("b", f("gpu", version="1", idempotent=True), resources=("local",))
    world.add("a", f())
    world.catalogue.offer(FunctionSpec(name="echo", signature="(value)", doc="Gives it back."))
    rows = [(row.function, row.node, row.version, row.resources, row.idempotent) for row in world.index.table()]
    assert rows == [
        ("echo", "me#6d6d", "", (), False),
        ("f", "a#6161", "", (), False),
        ("f", "b#6262", "1", ("gpu", "local"), True),
    ]
    assert (world.index.table()[0].signature, world.index.table()[0].doc) == ("(value)", "Gives it back.")
