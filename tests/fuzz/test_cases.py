"""The operators' fuzzer knows how each of them is called."""

from __future__ import annotations

from tests.fuzz.cases import ATEN, Maker
from tests.fuzz.operators import run


def test_the_first_cases_are_a_call_of_each_operator_that_runs() -> None:
    found = {operator: run(Maker(seed).case(), seed) for seed, operator in enumerate(ATEN)}
    failed = {operator: what for operator, what in found.items() if not what.startswith("ran")}
    assert failed == {}
