"""The index of offers: which members could run a call, by function and resources (docs/explanation/architecture.md).

It reads members and catalogue and is told when either changed; placement asks it for every call, so an answer is
kept by its arguments until then, and a hit is one dict access. Tests of "holds all of these" are bit masks over
interned tags. It decides nothing: it lists who can, by member id, and says for people why nobody can.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import msgspec

from mpreg_proto.cluster.catalogue import Catalogue, Content, Entry
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.similar import most_alike
from mpreg_proto.ids import MemberId
from mpreg_proto.notices import Standing

_ANSWERS = 8_192
_TAGS = 16_384
_COMPARED = 64
"""Members that are looked at to say for people why nobody can run a call, and resources that are named then."""
_RESOURCES_COMPARED = 4_096
_TRIED = 8
"""Members of which one must take calls for their function to be named to people."""


class Provider(msgspec.Struct, frozen=True, gc=False):
    """A member that offers a function with at least the resources asked for, and takes calls."""

    member: MemberId
    shown: str
    exact: bool
    """Its resources for this function are just those asked for."""
    suspect: bool
    idempotent: bool
    version: str


class FunctionRow(msgspec.Struct, frozen=True, gc=False):
    """One function on one node, for people."""

    function: str
    version: str
    node: str
    resources: tuple[str, ...]
    """The node's own and the function's, sorted."""
    idempotent: bool
    streaming: bool
    signature: str
    doc: str


class Index:
    """What the cluster offers, as far as this node knows. Implements placement's `CatalogueView`."""

    __slots__ = ("_bits", "_cache", "_catalogue", "_members", "_provider_cache", "generation")

    def __init__(self, members: Members, catalogue: Catalogue) -> None:
        self._members = members
        self._catalogue = catalogue
        self._cache: dict[tuple[str, tuple[str, ...], str | None], tuple[Provider, ...]] = {}
        self._provider_cache: dict[tuple[str, str | None], list[tuple[Member, Content, Entry]]] = {}
        """Answers of `_providers`, until something changes."""
        self._bits: dict[str, int] = {}
        self.generation = 0
        """Grows with each change of what is offered or of how a member is."""

    def changed(self) -> None:
        """A catalogue or a standing changed: every answer may be another one."""
        self.generation += 1
        self._cache.clear()
        self._provider_cache.clear()

    def offers(self, function: str, resources: tuple[str, ...], version: str | None) -> tuple[Provider, ...]:
        """Everybody who can run it, SUSPECT members included, by member id; empty if nobody can."""
        asked = (function, resources, version)
        found = self._cache.get(asked)
        if found is not None:
            return found
        if len(self._cache) >= _ANSWERS:  # questions come from clients, and nobody bounds their number
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
                    Provider(member.id, member.shown, offered == asked, suspect, entry.idempotent, entry.version)
                )
        if len(self._bits) > _TAGS:  # masks live no longer than one search, so tags may be numbered anew
            self._bits.clear()
        return tuple(found)

    def _providers(self, function: str, version: str | None) -> list[tuple[Member, Content, Entry]]:
        """Those that offer a function and take calls, whatever they hold; by member id. Not to be written to."""
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
        """The functions that a member offers, whether anybody can run them or not."""
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

    # -- for people -----------------------------------------------------------------------------------------------

    def explain_no_match(self, function: str, resources: tuple[str, ...], version: str | None) -> dict[str, object]:
        """Why nobody can run it: the details of error 1001. The work for it is bounded, so they may not name all.

        Always `unknown` ("function" or "resources"), `function` and `resources` as asked. An unknown function: `close`,
        names like it that are offered; with a version asked for, `versions` that are. Unheld resources: `node`, the
        nearest one, `lacks`, what it does not hold, and `exist`, resources under which the function is offered.
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
        exist: dict[str, None] = {}
        nearest, lacks, work = "", list(resources), 0
        for member, content, entry in providers[:_COMPARED]:
            work += len(content.resources) + len(entry.resources) + len(resources)
            if nearest and work > _RESOURCES_COMPARED:
                break
            offered = dict.fromkeys((*content.resources, *entry.resources))
            if len(exist) < _COMPARED:
                exist.update(offered)
            missing = [tag for tag in resources if tag not in offered]
            if not nearest or len(missing) < len(lacks):
                nearest, lacks = member.shown, missing
        named = sorted(exist)[:_COMPARED]
        return {**details, "unknown": "resources", "node": nearest, "lacks": lacks, "exist": named}

    def _has_provider(self, function: str) -> bool:
        """Whether somebody seems to take calls for a function."""
        for identity in islice(self._catalogue.offering.get(function, ()), _TRIED):
            member, content = self._members.get(identity), self._catalogue.content(identity)
            if member is not None and content is not None and member.routable and not content.draining:
                return True
        return False

    def table(self) -> tuple[FunctionRow, ...]:
        """Who offers what with which resources, by function and node."""
        rows: list[FunctionRow] = []
        for name in sorted(self._catalogue.offering):
            for member, content, entry in self._providers(name, None):
                offered = sorted(dict.fromkeys((*content.resources, *entry.resources)))
                facts = (entry.idempotent, entry.streaming, entry.signature, entry.doc)
                rows.append(FunctionRow(name, entry.version, member.shown, tuple(offered), *facts))
        return tuple(rows)
