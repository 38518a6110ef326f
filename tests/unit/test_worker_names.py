from __future__ import annotations

from fedconsole.engine.worker import unique_names


def test_names_that_differ_stay_as_they_are() -> None:
    assert unique_names({"AAAA1": "alice", "BBBB2": "bob"}) == {"AAAA1": "alice", "BBBB2": "bob"}


def test_devices_of_one_name_all_get_a_part_of_their_id_whoever_came_first() -> None:
    devices = {"AAAA1": "pi", "BBBB2": "pi", "CCCC3": "bob"}
    expected = {"AAAA1": "pi-aaaa", "BBBB2": "pi-bbbb", "CCCC3": "bob"}
    assert unique_names(devices) == expected
    assert unique_names(dict(reversed(devices.items()))) == expected


def test_a_name_that_is_taken_is_not_given_again() -> None:
    assert unique_names({"AAAA1": "alice"}, taken=["alice"]) == {"AAAA1": "alice-aaaa"}


def test_a_name_that_could_harm_a_terminal_is_cleaned_and_never_empty() -> None:
    assert unique_names({"AAAA1": "\x1b[2Jpi", "BBBB2": "\x00"}) == {
        "AAAA1": "[2Jpi",
        "BBBB2": "worker",
    }
