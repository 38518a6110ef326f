"""A real engine on a device whose owner allows only so much: its operator is told which bound, and how much."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedconsole.errors import ExitCode
from tests.support.daemons import daemon
from tests.support.places import redirect
from tests.support.runs import FinishedRun, carry, digits_plan


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


async def run_on(folder: Path, bounds: str, **changes: object) -> FinishedRun:
    """A run on one device with this configuration."""
    config = folder / "config.toml"
    config.write_text(f'[datasets]\ndigits = "sample"\n{bounds}\n')
    async with daemon(folder, "--config", str(config)) as alice:
        workers = (f"127.0.0.1:{alice.port}",)
        # Long, for a machine that is busy: what is refused ends the run at once.
        plan = digits_plan(
            virtual=0,
            workers=workers,
            quorum_timeout_s=600.0,
            **changes,
        )
        return await carry(plan)


@pytest.mark.parametrize(
    ("limit", "found", "num_rounds"),
    [
        ("max_run_rounds = 2", "this run has begun 2 rounds here", 2),
        ("max_run_sent = '1K'", "an update of .* bytes after the 0 of before", 0),
        ("max_run_received = '40K'", ".* bytes after the .* of before", None),
        pytest.param("max_round_batches = 1", ".* batches in a round", 0, marks=pytest.mark.slow),
        ("max_run_seconds = 1", "this run has computed here for .* s", 0),
    ],
)
async def test_a_run_that_has_had_what_the_owner_allows_ends_with_the_reason(
    tmp_path: Path, limit: str, found: str, num_rounds: int | None
) -> None:
    # One round would last for minutes where its time is what ends it.
    changes = {"federate_after_n_batches": 1_000_000} if "seconds" in limit else {}
    run = await run_on(tmp_path, f"[limits]\n{limit}", rounds=4, **changes)
    assert (run.last["outcome"], run.exit_code) == ("failed", ExitCode.QUORUM_LOST)
    if num_rounds is not None:
        assert run.last["rounds"] == num_rounds
    name, most = limit.split(" = ")
    num = {"'1K'": "1024", "'40K'": "40960"}.get(most, most)
    why = f"{found}; the device's owner allows {num} \\({name}\\)"
    texts = [line["text"] for line in run.of_type("warning")]
    assert re.fullmatch(f"out of this run: {why}", texts[-1])
    assert not [text for text in texts if "again" in text]
    [lost] = run.of_type("worker.lost")
    assert re.fullmatch(why, lost["reason"])
    assert re.fullmatch(
        f"too few workers are left: 0, 1 needed; out of this run: alice: {why}", run.last["reason"]
    )


async def test_a_device_that_does_not_share_its_data_says_so_before_the_run(tmp_path: Path) -> None:
    run = await run_on(tmp_path, "[share]\ndigits = {min_examples = 1438}")
    assert run.last["outcome"] == "failed"
    reason = (
        "training would have 1437 different examples; the device's owner asks for at least 1438 "
    )
    assert reason + "(min_examples)" in run.last["reason"]
