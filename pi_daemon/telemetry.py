"""Measures the device's health: None where the machine does not tell, never a guess."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import psutil

from pi_daemon.protocol.messages import Telemetry

THERMAL_ZONES = Path("/sys/class/thermal")
VCGENCMD_S = 2.0


async def measure(folder: Path) -> Telemetry:
    """Measure now; `folder` is on the disk whose free space counts."""
    memory = psutil.virtual_memory()
    return Telemetry(
        celsius=celsius(),
        throttled=await throttled(),
        memory_bytes=memory.total - memory.available,
        memory_total_bytes=memory.total,
        disk_free_bytes=shutil.disk_usage(folder).free,
        load=os.getloadavg()[0],
        swap_bytes=psutil.swap_memory().used,
        clock=time.time(),
    )


def celsius(zones: Path = THERMAL_ZONES) -> float | None:
    """The processor's temperature: the kernel's first thermal zone, as on a Raspberry Pi, or the
    hottest sensor that psutil knows."""
    try:
        return int((zones / "thermal_zone0" / "temp").read_text()) / 1000
    except (OSError, ValueError):
        pass
    found = [
        sensor.current
        for sensors in psutil.sensors_temperatures().values()
        for sensor in sensors
        if sensor.current
    ]
    return max(found, default=None)


async def throttled(command: str = "vcgencmd") -> int | None:
    """The bits of `vcgencmd get_throttled`; only a Raspberry Pi has it."""
    if shutil.which(command) is None:
        return None
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            "get_throttled",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(VCGENCMD_S):
            output, _ = await process.communicate()
        return int(output.decode().strip().removeprefix("throttled="), 16)
    except ValueError:
        return None
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
