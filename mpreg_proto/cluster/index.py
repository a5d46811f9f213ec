"""The index of offers: the members that can run a call, by function and resources (docs/explanation/architecture.md).

It reads members and catalogue; `changed` is called when either changes. Placement reads it for every call, so an answer
is kept by its arguments until then, and a hit is one dict access. Tests of "holds all of these" are bit masks over
interned tags. It decides nothing: it lists the members that can run a call, by member id, and explains to users why
none can.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import msgspec

from mpreg_proto.cluster.catalogue import Catalogue, Content, Entry
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.similar import Names, most_alike
from mpreg_proto.ids import MemberId
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import ItemsParameter

_ANSWERS = 8_192
_TAGS = 16_384
_COMPARED = 64
"""The members compared to explain to users why no member can run a call, and the resources named then."""
_RESOURCES_COMPARED = 4_096
_CORRECTED = 8
"""The resources of one call for which similar ones are searched."""
_TRIED = 8
"""The number of members looked at, of which one must take calls for their function to be suggested to users."""


class Provider(msgspec.Struct, frozen=True, gc=False):
    """A member that offers a function with at least the resources of a call, and takes calls."""

    member: MemberId
    shown: str
    exact: bool
    """True if its resources for this function are exactly those of the call."""
    suspect: bool
    idempotent: bool
    version: str
    capacity: int = 0
    """The number of calls of the function that it takes at once; 0: no bound is known."""
    streaming: bool = False
    consumes: ItemsParameter | None = None


class FunctionRow(msgspec.Struct, frozen=True, gc=False):
    """One function on one node, to show to users."""

    function: str
    version: str
    node: str
    resources: tuple[str, ...]
    """The node's own resources and the function's, sorted."""
    idempotent: bool
    streaming: bool
    signature: str
    doc: str


class Index:
    """The offers in the cluster, in this node's view. Implements placement's `CatalogueView`."""

    __slots__ = ("_bits", "_cache", "_catalogue", "_members", "_provider_cache", "generation")

    def __init__(self, members: Members, catalogue: Catalogue) -> None:
        self._members = members
        self._catalogue = catalogue
        self._cache: dict[tuple[str, tuple[str, ...], str | None], tuple[Provider, ...]] = {}
        self._provider_cache: dict[tuple[str, str | None], list[tuple[Member, Content, Entry]]] = {}
        """The answers of `_providers`, until the next change."""
        self._bits: dict[str, int] = {}
        self.generation: int = 0
        """A counter that grows with each change of an offer or a standing."""

    def changed(self) -> None:
        """Drop all answers: a catalogue or a standing has changed."""
        self.generation += 1
        self._cache.clear()
        self._provider_cache.clear()

    def offers(self, function: str, resources: tuple[str, ...], version: str | None) -> tuple[Provider, ...]:
        """Return all members that can run a call, SUSPECT ones included, by member id; empty if none can."""
        asked = (function, resources, version)
        found = self._cache.get(asked)
        if found is not None:
            return found
        if len(self._cache) >= _ANSWERS:  # the keys come from clients, without a bound on their number
            self._cache.clear()
        found = self._search(function, resources, version)
        self._cache[asked] = found
        return found

    def _search(self, function: str, resources: tuple[str, ...], version: str | None) -> tuple[Provider, ...]:
        found: list[Provider] = []
        asked = self._mask(resources)
        for member, content, entry in self._providers(function, version):
            offered = self._mask(content.resources) | self._mask(entry.resources)
            if offered & asked == asked:
                suspect = member.standing is Standing.SUSPECT
                found.append(
                    Provider(
                        member.id,
                        member.shown,
                        offered == asked,
                        suspect,
                        entry.idempotent,
                        entry.version,
                        entry.capacity,
                        entry.streaming,
                        entry.consumes,
                    )
                )
        if len(self._bits) > _TAGS:  # a mask is used within one search only, so tags may get new numbers
            self._bits.clear()
        return tuple(found)

    def _providers(self, function: str, version: str | None) -> list[tuple[Member, Content, Entry]]:
        """Return the members that offer a function and take calls, with any resources, by member id; read-only."""
        asked = (function, version)
        known = self._provider_cache.get(asked)
        if known is not None:
            return known
        if len(self._provider_cache) >= _ANSWERS:
            self._provider_cache.clear()
        offering: Mapping[MemberId, Entry] = self._catalogue.offering.get(function, {})
        found: list[tuple[Member, Content, Entry]] = []
        for identity in sorted(offering):
            entry = offering[identity]
            member = self._members.get(identity)
            content = self._catalogue.content(identity)
            if member is None or content is None or not member.routable or content.draining:
                continue
            if version is None or entry.version == version:
                found.append((member, content, entry))
        self._provider_cache[asked] = found
        return found

    def offered_by(self, member: MemberId) -> Mapping[str, Entry]:
        """Return the functions that a member offers, even if no member can run them."""
        content = self._catalogue.content(member)
        return {} if content is None else content.functions

    def _mask(self, tags: tuple[str, ...]) -> int:
        bits = self._bits
        mask = 0
        for tag in tags:
            bit = bits.get(tag)
            if bit is None:
                bit = bits[tag] = len(bits)
            mask |= 1 << bit
        return mask

    # -- for users ------------------------------------------------------------------------------------------------

    def explain_no_match(self, function: str, resources: tuple[str, ...], version: str | None) -> dict[str, object]:
        """Return the details of error 1001: why no member can run a call.

        The work is bounded, so the details may not be complete.

        Always `unknown` ("function" or "resources"), and `function` and `resources` of the call. For an unknown
        function also `close`, similar names that are offered, and `versions`, the offered ones, if the call names a
        version. For missing resources also `node`, the nearest member, `lacks`, what it does not hold, and three
        details about the resources with which the function is offered: `close`, those that are similar to one in
        `lacks`, `corrections`, the most similar one for each in `lacks` that seems misspelt, and `exist`, a part of
        them that contains those in `close`.
        """
        details: dict[str, object] = {"unknown": "function", "function": function, "resources": list(resources)}
        providers = self._providers(function, version)
        if not providers:
            near = self._catalogue.names.near(function, self._catalogue.offering)
            details["close"] = most_alike(function, [name for name in near if self._has_provider(name)], 3)
            if version is not None:
                others = self._providers(function, None)[:_COMPARED]
                versions = dict.fromkeys(entry.version for _, _, entry in others)
                details["version"], details["versions"] = version, sorted(versions)
            return details
        exist: dict[str, None] = {}  # at most _RESOURCES_COMPARED
        nearest, lacks, work = "", list(resources), 0
        for member, content, entry in providers[:_COMPARED]:
            work += len(content.resources) + len(entry.resources) + len(resources)
            if nearest and work > _RESOURCES_COMPARED:
                break
            offered = dict.fromkeys((*content.resources, *entry.resources))
            exist.update(dict.fromkeys(islice(offered, _RESOURCES_COMPARED - len(exist))))
            missing = [tag for tag in resources if tag not in offered]
            if not nearest or len(missing) < len(lacks):
                nearest, lacks = member.shown, missing
        similar = _similar(lacks, exist)
        close = list(dict.fromkeys([tag for tags in similar.values() for tag in tags]))
        named = sorted(islice(dict.fromkeys((*close, *sorted(exist))), _COMPARED))
        corrections = {tag: tags[0] for tag, tags in similar.items()}
        found = {"node": nearest, "lacks": lacks, "exist": named, "close": close, "corrections": corrections}
        return {**details, "unknown": "resources", **found}

    def _has_provider(self, function: str) -> bool:
        """Return whether a member seems to take calls for a function."""
        for identity in islice(self._catalogue.offering.get(function, ()), _TRIED):
            member, content = self._members.get(identity), self._catalogue.content(identity)
            if member is not None and content is not None and member.routable and not content.draining:
                return True
        return False

    def table(self) -> tuple[FunctionRow, ...]:
        """Return the offers with their members and resources, by function and node."""
        rows: list[FunctionRow] = []
        for name in sorted(self._catalogue.offering):
            for member, content, entry in self._providers(name, None):
                offered = sorted(dict.fromkeys((*content.resources, *entry.resources)))
                facts = (entry.idempotent, entry.streaming, entry.signature, entry.doc)
                rows.append(FunctionRow(name, entry.version, member.shown, tuple(offered), *facts))
        return tuple(rows)


def _similar(lacks: list[str], exist: dict[str, None]) -> dict[str, list[str]]:
    """Return the resources in `exist` that are similar to those in `lacks`: three for a single one, else one for each.

    A resource that exists is not a misspelt one, and one without similar ones is not in the result.
    """
    misspelt = [tag for tag in lacks[:_CORRECTED] if tag not in exist]
    if not misspelt:
        return {}
    names = Names(exist)
    most = 3 if len(lacks) == 1 else 1
    found = [(tag, most_alike(tag, names.near(tag, exist), most)) for tag in misspelt]
    return {tag: tags for tag, tags in found if tags}
