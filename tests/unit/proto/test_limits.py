"""The default limits: as documented, consistent, and each replaceable alone."""

import msgspec
import pytest

from mpreg_proto.limits import DEFAULT, HOUR, MILLISECOND, SECOND, Limits
from mpreg_proto.wire.framing import LONGEST_FRAME

MIB = 1024 * 1024

# docs/reference/limits.md, docs/explanation/guarantees.md and membership.md.
PROMISED = {
    "message": 16 * MIB,
    "expansion": 64 * MIB,
    "expansion_elements": 1_000_000,
    "inputs": 512 * MIB,
    "values": 1024 * MIB,
    "calls": 10_000,
    "name_length": 256,
    "requests": 8_192,
    "calls_per_worker": 256,
    "default_timeout": 60 * SECOND,
    "longest_timeout": 24 * HOUR,
    "handshake": 5 * SECOND,
    "ping_every": 10 * SECOND,
    "gone_after": 20 * SECOND,
    "goodbye": 10 * SECOND,
    "drain_grace": 10 * SECOND,
    "link_wait": SECOND,
    "failovers": 2,
    "dial_first": 200 * MILLISECOND,
    "dials": 8,
    "members": 16_384,
    "dead_members": 4_096,
    "retired_members": 100_000,
    "functions": 10_000,
    "resources": 10_000,
    "changes": 256,
}


@pytest.mark.parametrize("name", PROMISED)
def test_default_limits_as_documented(name: str) -> None:
    assert getattr(DEFAULT, name) == PROMISED[name]


def test_default_limits_are_positive_integers() -> None:
    assert all(type(value) is int and value > 0 for value in msgspec.structs.asdict(DEFAULT).values())


def test_consistency_of_the_default_limits() -> None:
    assert DEFAULT.message <= DEFAULT.node_message <= LONGEST_FRAME
    assert DEFAULT.ping_every < DEFAULT.gone_after <= 3 * DEFAULT.ping_every
    assert DEFAULT.default_timeout <= DEFAULT.longest_timeout
    assert DEFAULT.dial_first <= DEFAULT.dial_longest


def test_replaced_limit() -> None:
    changed = Limits(calls=100)
    assert msgspec.structs.replace(changed, calls=DEFAULT.calls) == DEFAULT != changed
    with pytest.raises(AttributeError):
        changed.calls = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(100)  # type: ignore[misc]


@pytest.mark.parametrize("name", ["default_timeout", "ping_every", "dial_first", "link_idle"])
@pytest.mark.parametrize("span", [1, 5, 999_999])
def test_span_under_a_millisecond(name: str, span: int) -> None:
    with pytest.raises(ValueError, match=rf"{name}={span} is a span of {span} nanoseconds; .* {name}={span} \* SECOND"):
        Limits(**{name: span})


@pytest.mark.parametrize("name", msgspec.structs.asdict(DEFAULT))
@pytest.mark.parametrize("value", [2.5, "5", None, True, -1, -SECOND])
def test_limit_that_is_no_positive_integer(name: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name}=.*: expected"):
        Limits(**{name: value})
    with pytest.raises((TypeError, ValueError), match=f"{name}=.*: expected"):
        msgspec.structs.replace(DEFAULT, **{name: value})


def test_seconds_as_a_fraction() -> None:
    with pytest.raises(TypeError, match=r"such as handshake=int\(2\.5 \* SECOND\)"):
        Limits(handshake=2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", msgspec.structs.asdict(DEFAULT))
def test_zero_as_a_limit(name: str) -> None:
    if name in ("failovers", "failover_pause", "drain_grace"):
        assert getattr(Limits(**{name: 0}), name) == 0
        return
    with pytest.raises(ValueError, match=f"{name}=0: expected 1 or more"):
        Limits(**{name: 0})
