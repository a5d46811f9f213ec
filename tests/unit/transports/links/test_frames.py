"""Frames of WebSocket messages: fragments of long ones, heads of each length, and masks."""

from collections.abc import Callable, Iterable, Iterator

import pytest
from wsproto import ConnectionType, events
from wsproto.connection import Connection

from mpreg_transports.links.base import Buffer
from mpreg_transports.links.frames import BINARY, CONTINUATION, FRAGMENT, TEXT, WHOLE, masked_frames, plain_frames

FINAL = 0x80


@pytest.mark.parametrize("size", [WHOLE + 1, WHOLE + FRAGMENT - 1, WHOLE + FRAGMENT, WHOLE + FRAGMENT + 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_of_a_long_message(size: int, opcode: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    frames = list(plain_frames([(opcode, payload[:size])]))
    assert b"".join(bytes(part) for _, part in frames) == payload[:size]
    assert [head[0] for head, _ in frames] == [opcode, *[CONTINUATION] * (len(frames) - 2), FINAL | CONTINUATION]
    assert {len(part) for _, part in frames[:-1]} == {FRAGMENT} and 0 < len(frames[-1][1]) <= FRAGMENT


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, FRAGMENT + 1, WHOLE])
def test_message_of_one_frame(size: int) -> None:
    payload = b"x" * size
    ((head, part),) = plain_frames([(TEXT, payload)])
    assert part is payload, "not copied"
    assert head[0] == FINAL | TEXT
    if size < 126:
        assert head[1:] == bytes((size,))
    elif size < 1 << 16:
        assert head[1:] == b"\x7e" + size.to_bytes(2, "big")
    else:
        assert head[1:] == b"\x7f" + size.to_bytes(8, "big")


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65_535, 65_536])
def test_masked_frame(size: int) -> None:
    payload = bytes(range(256)) * 257
    ((head, masked),) = masked_frames([(BINARY, payload[:size])])
    key = bytes(head[-4:])
    length = len(head) - 4
    assert head[0] == FINAL | BINARY and head[1] & 0x80 and length == (2 if size < 126 else 4 if size < 65_536 else 10)
    assert bytes(byte ^ key[place % 4] for place, byte in enumerate(bytes(masked))) == payload[:size]


def test_each_masked_frame_has_its_own_key() -> None:
    heads = [bytes(head) for head, _ in masked_frames([(TEXT, b"a")] * 20)]
    assert len({head[-4:] for head in heads}) > 15


def test_messages_in_order() -> None:
    frames = list(plain_frames([(TEXT, b"one"), (BINARY, b"two")]))
    assert [(head[0], bytes(part)) for head, part in frames] == [(FINAL | TEXT, b"one"), (FINAL | BINARY, b"two")]


# -- read by wsproto --------------------------------------------------------------------------------------------------

EDGES = (0, 1, 125, 126, 127, 0xFFFF, 0x10000, 0x10001, WHOLE, WHOLE + 1, WHOLE + FRAGMENT, WHOLE + FRAGMENT + 1)

Writer = Callable[[Iterable[tuple[int, Buffer]]], Iterator[tuple[Buffer, Buffer]]]


@pytest.mark.parametrize("length", EDGES)
@pytest.mark.parametrize(
    ("write", "reads"), [(plain_frames, ConnectionType.CLIENT), (masked_frames, ConnectionType.SERVER)]
)
def test_messages_of_the_lengths_where_frames_change(length: int, write: Writer, reads: ConnectionType) -> None:
    """Two messages, so that the first one's end is known from the second one's beginning."""
    sent = [(BINARY, bytes(range(256)) * (length // 256) + b"x" * (length % 256)), (TEXT, b"y" * length)]
    reader = Connection(reads)
    for head, payload in write(sent):
        assert len(payload) <= WHOLE
        reader.receive_data(bytes(head) + bytes(payload))
    got: list[bytes] = [b""]
    for event in reader.events():
        assert isinstance(event, (events.BytesMessage, events.TextMessage))
        got[-1] += event.data.encode() if isinstance(event.data, str) else bytes(event.data)
        if event.message_finished:
            got.append(b"")
    assert got == [*(payload for _, payload in sent), b""]
