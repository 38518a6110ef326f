"""Drives a whole console over a prepared desk: what test files of several screens share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
from rich.segment import Segment
from textual.pilot import Pilot
from textual.widgets import Input

from fedconsole.fleet.device import Device, Source
from fedconsole.tui import palette
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.desk import Line
from fedconsole.tui.frame import Command, offered_keys
from fedconsole.tui.opening import Opening
from pi_daemon.protocol.messages import Hello, Telemetry
from screenshots.__main__ import read, upto
from tests.support.desk import PreparedDesk
from tests.support.histories import settle, text_of

PAUSED, DEGRADED = read("paused"), read("degraded")
RUN: str = PAUSED[0]["run"]
BUSY = upto(PAUSED, "worker.update", round=7)
"""A recorded run of alice, bob and charlie in the midst of its seventh round."""
_MANY = 100


@asynccontextmanager
async def console(
    desk: PreparedDesk,
    opening: Opening | str = "fleet",
    size: tuple[int, int] = (120, 40),
    *,
    theme: str = "fed-dark",
) -> AsyncIterator[Pilot[None]]:
    """The console as it is after its start; `opening` may be the name of a mode."""
    opening = Opening(opening) if isinstance(opening, str) else opening
    app = FedconsoleApp(desk, opening, theme=theme, has_bell=False)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield pilot


async def resized(pilot: Pilot[None], width: int, height: int) -> None:
    """The terminal has this size, and each screen of the stack knows."""
    await pilot.resize_terminal(width, height)
    # Textual passes a size on by a timer of 8 ms, which a pause of the pilot does not wait for.
    await until(pilot, lambda: all(s.size == (width, height) for s in pilot.app.screen_stack))


async def until(pilot: Pilot[None], is_so: Callable[[], object]) -> None:
    """Let the console work until something is so.

    Raises:
        AssertionError: it does not become so; with what is on the screen.
    """
    for _ in range(_MANY):
        if is_so():
            return
        await settle(pilot)
    raise AssertionError(f"did not come about; on the screen:\n{text_of(pilot)}")


async def shows(pilot: Pilot[None], *texts: str) -> None:
    """Until all these stand on the screen."""
    await until(pilot, lambda: all(text in text_of(pilot) for text in texts))


async def type_in(pilot: Pilot[None], field: str, text: str) -> None:
    """Into a field of the form, in place of what is in it; its events are handled afterwards."""
    pilot.app.screen.query_one(f"#{field}", Input).value = text
    await settle(pilot)


def segments_of(pilot: Pilot[None]) -> list[Segment]:
    """All that is drawn, with its styles."""
    return [part for strip in pilot.app.screen._compositor.render_strips() for part in strip]


def offered(pilot: Pilot[None]) -> dict[str, str]:
    """Action -> key, of the keys that the foot may show because they work now."""
    return {
        offer.binding.action: offer.binding.key_display or ""
        for offer in offered_keys(pilot.app.screen)
        if offer.is_enabled and offer.binding.show
    }


def palette_of(pilot: Pilot[None]) -> list[Command]:
    """What the palette offers on the screen that is shown."""
    assert isinstance(pilot.app, FedconsoleApp)
    return list(palette.commands(pilot.app, pilot.app.screen))


# Devices

_HELLO: dict[str, Any] = {
    "proto": 1,
    "min_proto": 1,
    "id": "LBMO5HNVWUVEAFEODAGKRMD57ZN56JE75HR3HDBGOWEK6PPJUB4A",
    "name": "kitchen",
    "boot_id": "b5c23e0ce8ec4fd486c89f0796b380ad",
    "build": "pi-daemon 0.1.0",
    "role": None,
    "capabilities": {
        "torch": "2.14.1",
        "operators": "f4" * 32,
        "machine": "aarch64",
        "num_cpus": 4,
        "memory_bytes": 4 * 2**30,
        "max_model_bytes": 2**30,
        "max_data_bytes": 0,
    },
    "status": {"state": "idle", "highest_fence": 0},
    "datasets": [],
}
_TELEMETRY: dict[str, Any] = {
    "celsius": 48.0,
    "throttled": 0,
    "memory_bytes": 2**30,
    "memory_total_bytes": 4 * 2**30,
    "disk_free_bytes": 20 * 2**30,
    "load": 0.5,
}


def card(name: str = "digits", num_examples: int = 479, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "sample_shape": [8, 8],
        "sample_dtype": "uint8",
        "target_dtype": "int64",
        "num_examples": num_examples,
        "num_classes": 10,
        "sha256": "d5" * 32,
        "label_counts": None,
        **changes,
    }


def hello(name: str, **changes: Any) -> Hello:
    """As the wire would let it in; `changes` may hold values of `capabilities` and `status`, too."""
    values = _HELLO | {"name": name}
    for key in ("capabilities", "status"):
        values[key] = values[key] | changes.pop(key, {})
    return msgspec.convert(values | changes, Hello)


def telemetry(**changes: Any) -> Telemetry:
    return msgspec.convert(_TELEMETRY | changes, Telemetry)


def add_device(
    desk: PreparedDesk,
    name: str,
    address: str,
    *,
    source: Source = Source.MDNS,
    said: Hello | None = None,
    health: Telemetry | None = None,
) -> str:
    """One that answered just now; gives its key."""
    desk.inventory.found(Device(name, address, source))
    desk.inventory.linked(address, said or hello(name), desk.time_s)
    desk.inventory.told_telemetry(address, health or telemetry(), desk.time_s)
    return address


# Runs


def going(lines: list[Line], **fields: Any) -> PreparedDesk:
    """A desk on which a run goes on, at the moment of the last of its lines; `fields`: of the desk."""
    desk = PreparedDesk(wall=datetime.fromisoformat(lines[-1]["time"]), **fields)
    put_run(desk, lines)
    return desk


def put_run(desk: PreparedDesk, lines: list[Line]) -> None:
    run = lines[0]["run"]
    desk.journals[run] = list(lines)
    desk.running.add(run)


def after(lines: list[Line], kind: str, seconds: float = 1.0, **fields: Any) -> Line:
    """One more line of a run."""
    time = datetime.fromisoformat(lines[-1]["time"]) + timedelta(seconds=seconds)
    return {"time": time.isoformat(), "type": kind, "run": lines[0]["run"], **fields}
