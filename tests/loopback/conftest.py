"""For tests over raw links: what takes seconds is done before any is open, as one that is silent ends."""

from __future__ import annotations

import pytest

from tests.support.rounds import tiny_model


@pytest.fixture(scope="session", autouse=True)
def _capturing_has_been_imported() -> None:
    tiny_model()
