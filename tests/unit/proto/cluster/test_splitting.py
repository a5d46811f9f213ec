"""Split membership messages: the two halves together have the content of the whole."""

from mpreg_proto.cluster.anti_entropy import SCOPE_SIZE, bucket, within
from mpreg_proto.cluster.splitting import halves
from mpreg_proto.ids import MemberId
from mpreg_proto.wire.messages import Claim, Delta, Digest, Fetch, Gossip, Head, Ping, Pull

MEMBERS = [MemberId(number.to_bytes(16, "big")) for number in range(40)]
CLAIMS = tuple(Claim(member, 1, 0) for member in MEMBERS)
HEADS = tuple(Head(member, 2, bytes(16)) for member in MEMBERS)


def test_halves_of_gossip_keep_its_order_and_one_answer_flag() -> None:
    delta = Delta(HEADS[0], 0, ())
    first, second = halves(Gossip(CLAIMS[:3], (delta,), HEADS[1:3], answer=True))
    assert first == Gossip(CLAIMS[:3]) and second == Gossip((), (delta,), HEADS[1:3], answer=True)
    assert halves(Gossip(CLAIMS[:1])) == []


def test_halves_of_a_digest_cover_each_bucket_once() -> None:
    parts = halves(Digest(CLAIMS, HEADS))
    scopes = []
    for part in parts:
        assert isinstance(part, Digest) and len(part.scope) == SCOPE_SIZE
        assert all(within(part.scope, bucket(MemberId(one.member))) for one in (*part.claims, *part.heads))
        scopes.append(int.from_bytes(part.scope, "big"))
    assert scopes[0] & scopes[1] == 0 and scopes[0] | scopes[1] == (1 << 256) - 1
    claims = [one for part in parts if isinstance(part, Digest) for one in part.claims]
    assert sorted(one.member for one in claims) == MEMBERS


def test_digest_of_one_bucket_is_not_split() -> None:
    parts: list[object] = [Digest(CLAIMS, HEADS)]
    for _ in range(8):
        parts = [half for part in parts for half in halves(part)]  # type: ignore[arg-type]
    assert len(parts) == 256 and all(halves(part) == [] for part in parts)  # type: ignore[arg-type]


def test_halves_of_a_pull() -> None:
    first, second = halves(Pull(CLAIMS[:2], HEADS[:1]))
    assert first == Pull(CLAIMS[:1], ()) and second == Pull(CLAIMS[1:2], HEADS[:1])
    assert halves(Pull((), HEADS[:1])) == []


def test_messages_with_one_item_are_not_split() -> None:
    assert halves(Fetch(MEMBERS[0], 1)) == [] and halves(Ping(1)) == []
