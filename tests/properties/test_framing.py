"""Any split of a stream gives the same messages."""

from hypothesis import given
from hypothesis import strategies as st

from mpreg_proto.wire.framing import FrameError, FrameReader, prefix

bodies_ = st.lists(st.one_of(st.binary(max_size=12), st.integers(4000, 5000).map(lambda size: b"%d" % size * 1500)))
kinds = st.sampled_from([bytes, bytearray, memoryview])


@given(bodies=bodies_, data=st.data(), garbage=st.sampled_from([b"", b"\x05", prefix(50_000), b"GET / HTTP"]))
def test_any_split_gives_the_same_messages(bodies: list[bytes], data: st.DataObject, garbage: bytes) -> None:
    stream = b"".join(prefix(len(body)) + body for body in bodies) + garbage
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = FrameReader(10_000)
    found: list[bytes | memoryview] = []
    fault = None
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer = bytearray(stream[start:end])
        kind = data.draw(kinds)
        try:
            found += reader.feed(kind(buffer))
        except FrameError as error:
            found += error.bodies
            fault = error
            break
        if kind is not bytes:
            buffer[:] = b"\xee" * len(buffer)
    assert [bytes(body) for body in found] == bodies
    assert (fault is not None) is bool(garbage)
    assert reader.buffered == 0


@given(st.lists(st.binary(max_size=40)), st.integers(0, 1 << 25))
def test_any_bytes_raise_only_a_frame_error(pieces: list[bytes], limit: int) -> None:
    reader = FrameReader(limit)
    came = 0
    for piece in pieces:
        came += len(piece)
        try:
            came -= sum(4 + len(body) for body in reader.feed(piece))
        except FrameError as error:
            assert error.code in (1000, 1014)
            return
        assert reader.buffered == came
