"""The report of a failing run: it explains the request that a watcher complains about."""

from __future__ import annotations

import re

from mpreg_proto.client import Reply
from mpreg_transports.testing.runs.failures import failure
from mpreg_transports.testing.runs.replay import Case, run_case
from mpreg_transports.testing.runs.scenarios import case
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.hosts import World
from mpreg_transports.testing.simulation.watchers import Violation, Watcher


class ThirdReply(Watcher):
    """A watcher that complains about the third reply."""

    def __init__(self) -> None:
        self.replies = 0

    def replied(self, call: SimCall, reply: Reply) -> None:
        self.replies += 1
        if self.replies == 3:
            raise Violation(9, f"the third reply, to request {call.number} of {call.client}")


def report(drawn: Case) -> tuple[str, SimCall]:
    ran = run_case(drawn, watchers=lambda: [ThirdReply()])
    text = str(ran.error)
    (call,) = [one for one in ran.sim.calls if f"request {one.number} of {one.client}" in text]
    return failure(drawn, ran), call


def test_story_of_the_request_of_a_violation() -> None:
    text, call = report(case("steady", seed=1, nodes=3, seconds=20))
    assert text.startswith("seed 1, steady: invariant 9: the third reply")
    _, _, rest = text.partition("The request that was handled last:\n")
    story = rest.partition("\n\n")[0].splitlines()
    names = {name for line in story for name in re.findall(r" '(\S+)' is ", line)}
    assert names == {one.name for one in call.request.calls}
    assert re.match(r"  request \d+ at n\d$", story[0])
    assert all(re.match(r" {4}\d+\.\d{6} s  '| {20}\S", line) for line in story[1:])
    for name in names:
        steps = [line.partition(f"'{name}' ")[2] for line in story if f"'{name}' " in line]
        assert steps[0] == "is ready" and re.match(r"was sent to n\d#\w{4}( \(not idempotent\))?: \w+", steps[1])
    assert any(" is done at n" in line for line in story)
    others = text.partition("What became of other calls:\n")[2]
    assert not set(story) & set(others.splitlines())
    assert "What became of other calls:" in text and "How each node sees it:" in text


class LastLink(Watcher):
    """A watcher that complains at the end about two nodes."""

    def settled(self, sim: World) -> None:
        raise Violation(13, "these two never met again", pair=("n0", "n1"))


def test_report_of_two_nodes_shows_their_last_link_the_faults_and_the_kinds_of_messages() -> None:
    drawn = case("churn", seed=1, nodes=3, seconds=20)
    text = failure(drawn, run_case(drawn, watchers=lambda: [LastLink()]))
    links = text.partition("The last link of these two:\n")[2].partition("\n\n")[0].splitlines()
    assert [re.match(r"  (n\d) (?:has a|had its last) link to (n\d)", line).groups() for line in links] == [  # type: ignore[union-attr]
        ("n0", "n1"),
        ("n1", "n0"),
    ]
    faults = text.partition("The last 10 faults:\n")[2].partition("\n\n")[0].splitlines()
    assert 2 <= len(faults) <= 10 and all(re.match(r" +\d+\.\d{6} s  >>> \w+", line) for line in faults)
    assert not any(" asks " in line for line in faults)
    events = text.partition("What happened last:\n")[2].partition("\n\n")[0]
    assert re.search(r"gets \d+ bytes from n\d \((?:Ping|Pong|Gossip|Digest)\)", events)


def test_request_has_one_name_in_events_and_stories() -> None:
    text, call = report(case("steady", seed=1, nodes=3, seconds=20))
    story = text.partition("The request that was handled last:\n")[2].splitlines()[0]
    node = call.client.partition("@")[2]
    assert story == f"  request {call.label} at {node}"
