from __future__ import annotations

from pi_daemon.server.admission import MAX_CONNECTIONS, MAX_CONNECTIONS_OF_ADDRESS, Admission


def test_an_address_gets_its_share_and_one_more_when_one_is_closed() -> None:
    admission = Admission()
    told = [admission.enter("10.0.0.1") for _ in range(MAX_CONNECTIONS_OF_ADDRESS + 1)]
    assert told == [True] * MAX_CONNECTIONS_OF_ADDRESS + [False]
    assert admission.enter("10.0.0.2")
    admission.leave("10.0.0.1")
    assert [admission.enter("10.0.0.1") for _ in range(2)] == [True, False]


def test_many_addresses_together_get_no_more_than_all() -> None:
    admission = Admission()
    assert sum(admission.enter(f"10.0.0.{n}") for n in range(MAX_CONNECTIONS + 9)) == (
        MAX_CONNECTIONS
    )
