from __future__ import annotations

from pathlib import Path

import pytest

from pi_daemon.telemetry import celsius, measure, throttled


def command_that_prints(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\necho '{text}'\n")
    path.chmod(0o755)
    return str(path)


async def test_a_measurement_holds_what_the_machine_tells(tmp_path: Path) -> None:
    found = await measure(tmp_path)
    assert 0 < found.memory_bytes < found.memory_total_bytes
    assert found.disk_free_bytes > 0
    assert found.load is not None
    assert found.load >= 0


def test_the_temperature_is_the_first_thermal_zones(tmp_path: Path) -> None:
    zone = tmp_path / "thermal_zone0"
    zone.mkdir()
    (zone / "temp").write_text("48312\n")
    assert celsius(tmp_path) == 48.312


@pytest.mark.parametrize(
    ("text", "bits"),
    [("throttled=0x50005", 0x50005), ("throttled=0x0", 0), ("error", None), ("", None)],
)
async def test_throttling_is_read_from_the_firmware(
    tmp_path: Path, text: str, bits: int | None
) -> None:
    assert await throttled(command_that_prints(tmp_path / "vcgencmd", text)) == bits


async def test_a_device_without_the_command_tells_nothing(tmp_path: Path) -> None:
    assert await throttled(str(tmp_path / "vcgencmd")) is None
