"""The path of one request through the core does not grow (`python -m tests.hops`)."""

from tests.hops import ways

BYTES_IN = (57, 18, 38)
OUTCOME = (39, 15, 28)
"""Counts of functions, files and changes of file: upper bounds; fewer is better. One of each is the guard."""


def test_path_of_a_request_served_by_one_node() -> None:
    received, finished = ways("a")
    assert received.calls[1] == ("node.py", "Node.receive")
    assert ("requests/worker.py", "Worker._start") in received.calls
    assert finished.calls[1] == ("node.py", "Node.finished")
    assert ("links.py", "Links.send") in finished.calls
    assert all(now <= then for now, then in zip(received.counts, BYTES_IN, strict=True)), received.counts
    assert all(now <= then for now, then in zip(finished.counts, OUTCOME, strict=True)), finished.counts


def test_path_of_a_request_over_two_nodes() -> None:
    assert [path.title for path in ways("a", "b")] == ["a: bytes in", "b: bytes in", "b: outcome", "a: bytes in"]
