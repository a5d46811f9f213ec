"""What two nodes hold of members, compared: the digest one side gives, and where the other is ahead or behind.

`AntiEntropy` asks; nothing here changes `Members`. A digest holds cells without their cards, and none of the RETIRED:
who speaks of these is told apart (`AntiEntropy.correct_retired`).
"""

from __future__ import annotations

from collections.abc import Iterable

from mpreg_proto.cluster.members import LAST_INCARNATION, Member, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim

NO_CARD = b"-"
"""In a digest: this member's card is not known here. It cannot be read as a card."""


def digest(members: Members) -> tuple[Claim, ...]:
    """All cells without their cards; where the card is not known here, that is said in its place."""
    return tuple(
        [
            Claim(
                current.id,
                current.incarnation,
                int(current.standing),
                b"" if current.card_incarnation == current.incarnation else NO_CARD,
            )
            for current in members.all()
        ]
    )


def older(members: Members, theirs: Iterable[Claim]) -> list[Claim]:
    """Where a peer's digest is ahead: each such cell as it is held here, with incarnation -1 if it is not."""
    rows: list[Claim] = []
    for claim in theirs:
        member = MemberId(claim.member)
        current = members.get(member)
        if claim.incarnation > LAST_INCARNATION:
            continue
        if current is None:
            if not members.retired(member) and claim.standing != Standing.RETIRED:
                rows.append(Claim(member, -1, 0))
        elif claim.card != NO_CARD and current.card_incarnation != current.incarnation:
            rows.append(Claim(member, -1, 0))
        elif current.key < (claim.incarnation, claim.standing):
            rows.append(Claim(member, current.incarnation, int(current.standing)))
    return rows


def newer(members: Members, theirs: Iterable[Claim], *, beyond: Iterable[Member] | None = None) -> list[Claim]:
    """What is known here beyond a peer's digest: the cells that are higher here, and those that are not in it.

    The latter only among `beyond`, if that is given.
    """
    rest = {current.id: current for current in (members.all() if beyond is None else beyond)}
    found: list[Claim] = []
    for claim in theirs:
        member = MemberId(claim.member)
        rest.pop(member, None)
        current = members.get(member)
        if current is None:
            if members.retired(member):
                found.append(Claim(member, 0, int(Standing.RETIRED)))
        elif current.key > (claim.incarnation, claim.standing) or (
            claim.card == NO_CARD and current.card_incarnation == current.incarnation
        ):
            found.append(current.claim())
    return [*(current.claim() for current in rest.values()), *found]
