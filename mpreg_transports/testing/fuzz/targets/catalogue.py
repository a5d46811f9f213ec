"""Version logs: a replica at v holds what its owner held at v (P8); a forged delta is proved by its hash or refused.

Input: the changes of an owner, and the selection of served deltas that reach two replicas, whole or damaged. The
content of a replica is compared with the owner's past as long as nothing is forged, and always with its own hash,
computed again naively over its entries.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from mpreg_proto.cluster.catalogue import Applied, Catalogue, FunctionSpec
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.wire.messages import Change, Delta, Head
from mpreg_transports.testing.fuzz.draws import Draws

OWNER, NEAR, FAR = (MemberId(letter * 16) for letter in (b"a", b"b", b"c"))
_ENTRIES = (b"", b"\xc3", b"\x90", b"\x91\xa1x", b"\x91\xa1f", b"\x91" * 2000, b"\xc1")
_KEYS = ("f:f", "f:g", "f:", "r", "d", "later", "", "f:" + "x" * 300)
State = dict[str, bytes]


def harness(data: bytes) -> None:
    """Run an owner, a replica of the owner, and a replica that receives from both."""
    draws = Draws(data)
    limits = Limits(changes=1 + draws.below(6), functions=3)
    honest = draws.byte() % 2 == 0
    owner, near, far = (Catalogue(member, limits=limits) for member in (OWNER, NEAR, FAR))
    past: dict[int, tuple[Head, State]] = {}
    served: list[Delta] = []
    while draws.more:
        if draws.byte() % 3 == 0:
            served += _act(draws, owner)
            past[owner.version(OWNER)] = replica_content(owner)
        for source in (owner, near):
            delta = source.delta(OWNER, draws.below(1 + owner.version(OWNER)))
            served += [] if delta is None else [delta]
        if not served:
            continue
        for replica in (near, far):
            before = replica_content(replica)
            delta = draws.pick(served[-12:])
            if not honest and draws.byte() % 2:
                delta = _damaged(draws, delta)
            applied = replica.apply(delta)
            _proves_itself(replica)
            if applied in (Applied.OLD, Applied.GAP, Applied.REFUSED):
                assert replica_content(replica) == before, f"{applied} changes something"
            if honest:
                version = replica.version(OWNER)
                assert applied is not Applied.MISMATCH and applied is not Applied.REFUSED, applied
                assert version == 0 or replica_content(replica) == past[version], "P8"
        if len(served) > 64:
            del served[:32]


def _act(draws: Draws, owner: Catalogue) -> list[Delta]:
    before = replica_content(owner)
    try:
        match draws.below(5):
            case 0 | 1:
                resources = tuple(draws.pick(("x", "y", "z")) for _ in range(draws.below(3)))
                return [owner.offer(FunctionSpec(name=draws.pick("fghi"), version=draws.text(2), resources=resources))]
            case 2:
                return [owner.withdraw(draws.pick("fghi"))]
            case 3:
                return [owner.set_resources(draws.pick(("", "x", "xy")))]
        return [owner.drain()]
    except LocalProtocolError:
        assert replica_content(owner) == before, "a refused change has changed something"
        return []


def _damaged(draws: Draws, delta: Delta) -> Delta:
    """Return a changed delta; every second one has a hash that fits its new content."""
    changes = list(delta.changes)
    head, since = delta.head, delta.since
    match draws.below(5):
        case 0:
            changes = draws.order(changes[: draws.below(1 + len(changes))])
        case 1:
            changes.append(Change(draws.integer(), draws.pick(_KEYS), draws.pick(_ENTRIES)))
        case 2 if changes:
            place = draws.below(len(changes))
            changes[place] = Change(changes[place].version, draws.pick(_KEYS), draws.pick(_ENTRIES))
        case 3:
            since = draws.integer()
        case _:
            head = Head(draws.pick((OWNER, NEAR, b"", b"x" * 17)), draws.integer(), draws.pick((head.hash, b"", b"\0")))
    if draws.byte() % 2:
        head = msgspec.structs.replace(head, hash=naive_hash({change.key: change.entry for change in changes}))
    return Delta(head, since, tuple(changes))


def replica_content(catalogue: Catalogue) -> tuple[Head, State]:
    """Return the content of the owner's catalogue."""
    content = catalogue.content(OWNER)
    if content is None:
        return Head(OWNER, 0, bytes(16)), {}
    return content.head, {key: content.entries[key].entry for key in sorted(content.entries)}


def naive_hash(entries: State) -> bytes:
    """Return the hash over a whole content: the sum of docs/explanation/membership.md, modulo 2^128."""
    total = 0
    for key, entry in entries.items():
        if entry:
            name = key.encode()
            total += int.from_bytes(
                blake2b(len(name).to_bytes(4, "big") + name + entry, digest_size=16).digest(), "big"
            )
    return (total % (1 << 128)).to_bytes(16, "big")


def _proves_itself(catalogue: Catalogue) -> None:
    for head in catalogue.heads():
        content = catalogue.content(MemberId(head.member))
        assert content is not None and content.head == head
        entries = {key: change.entry for key, change in content.entries.items()}
        assert naive_hash(entries) == head.hash, "a copy that its hash does not prove"
        assert content.size == sum(map(len, entries.values())), "its size"
        assert len(content.functions) <= 3 and all(entries.values()), "its bounds"
        assert sorted(content.functions) == sorted(key[2:] for key in entries if key.startswith("f:")), "its functions"
    listed = {(name, member) for name, by in catalogue.offering.items() for member in by}
    members = [MemberId(head.member) for head in catalogue.heads()]
    contents = [(member, catalogue.content(member)) for member in members]
    assert listed == {(name, member) for member, one in contents if one for name in one.functions}, "the way back"
