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

    __slots__ = ("earlier_refusals", "losses", "possibly_started", "queued", "refusals", "routes", "tries", "versions")

    def __init__(self) -> None:
        self.queued: dict[str, int] = {}
        """When each call of a traced request became ready."""
        self.tries: dict[str, int] = {}
        """How often a call was handed out."""
        self.possibly_started: dict[str, None] = {}
        """Non-idempotent calls whose body may have started (docs/explanation/guarantees.md)."""
        self.refusals: dict[str, list[tuple[MemberId, Fault]]] = {}
        """For calls that were refused somewhere: by whom, and why."""
        self.losses: dict[str, list[Candidate]] = {}
        """Whose loss each call has seen, in order; a node whose links come and go may be there more than once."""
        self.routes: dict[str, dict[MemberId, None]] = {}
        """For calls that a relay would not pass on: by whom they are not sent any more."""
        self.earlier_refusals: dict[str, Fault] = {}
        """For calls that wait: the last refusal before that."""
        self.versions: dict[str, str] = {}
        """For calls whose node was lost: the version that alone may run them again."""

    def dispatched(self, name: str, candidate: Candidate) -> None:
        """A call goes to a member."""
        if not candidate.idempotent:
            self.possibly_started[name] = None
        self.tries[name] = self.tries.get(name, 0) + 1

    def not_started(self, name: str) -> None:
        """Whoever had the call says that its body did not start."""
        self.possibly_started.pop(name, None)

    def unsent(self, name: str) -> None:
        """The message with a call never left: it counts as not handed out."""
        self.possibly_started.pop(name, None)
        self.tries[name] -= 1

    def route_refused(self, name: str, relay: MemberId) -> None:
        """A relay will not pass the call on. That says nothing of the member that the call is for."""
        self.routes.setdefault(name, {})[relay] = None

    def refused(self, name: str, member: MemberId, fault: Fault) -> None:
        """A member will not have the call: it goes elsewhere from now on."""
        self.refusals.setdefault(name, []).append((member, fault))

    def lost(self, name: str, candidate: Candidate, *, failovers: int) -> bool:
        """The member that had the call is gone. Returns whether it may run again: idempotent, and lost with at most
        `failovers` nodes.

        A node that is lost again, as its links come and go, counts once. If so, then as the same version alone.
        """
        self.losses.setdefault(name, []).append(candidate)
        nodes = self.lost_nodes(name)
        if not candidate.idempotent or len(nodes) > failovers:
            return False
        self.versions[name] = candidate.version
        return True

    def lost_nodes(self, name: str) -> list[Candidate]:
        """The nodes that were lost with a call, each once."""
        return list({candidate.member: candidate for candidate in self.losses.get(name, ())}.values())

    def clear_refusals(self, name: str) -> None:
        """Time will pass before the call is placed: whoever refused it may have room again by then."""
        self.routes.pop(name, None)
        refusals = self.refusals.pop(name, None)
        if refusals:
            self.earlier_refusals[name] = refusals[-1][1]

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
