"""Of two members without a link one cannot dial the other, as behind a firewall.

It asks over others to be dialled. If that fails as well, its calls are relayed, and for 30 s they wait for no link.
"""

from mpreg_proto.effects import Send
from mpreg_proto.ids import Address
from mpreg_proto.limits import MILLISECOND
from mpreg_proto.wire.messages import DialBack
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.hosts import Host

SIZE = 24


def mine() -> str:
    return "mine"


class Walled(Simulation):
    """Dials through a wall are refused; open links, and those dialled from the other side, are not."""

    def __init__(self) -> None:
        self.walls: dict[tuple[str, str], None] = {}
        self.asked: list[tuple[str, DialBack]] = []
        """The nodes that sent or relayed a `DialBack`, in order."""
        self.dials: list[tuple[str, str]] = []
        functions = {f"n{number}": {f"of-n{number}": Fn(mine)} for number in range(SIZE)}
        nodes = {name: Spec(functions=offered) for name, offered in functions.items()}
        super().__init__(seed=11, nodes=nodes, watchers=invariants(), objects=True)
        self._dial, self._send = self._engine.dial, self._engine.send
        self._engine.dial = self._walled_dial  # type: ignore[method-assign]
        self._engine.send = self._noted_send  # type: ignore[method-assign]

    def _walled_dial(self, host: Host, where: Address) -> None:
        self.dials.append((host.name, where.removeprefix("sim://")))
        if self.dials[-1] in self.walls:
            engine = self._engine
            engine.push(engine.now + 2 * MILLISECOND, engine._dial_failed, host, host.life, where)
        else:
            self._dial(host, where)

    def _noted_send(self, host: Host, effect: Send) -> None:
        if isinstance(effect.message, DialBack):
            self.asked.append((host.name, effect.message))
        self._send(host, effect)


def strangers() -> tuple[Walled, str, str]:
    """Return a cluster after it closed the links that only joining needed, and two of its nodes that have no link."""
    sim = Walled()
    sim.run(70)
    front = sim.nodes["n5"].node
    back = next(host for host in sim.nodes.values() if host.node.me not in (front.me, *front.cluster.links))
    assert back.node.me not in front.cluster.rings.neighbours
    return sim, "n5", back.name


def linked(sim: Simulation, one: str, other: str) -> bool:
    return sim.nodes[other].node.me in sim.nodes[one].node.cluster.links


def test_undialable_member_dials_back_when_asked_over_others() -> None:
    sim, front, back = strangers()
    sim.walls[front, back] = None
    sim.dials.clear()
    call = sim.call(front, f"of-{back}")
    assert sim.run(until=call.done, limit=1)
    assert call.value == "mine" and call.ended is not None
    assert (call.ended - call.sent) / 1e9 < 0.1, "no second was waited for"
    assert linked(sim, front, back) and linked(sim, back, front)
    assert (front, back) in sim.dials and (back, front) in sim.dials
    member, asked = sim.nodes[front].node.me, sim.nodes[back].node.me
    (first, begun), (relay, passed_on) = sim.asked
    assert (first, begun) == (front, DialBack(asked, member))
    assert passed_on == DialBack(asked, member, (sim.nodes[relay].node.me,))
    assert linked(sim, front, relay) and linked(sim, relay, back)
    sim.settle()


def test_unreachable_member_is_relayed_to_at_once_for_30_s() -> None:
    sim, front, back = strangers()
    sim.walls[front, back] = sim.walls[back, front] = None

    def took() -> float:
        call = sim.call(front, f"of-{back}")
        assert sim.run(until=call.done, limit=3)
        assert call.value == "mine" and call.ended is not None
        return (call.ended - call.sent) / 1e9

    assert 1.0 <= took() < 1.2, "a second is given to a link"
    sim.run(28)
    assert took() < 0.1, "no link is waited for"
    assert not linked(sim, front, back)
    sim.run(3)
    assert 1.0 <= took() < 1.2, "half a minute is over, and it is tried again"
    sim.walls.clear()
    sim.run(31)
    assert took() < 0.1
    assert linked(sim, front, back)
    sim.settle()
