"""Frames from a stream: whole and split frames, and prefixes that are refused before a body is buffered."""

import pytest

from mpreg_proto.wire.framing import LONGEST_FRAME, FrameError, FrameReader, prefix


def frame(body: bytes) -> bytes:
    return prefix(len(body)) + body


def test_prefix_of_four_bytes_big_endian() -> None:
    assert prefix(0x01020304 - 0x01000000) == b"\x00\x02\x03\x04"
    assert prefix(LONGEST_FRAME) == b"\x01\xff\xff\xff"
    with pytest.raises(FrameError) as caught:
        prefix(LONGEST_FRAME + 1)
    assert caught.value.code == 1014


def test_whole_frames_in_order() -> None:
    reader = FrameReader(100)
    assert reader.feed(frame(b"one") + frame(b"") + frame(b"three")) == [b"one", b"", b"three"]
    assert reader.buffered == 0
    assert reader.feed(b"") == []


def test_long_whole_frame_is_a_view_of_the_data() -> None:
    data = frame(bytes(10_000))
    (body,) = FrameReader(10_000).feed(data)
    assert isinstance(body, memoryview)
    assert body.obj is data
    assert body.readonly


@pytest.mark.parametrize("size", [3, 10_000])
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_input_buffer_can_be_reused(kind: type, size: int) -> None:
    reader = FrameReader(10_000)
    buffer = bytearray(frame(b"a" * size) + frame(b"b" * size)[:6])
    bodies = reader.feed(kind(buffer))
    buffer[:] = b"z" * len(buffer)
    bodies += reader.feed(b"b" * (size - 2))
    assert [bytes(body) for body in bodies] == [b"a" * size, b"b" * size]


@pytest.mark.parametrize("size", [0, 1, 5, 5000])
def test_frames_byte_by_byte(size: int) -> None:
    reader = FrameReader(5000)
    bodies = [body for each in frame(b"x" * size) + frame(b"next") for body in reader.feed(bytes([each]))]
    assert [bytes(body) for body in bodies] == [b"x" * size, b"next"]
    assert reader.buffered == 0


def test_long_body_in_pieces_is_read_only() -> None:
    reader = FrameReader(1 << 24)
    data = frame(bytes(range(256)) * 4096)
    bodies = [body for at in range(0, len(data), 65536) for body in reader.feed(data[at : at + 65536])]
    assert len(bodies) == 1
    assert bytes(bodies[0]) == data[4:]
    assert isinstance(bodies[0], memoryview)
    assert bodies[0].readonly


def test_buffered_counts_received_bytes() -> None:
    reader = FrameReader(1 << 24)
    assert reader.feed(prefix(1 << 24) + b"abc") == []
    assert reader.buffered == 7


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"GET / HTTP/1.1\r\n", 1000, "first byte 0x47 is not a frame"),
        (b"\x16", 1000, "first byte 0x16 is not a frame"),
        (b"\x02\x00\x00\x00", 1000, "first byte 0x02 is not a frame"),
        (prefix(101), 1014, "frame of 101 bytes is over the limit of 100"),
        (prefix(LONGEST_FRAME) + b"x", 1014, f"frame of {LONGEST_FRAME} bytes is over the limit of 100"),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 1000])
def test_refusal_at_the_prefix(data: bytes, code: int, text: str, piece: int) -> None:
    reader = FrameReader(100)
    bodies: list[bytes | memoryview] = []
    stream = frame(b"before") + frame(b"it") + data
    with pytest.raises(FrameError) as caught:
        for at in range(0, len(stream), piece):
            bodies += reader.feed(stream[at : at + piece])
    assert (caught.value.code, caught.value.text) == (code, text)
    assert bodies + caught.value.bodies == [b"before", b"it"]
    assert reader.buffered == 0
    with pytest.raises(FrameError) as again:
        reader.feed(frame(b"later"))
    assert (again.value.code, again.value.text, again.value.bodies) == (code, text, [])


def test_first_byte_is_checked_under_any_limit() -> None:
    with pytest.raises(FrameError, match="first byte 0x02"):
        FrameReader(1 << 30).feed(b"\x02\x00\x00\x00")


def test_changed_limit_between_frames() -> None:
    reader = FrameReader(4)
    assert reader.feed(frame(b"four")) == [b"four"]
    reader.limit = 5
    assert reader.feed(frame(b"fifth")[:6]) == []
    reader.limit = 1  # the started frame was accepted
    assert reader.feed(b"fth") == [b"fifth"[:2] + b"fth"]
    with pytest.raises(FrameError):
        reader.feed(frame(b"no"))
