"""What the calls of one request have been through: handed out, refused, lost; and who may still run them for it.

The dispatcher and the coordinator write it, one `History` an `Execution`. It decides which of the members that offer a
call's function are still eligible, and remembers for the error whose body may have started. Empty tables cost nothing:
most calls are handed out once and come back.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpreg_proto.errors import Fault
from mpreg_proto.ids import MemberId
from mpreg_proto.requests.placement import Candidate


class History:
    """Tables by call. All may be read; they are written by the methods alone."""

    __slots__ = ("losses", "pardoned", "possibly_started", "queued", "refusals", "tries", "versions")

    def __init__(self) -> None:
        self.queued: dict[str, int] = {}
        """When each call of a traced request became ready."""
        self.tries: dict[str, int] = {}
        """How often a call was handed out."""
        self.possibly_started: dict[str, None] = {}
        """Non-idempotent calls whose body may have started (docs/explanation/guarantees.md)."""
        self.refusals: dict[str, list[tuple[MemberId, Fault]]] = {}
        """For calls that were refused somewhere: by whom, and why."""
        self.pardoned: dict[str, Fault] = {}
        """For calls that wait: the last refusal before that."""
        self.losses: dict[str, int] = {}
        """How often the node of a call was lost."""
        self.versions: dict[str, str] = {}
        """For calls whose node was lost: the version that alone may run them again."""

    def handed_out(self, name: str, candidate: Candidate) -> None:
        """A call goes to a member."""
        if not candidate.idempotent:
            self.possibly_started[name] = None
        self.tries[name] = self.tries.get(name, 0) + 1

    def not_started(self, name: str) -> None:
        """Whoever had the call says that its body did not start."""
        self.possibly_started.pop(name, None)

    def refused(self, name: str, member: MemberId, fault: Fault) -> None:
        """A member will not have the call: it goes elsewhere from now on."""
        self.refusals.setdefault(name, []).append((member, fault))

    def lost(self, name: str, candidate: Candidate, *, failovers: int) -> bool:
        """The member that had the call is gone. Returns whether it may run again: idempotent, and not lost too often.

        If so, then as the same version alone.
        """
        losses = self.losses[name] = self.losses.get(name, 0) + 1
        if not candidate.idempotent or losses > failovers:
            return False
        self.versions[name] = candidate.version
        return True

    def pardon(self, name: str) -> None:
        """Time will pass before the call is placed: whoever refused it may have room again by then."""
        refusals = self.refusals.pop(name, None)
        if refusals:
            self.pardoned[name] = refusals[-1][1]

    def last_refusal(self, name: str) -> Fault | None:
        """Why the last member that was asked would not have the call."""
        refusals = self.refusals.get(name)
        return refusals[-1][1] if refusals else None

    def eligible(self, name: str, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Those of `candidates` that have not refused the call and fit what was said of it before."""
        if self.refusals and (refusals := self.refusals.get(name)):
            refusers = [member for member, _ in refusals]
            candidates = [candidate for candidate in candidates if candidate.member not in refusers]
        if self.versions and (version := self.versions.get(name)) is not None:
            candidates = [one for one in candidates if one.idempotent and one.version == version]
        return candidates
