"""The devices as rows of a table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from rich.text import Text
from textual.widget import Widget

from fedconsole.fleet.inventory import DeviceRecord, Presence, presence, status_now
from fedconsole.tui.desk import Desk
from fedconsole.tui.formats import age, percent, size
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.health import heat, throttle_flags
from fedconsole.tui.widgets.sparkline import sparkline
from fedconsole.tui.widgets.table_cells import Column
from pi_daemon.protocol.text import clean

PRESENCE_ROLES: Final = {
    Presence.CHANGED: "bad",
    Presence.ONLINE: "good",
    Presence.STALE: "warning",
    Presence.FULL: "warning",
    Presence.OFFLINE: "dim",
    Presence.NEW: "accent",
    Presence.UNPAIRED: "accent",
}
_HISTOGRAM_CELLS: Final = 10

COLUMNS: Final = (
    Column("state", "state", 13),
    Column("name", "name", 12, flexible=True),
    Column("doing", "doing", 10, priority=1),
    Column("celsius", "°C", 7, right=True),
    Column("flags", "flags", 8, priority=2),
    Column("data", "data", 24, priority=1, flexible=True),
    Column("load", "load", 5, priority=4, right=True),
    Column("memory", "RAM", 11, priority=3, right=True),
    Column("ping", "RTT", 7, priority=4, right=True),
    Column("seen", "seen", 5, right=True),
    Column("address", "address", 21, priority=5),
    Column("run", "run", 14, priority=6),
    Column("disk", "disk", 6, priority=7, right=True),
    Column("model", "machine", 10, priority=8),
    Column("id", "id", 7, priority=9),
    Column("version", "version", 17, priority=10),
)


class DeviceRows:
    """A RowSource over the inventory."""

    def __init__(self, desk: Desk, widget: Widget) -> None:
        """`widget` is asked for the theme."""
        self._desk = desk
        self._widget = widget

    def keys(self) -> Sequence[str]:
        return list(self._desk.inventory.records)

    def version(self, key: str) -> Hashable:
        record = self._desk.inventory.records.get(key)
        if record is None:
            return None
        now = self._desk.clock()
        # Its age is drawn, too: it counts up without any news.
        silence = None if record.heard_at is None else int(now - record.heard_at)
        return record.version, presence(record, now), silence

    def cells(self, key: str) -> Mapping[str, Text]:
        record = self._desk.inventory.records.get(key)
        if record is None:
            # Paired or forgotten elsewhere: the table has not looked yet.
            return {}
        health = record.telemetry
        temperature, role = heat(health.celsius if health else None)
        able = record.hello.capabilities if record.hello else None
        status = status_now(record, self._desk.clock())
        return {
            "state": self._state(record),
            "name": Text(record.name, style(self._widget, "bad") if record.impostor else ""),
            "doing": Text(_(status.state.value) if status else "-"),
            "celsius": Text(temperature, style(self._widget, role) if role else ""),
            "flags": Text(throttle_flags(health.throttled if health else None)),
            "data": Text(_data(record)),
            "load": Text("-" if not health or health.load is None else f"{health.load:.1f}"),
            "memory": Text(
                f"{size(health.memory_bytes)}/{size(health.memory_total_bytes)}" if health else "-"
            ),
            "ping": Text("-" if record.ping_s is None else f"{1000 * record.ping_s:.0f} ms"),
            "seen": Text(self._seen(record)),
            "address": Text(record.address),
            "run": Text(clean(status.run or "-", 40) if status else "-"),
            "disk": Text(size(health.disk_free_bytes) if health else "-"),
            "model": Text(f"{clean(able.machine, 20)} {size(able.memory_bytes)}" if able else "-"),
            "id": Text((record.device_id or "-")[:7]),
            "version": Text(clean(record.hello.build, 40) if record.hello else "-"),
        }

    def sort_value(self, key: str, column: str) -> Any:
        record = self._desk.inventory.records[key]
        health = record.telemetry
        match column:
            case "name":
                return record.name.lower()
            case "state":
                return list(Presence).index(presence(record, self._desk.clock()))
            case "celsius":
                return health.celsius if health else None
            case "load":
                return health.load if health else None
            case "memory":
                return health.memory_bytes if health else None
            case "disk":
                return health.disk_free_bytes if health else None
            case "ping":
                return record.ping_s
            case "seen":
                return None if record.heard_at is None else self._desk.clock() - record.heard_at
            case "data":
                return sum(card.num_examples for card in record.datasets) or None
            case _:
                return self.cells(key)[column].plain

    def fields(self, key: str) -> Mapping[str, str]:
        record = self._desk.inventory.records[key]
        status = status_now(record, self._desk.clock())
        return {
            "name": record.name,
            "address": record.address,
            "id": record.device_id or "",
            "state": presence(record, self._desk.clock()).value,
            "doing": status.state.value if status else "",
            "data": _data(record),
            "run": clean((status.run if status else "") or ""),
        }

    def _state(self, record: DeviceRecord) -> Text:
        now = self._desk.clock()
        state = presence(record, now)
        text = f"{glyph(state.value)} {_(state.value)}"
        if state in (Presence.STALE, Presence.OFFLINE) and record.heard_at is not None:
            text += f" {age(now - record.heard_at)}"
        return Text(text, style(self._widget, PRESENCE_ROLES[state]))

    def _seen(self, record: DeviceRecord) -> str:
        return "-" if record.heard_at is None else age(self._desk.clock() - record.heard_at)


def _data(record: DeviceRecord) -> str:
    if not record.datasets:
        return "-" if record.hello is None else _("no dataset")
    parts = []
    for card in record.datasets:
        counts = sparkline(card.label_counts, _HISTOGRAM_CELLS) if card.label_counts else ""
        parts.append(f"{clean(card.name, 64)} {card.num_examples} {counts}".rstrip())
    return ", ".join(parts)


def memory_share(record: DeviceRecord) -> str:
    health = record.telemetry
    if health is None or not health.memory_total_bytes:
        return "-"
    return percent(min(1.0, health.memory_bytes / health.memory_total_bytes))
