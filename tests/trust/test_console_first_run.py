"""From nothing to a trained model, as people type it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pi_daemon.trust.join import parse_join
from tests.support.daemons import daemon
from tests.support.places import redirect

DATA = ("--dataset", "digits=sample", "--shard", "1/8")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


async def fedconsole(*words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fedconsole.cli.entry", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def trained_on(address: str) -> dict[str, Any]:
    """The last line of a run of two rounds."""
    words = ("run", "--headless", "--json", "--worker", address, "--rounds", "2")
    exit_code, out, err = await fedconsole(*words)
    last: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert (exit_code, last["outcome"]) == (0, "completed"), err
    return last


@pytest.mark.timeout(500)
async def test_two_commands_make_a_device_that_trains_to_the_same_model_as_without_tls(
    place: Path,
) -> None:
    (place / "new").mkdir()
    async with daemon(place / "new", "--pair", *DATA) as alice:
        exit_code, out, err = await fedconsole("pair", alice.join)
        assert exit_code == 0, err
        address = parse_join(alice.join).address
        assert out.startswith(f"paired with alice at {address} as operator")
        with_tls = await trained_on(address)
    (place / "plain").mkdir()
    async with daemon(place / "plain", *DATA) as alice:
        plain = await trained_on(f"127.0.0.1:{alice.port}")
    assert with_tls["model_id"] == plain["model_id"]
    assert with_tls["rounds"] == 2


@pytest.mark.timeout(500)
async def test_a_run_with_a_device_that_is_not_paired_ends_with_its_code(place: Path) -> None:
    (place / "new").mkdir()
    async with daemon(place / "new", "--pair", *DATA) as alice:
        address = parse_join(alice.join).address
        if address.startswith("127."):
            pytest.skip("this machine has no address beyond loopback")
        for option in ((), ("--dry-run",)):
            words = ("run", "--headless", "--worker", address, *option)
            exit_code, _, err = await fedconsole(*words)
            assert exit_code == 4, err
            assert f"the device at {address} is not paired with this console" in err
        exit_code, _, err = await fedconsole("deal", "sample", "--worker", address)
        assert exit_code == 4
        assert "is not paired" in err
        assert "turned away" not in "".join(alice.lines)
