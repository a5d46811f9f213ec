"""The queue of a function at a worker: the order of clients and of the calls of each."""

from mpreg_proto.limits import MILLISECOND
from mpreg_proto.requests.fair_queue import Client, FairQueue

ONE: Client = (b"a", 1)
TWO: Client = (b"a", 2)
FAR: Client = (b"b", 1)
"""Another coordinator's client with the number of `ONE`."""


def waiting(*clients: Client) -> FairQueue[int]:
    """Return a queue with an item of each of these clients, numbered from 1."""
    queue: FairQueue[int] = FairQueue()
    for number, client in enumerate(clients, 1):
        queue.add(number, client)
    return queue


def served(queue: FairQueue[int], clients: dict[int, Client], span: int = MILLISECOND) -> list[int]:
    """Take all items in turn; return them in order."""
    order = []
    while queue:
        item = queue.first()
        queue.take_turn(clients[item], span)
        queue.remove(item, clients[item])
        order.append(item)
    return order


def numbered(*clients: Client) -> tuple[FairQueue[int], dict[int, Client]]:
    return waiting(*clients), dict(enumerate(clients, 1))


def test_clients_take_turns_and_each_keeps_its_order() -> None:
    queue, clients = numbered(ONE, ONE, ONE, TWO, FAR, TWO)
    assert (len(queue), sorted(queue)) == (6, [1, 2, 3, 4, 5, 6])
    assert served(queue, clients) == [1, 4, 5, 2, 6, 3]
    assert (len(queue), list(queue)) == (0, [])


def test_client_that_has_used_less_time_is_first() -> None:
    queue, clients = numbered(ONE, TWO, TWO, TWO)
    queue.charge(ONE, 3 * MILLISECOND)
    queue.charge(FAR, 3 * MILLISECOND)  # which is not there
    assert served(queue, clients) == [2, 3, 4, 1]


def test_newcomer_waits_for_one_turn_and_has_no_advantage() -> None:
    queue, clients = numbered(*[ONE] * 20)
    for _ in range(10):
        item = queue.first()
        queue.take_turn(ONE, MILLISECOND)
        queue.remove(item, ONE)
    for number in range(30, 36):
        queue.add(number, TWO)
        clients[number] = TWO
    order = served(queue, clients)
    assert order.index(30) <= 1 and order[:8].count(30) == 1
    assert sum(number >= 30 for number in order[:8]) in (3, 4, 5), order


def test_used_time_of_clients_that_are_gone_is_bounded() -> None:
    queue = waiting(ONE)
    for number in range(1_000):
        queue.add(number + 2, (b"c", number))
        queue.remove(number + 2, (b"c", number))
    assert len(queue._used) < 100 and queue.first() == 1
