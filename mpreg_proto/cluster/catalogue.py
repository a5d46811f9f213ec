"""The catalogue: the offers of each member, a version log that only its owner writes (docs/explanation/membership.md).

The process's own functions come in by `offer` and `set_resources`; other members' by `Delta`s. Each change makes
version v+1, and the content at a version has a hash, so a replica at v proves that it holds exactly the owner's state
at v. Each node keeps the last changes of all members and can serve them. Entries are passed on as their owner's bytes.
Nothing here sends, and no delta raises, however wrong it is.

Keys: `"f:" + name` a function, `"r"` the node's own resources, `"d"` draining. Keys of a later protocol version are
kept unread.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from hashlib import blake2b

import msgspec

from mpreg_proto.cluster.similar import Names
from mpreg_proto.errors import ErrorCode, LocalProtocolError
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.wire.messages import Change, Delta, Head, ItemsParameter

FUNCTION = "f:"
RESOURCES = "r"
DRAINING = "d"
CONTENT = 16 * 1024 * 1024
"""The longest content of one member's catalogue, in bytes, so that its snapshot fits in a message between nodes."""
LAST_VERSION = 2**62
"""Heads beyond it are dropped, so that one message cannot use up a member's versions or the bits of a number."""
_LOG = 1024 * 1024
"""The bytes of changes that are kept of each member beside its present entries."""
_OTHER_KEYS = 64
_MODULUS = 1 << 128


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A function that this process offers. `resources` are those of its registration, sorted."""

    name: str
    version: str = ""
    resources: tuple[str, ...] = ()
    idempotent: bool = False
    streaming: bool = False
    """True if it is a generator: each of its calls produces items."""
    signature: str = ""
    doc: str = ""
    concurrency: int = 1
    """The number of its calls that run at once."""
    queue: int = 0
    """The number of its calls that may wait here for one of these to end; 0: as many as run at once."""
    inline: bool = False
    """True if it never blocks and runs within the input; local to this process."""
    consumes: ItemsParameter | None = None
    """The parameter that takes the items of a generator while that runs."""


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A function as other nodes see it. `resources` are its own, without the node's."""

    function: str
    version: str = ""
    resources: tuple[str, ...] = ()
    idempotent: bool = False
    streaming: bool = False
    signature: str = ""
    doc: str = ""
    capacity: int = 0
    """The number of its calls that the node takes at once, running and queued; 0: no bound is known."""
    consumes: ItemsParameter | None = None


class Applied(enum.Enum):
    """The result of applying a delta."""

    YES = "yes"
    OLD = "old"
    """The held version is the same or newer."""
    GAP = "gap"
    """The delta starts after the end of what is held: request the rest."""
    MISMATCH = "mismatch"
    """The hash does not match the content: the copy was dropped; request it from the owner."""
    REFUSED = "refused"
    """Malformed, or beyond a limit. Nothing has changed, and a new request would bring the same."""


class _Refused(Exception):
    """A change that no honest owner makes; caught in `apply`."""


Value = Entry | tuple[str, ...] | bool | None

_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_names = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_decode_flag = msgspec.msgpack.Decoder(bool).decode
_encode = msgspec.msgpack.encode


class Content:
    """One member's catalogue at one version. Only `Catalogue` writes to it."""

    __slots__ = ("changes", "draining", "entries", "functions", "hash", "log", "member", "resources", "size", "version")

    def __init__(self, member: MemberId) -> None:
        self.member: MemberId = member
        self.version: int = 0
        self.hash: int = 0
        self.size: int = 0
        self.entries: dict[str, Change] = {}
        self.changes: tuple[Change, ...] = ()
        """The last changes, at most a few hundred. Mostly one or two: a tuple, as an empty deque takes 600 bytes."""
        self.log: int = 0
        """The number of bytes in `changes`."""
        self.functions: dict[str, Entry] = {}
        self.resources: tuple[str, ...] = ()
        self.draining: bool = False

    @property
    def head(self) -> Head:
        return Head(self.member, self.version, self.hash.to_bytes(16, "big"))


def entry_hash(key: str, entry: bytes) -> int:
    """Return the share of one entry in its catalogue's hash, which is the sum of the shares modulo 2**128."""
    name = key.encode("utf-8", "surrogatepass")
    hasher = blake2b(len(name).to_bytes(4, "big"), digest_size=16)
    hasher.update(name)
    hasher.update(entry)
    return int.from_bytes(hasher.digest(), "big")


def wire_size(delta: Delta) -> int:
    """Return about how many bytes a delta takes on the wire."""
    return sum(len(change.key) + len(change.entry) + 8 for change in delta.changes) + 48


class Catalogue:
    """The offers of all members, including the local one. `offering` is the inverse: function -> member -> entry."""

    def __init__(self, me: MemberId, *, limits: Limits) -> None:
        self._limits = limits
        self.me = me
        self.offered: dict[str, FunctionSpec] = {}
        """The functions that this process itself offers, by name."""
        self.offering: dict[str, dict[MemberId, Entry]] = {}
        self.names: Names = Names()
        """The keys of `offering` in order, to find similar names."""
        self._contents: dict[MemberId, Content] = {}

    def content(self, member: MemberId) -> Content | None:
        """Return what is held of a member's catalogue, read-only."""
        return self._contents.get(member)

    def version(self, member: MemberId) -> int:
        """Return the version up to which a member's catalogue is held; 0 if it is not held."""
        content = self._contents.get(member)
        return 0 if content is None else content.version

    def heads(self) -> tuple[Head, ...]:
        """Return the heads of all catalogues that are held."""
        return tuple(content.head for content in self._contents.values())

    def drop(self, member: MemberId) -> None:
        """Forget a member's catalogue: the member has left the view, or the copy is wrong."""
        content = self._contents.pop(member, None)
        if content is not None:
            for function in content.functions:
                self._unlist(member, function)

    # -- own offers -----------------------------------------------------------------------------------------------

    def offer(self, spec: FunctionSpec) -> Delta:
        """Offer a function, in place of an earlier one of that name.

        Raises LocalProtocolError (1014) beyond a limit; nothing has changed then.
        """
        entry = Entry(
            spec.name, spec.version, spec.resources, spec.idempotent, spec.streaming, spec.signature, spec.doc,
            0 if spec.inline else spec.concurrency + (spec.queue or spec.concurrency), spec.consumes,
        )  # fmt: skip
        delta = self._change(FUNCTION + spec.name, _encode(entry))
        self.offered[spec.name] = spec
        return delta

    def withdraw(self, name: str) -> Delta:
        """Stop offering a function. Raises LocalProtocolError if it is not offered."""
        if name not in self.offered:
            raise LocalProtocolError(f"{name!r} is not offered here")
        del self.offered[name]
        return self._change(FUNCTION + name, b"")

    def set_resources(self, resources: Iterable[str]) -> Delta:
        """Replace the node's own resources. Raises LocalProtocolError (1014) beyond a limit."""
        return self._change(RESOURCES, _encode(tuple(sorted(dict.fromkeys(resources)))))

    def drain(self) -> Delta:
        """Record that this node takes no new calls from now on."""
        return self._change(DRAINING, _encode(True))

    def supersede(self, version: int) -> Delta:
        """Publish the whole own catalogue again at the version after `version`, which a faulty peer has made up."""
        content = self._contents.setdefault(self.me, Content(self.me))
        content.version = version + 1
        content.changes, content.log = (), 0  # no changes can be served over the gap
        return Delta(content.head, 0, tuple(content.entries.values()))

    def _change(self, key: str, entry: bytes) -> Delta:
        content = self._contents.get(self.me) or Content(self.me)
        change = Change(content.version + 1, key, entry)
        try:
            value = self._read(change)
            self._fits(content, [change])
        except _Refused as refusal:
            raise LocalProtocolError(str(refusal), code=ErrorCode.LIMIT_EXCEEDED, at=key) from None
        since = content.version
        self._contents[self.me] = content
        content.hash = (content.hash + _growth(content.entries, [change])) % _MODULUS
        self._write(content, change, value)
        return Delta(content.head, since, (change,))

    def affected_functions(self, delta: Delta) -> Iterable[str]:
        """Return the functions whose offers may have changed with a delta that was applied."""
        keys = [change.key for change in delta.changes]
        if all(key.startswith(FUNCTION) for key in keys):
            return [key[len(FUNCTION) :] for key in keys]
        content = self._contents.get(MemberId(delta.head.member))  # the delta changed its resources or draining
        return () if content is None else content.functions

    # -- offers of others -----------------------------------------------------------------------------------------

    def delta(self, member: MemberId, have: int) -> Delta | None:
        """Return a member's catalogue beyond version `have`; None if nothing is, or if nothing is held here."""
        content = self._contents.get(member)
        if content is None or have >= content.version:
            return None
        missing = content.version - have
        if have > 0 and missing <= len(content.changes):
            reached = content.changes[len(content.changes) - missing :]
            return Delta(content.head, have, reached)
        return Delta(content.head, 0, tuple(content.entries.values()))

    def apply(self, delta: Delta) -> Applied:
        """Apply another member's delta. a -> b applies iff a <= held < b, a snapshot iff it is newer. Never raises.

        MISMATCH drops the copy. In all other cases except YES nothing has changed.
        """
        member = MemberId(delta.head.member)
        current = self._contents.get(member)
        version = 0 if current is None else current.version
        if member == self.me or delta.head.version <= version:
            return Applied.OLD
        if delta.head.version > LAST_VERSION:
            return Applied.REFUSED
        if delta.since > version:
            return Applied.GAP
        try:
            if delta.since == 0 and not _unbroken(delta):
                return self._replace(delta)
            return self._extend(current or Content(member), delta)
        except _Refused:
            return Applied.REFUSED

    def _extend(self, content: Content, delta: Delta) -> Applied:
        if not _unbroken(delta):
            raise _Refused("versions are missing")
        changes = [change for change in delta.changes if change.version > content.version]
        values = [self._read(change) for change in changes]
        self._fits(content, changes)
        total = (content.hash + _growth(content.entries, changes)) % _MODULUS
        if total.to_bytes(16, "big") != delta.head.hash:
            self.drop(content.member)
            return Applied.MISMATCH
        self._contents[content.member] = content
        content.hash = total
        for change, value in zip(changes, values, strict=True):
            self._write(content, change, value)
        return Applied.YES

    def _replace(self, delta: Delta) -> Applied:
        member = MemberId(delta.head.member)
        content = Content(member)
        changes = delta.changes
        keys = dict.fromkeys(change.key for change in changes)
        if len(keys) != len(changes) or not all(change.entry for change in changes):
            raise _Refused("a snapshot names each entry once")
        values = [self._read(change) for change in changes]
        self._fits(content, changes)
        total = _growth(content.entries, changes) % _MODULUS
        self_proving = total.to_bytes(16, "big") == delta.head.hash
        self.drop(member)
        if not self_proving:
            return Applied.MISMATCH
        self._contents[member] = content
        for change, value in zip(changes, values, strict=True):
            self._write(content, change, value)
        # The changes before these entries are not known, so none can be served.
        content.changes = ()
        content.log = 0
        content.hash, content.version = total, delta.head.version
        return Applied.YES

    def _read(self, change: Change) -> Value:
        """Decode the value of an entry. Raises _Refused if no honest owner would send it."""
        key, entry = change.key, change.entry
        longest = self._limits.name_length
        if len(key) > longest + len(FUNCTION):
            raise _Refused(f"a name has at most {longest} characters")
        if not entry:
            return None
        try:
            if key.startswith(FUNCTION):
                function = _decode_entry(entry)
                if function.function != key[len(FUNCTION) :] or not function.function:
                    raise _Refused("an entry names another function than its key")
                self._names(function.resources)
                if len(function.version) > longest:
                    raise _Refused(f"a version has at most {longest} characters")
                return function
            if key == RESOURCES:
                names = _decode_names(entry)
                self._names(names)
                return names
            if key == DRAINING:
                return _decode_flag(entry)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _Refused(f"an entry cannot be read: {error}") from None
        return None

    def _names(self, names: tuple[str, ...]) -> None:
        if len(names) > self._limits.resources:
            raise _Refused(f"a member holds at most {self._limits.resources} resources")
        if any(len(name) > self._limits.name_length for name in names):
            raise _Refused(f"a name has at most {self._limits.name_length} characters")

    def _fits(self, content: Content, changes: Iterable[Change]) -> None:
        """Check that the content stays within its limits after the changes. Raises _Refused."""
        size, functions, others = content.size, len(content.functions), len(content.entries) - len(content.functions)
        present: dict[str, int] = {}
        for change in changes:
            before = present.get(change.key)
            if before is None:
                old = content.entries.get(change.key)
                before = 0 if old is None else len(old.entry)
            size += len(change.entry) - before
            step = bool(change.entry) - bool(before)
            if change.key.startswith(FUNCTION):
                functions += step
            else:
                others += step
            present[change.key] = len(change.entry)
        if functions > self._limits.functions:
            raise _Refused(f"a member offers at most {self._limits.functions} functions")
        if size > CONTENT or others > _OTHER_KEYS:
            raise _Refused(f"a catalogue has at most {CONTENT} bytes and {_OTHER_KEYS} entries that are no functions")

    def _write(self, content: Content, change: Change, value: Value) -> None:
        key = change.key
        old = content.entries.pop(key, None)
        content.size += len(change.entry) - (0 if old is None else len(old.entry))
        content.version = change.version
        content.changes = (*content.changes, change)
        content.log += len(change.entry)
        while len(content.changes) > self._limits.changes or content.log > _LOG:
            content.log -= len(content.changes[0].entry)
            content.changes = content.changes[1:]
        if change.entry:
            content.entries[key] = change
        if key.startswith(FUNCTION):
            name = key[len(FUNCTION) :]
            if isinstance(value, Entry):
                self._list(content, value)
            elif content.functions.pop(name, None) is not None:
                self._unlist(content.member, name)
        elif key == RESOURCES:
            content.resources = value if isinstance(value, tuple) else ()
        elif key == DRAINING:
            content.draining = value is True

    def _list(self, content: Content, entry: Entry) -> None:
        """Record an offer. Most members of a cluster offer an equal entry: equal entries share one object."""
        offering = self.offering.get(entry.function)
        if offering is None:
            offering = self.offering[entry.function] = {}
            self.names.add(entry.function)
        other = next(iter(offering.values()), entry)
        same = other if other == entry else entry
        content.functions[same.function] = offering[content.member] = same

    def _unlist(self, member: MemberId, function: str) -> None:
        offering = self.offering[function]
        del offering[member]
        if not offering:
            del self.offering[function]
            self.names.remove(function)


def _growth(entries: Mapping[str, Change], changes: Iterable[Change]) -> int:
    """Return what `changes` add to the hash of a content, before the modulus."""
    total = 0
    present: dict[str, bytes] = {}
    for change in changes:
        before = present.get(change.key)
        if before is None:
            old = entries.get(change.key)
            before = b"" if old is None else old.entry
        total -= entry_hash(change.key, before) if before else 0
        total += entry_hash(change.key, change.entry) if change.entry else 0
        present[change.key] = change.entry
    return total


def _unbroken(delta: Delta) -> bool:
    """Return whether a delta holds each version after `since` up to its head's, once and in order."""
    count = delta.head.version - delta.since
    return len(delta.changes) == count and all(
        change.version == delta.since + place for place, change in enumerate(delta.changes, 1)
    )
