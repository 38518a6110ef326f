from __future__ import annotations

from itertools import count

from pi_daemon.server.admission import (
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_OF_ADDRESS,
    Admission,
    Peer,
)


def peers(num: int, *addresses: str) -> list[Peer]:
    """So many of each address, in turns."""
    ports = count(1)
    return [(address, next(ports)) for _ in range(num) for address in addresses]


def test_an_address_gets_its_share_and_one_more_when_one_is_closed() -> None:
    admission = Admission()
    *some, last, late = peers(MAX_CONNECTIONS_OF_ADDRESS + 2, "10.0.0.1")
    told = [admission.enter(peer, lambda: None) for peer in [*some, last]]
    assert told == [True] * MAX_CONNECTIONS_OF_ADDRESS + [False]
    assert admission.enter(("10.0.0.2", 1), lambda: None)
    admission.leave(some[0])
    assert [admission.enter(peer, lambda: None) for peer in (last, late)] == [True, False]


def test_where_all_are_too_many_the_oldest_that_is_no_link_gives_way() -> None:
    admission = Admission()
    turned_out: list[Peer] = []

    def enter(peer: Peer) -> bool:
        return admission.enter(peer, lambda: turned_out.append(peer))

    num_addresses = MAX_CONNECTIONS // MAX_CONNECTIONS_OF_ADDRESS
    addresses = [f"10.0.0.{number}" for number in range(num_addresses)]
    links = peers(MAX_CONNECTIONS_OF_ADDRESS, *addresses)
    assert all(map(enter, links))
    link, oldest, gone, next_one, *others = links
    admission.keep(link)
    admission.leave(gone)
    assert all(enter(("10.0.1.1", port)) for port in range(3))
    assert turned_out == [oldest, next_one]
    for peer in others:
        admission.keep(peer)
    for port in range(3):
        admission.keep(("10.0.1.1", port))
    assert not enter(("10.0.1.2", 1))
