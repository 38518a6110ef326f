from __future__ import annotations

from collections import Counter

from fedconsole.coordinator.sampling import sample_cohort

MEMBERS = ("alice", "bob", "charlie", "dave", "erin")


def test_the_cohort_does_not_depend_on_the_order_of_the_members() -> None:
    assert sample_cohort(1, 7, MEMBERS, 2) == sample_cohort(1, 7, reversed(MEMBERS), 2)


def test_the_cohort_is_the_same_on_every_machine() -> None:
    cohorts = [sample_cohort(1, number, MEMBERS, 2) for number in (1, 2, 3)]
    assert cohorts == [("charlie", "erin"), ("alice", "erin"), ("alice", "erin")]


def test_without_a_size_every_member_is_chosen() -> None:
    assert sample_cohort(1, 1, reversed(MEMBERS), None) == MEMBERS


def test_a_cohort_is_never_larger_than_the_members() -> None:
    assert sample_cohort(1, 1, ("bob",), 3) == ("bob",)


def test_each_member_is_chosen_about_equally_often() -> None:
    chosen = Counter(
        worker for number in range(1000) for worker in sample_cohort(1, number, MEMBERS, 2)
    )
    assert all(350 < chosen[worker] < 450 for worker in MEMBERS)


def test_a_lost_member_changes_one_place_of_the_cohort() -> None:
    before = sample_cohort(1, 1, MEMBERS, 3)
    lost = before[0]
    after = sample_cohort(1, 1, [worker for worker in MEMBERS if worker != lost], 3)
    assert set(before) - set(after) == {lost}
