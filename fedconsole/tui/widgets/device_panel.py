"""All that one device tells."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from fedconsole.fleet.inventory import DeviceRecord, presence, status_now
from fedconsole.tui.desk import Desk
from fedconsole.tui.formats import age, number, size
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.device_rows import PRESENCE_ROLES, memory_share
from fedconsole.tui.widgets.health import clock_words, heat, throttle_flags
from fedconsole.tui.widgets.sparkline import sparkline
from pi_daemon.protocol.text import clean
from pi_daemon.trust.keys import in_groups

_TREND_CELLS: Final = 40
_NAME_CELLS: Final = 14


class DevicePanel(VerticalScroll):
    DEFAULT_CSS = """
    DevicePanel { border-left: solid $panel; padding: 0 1; scrollbar-size-vertical: 1; }
    """

    def __init__(self, desk: Desk, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._desk = desk
        self._drawn: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static(markup=False)

    def show(self, key: str | None) -> None:
        """Draw a device, if there is anything new about it."""
        record = self._desk.inventory.records.get(key or "")
        now = self._desk.clock()
        if record is None:
            self.query_one(Static).update(_("no device is chosen"))
            self._drawn = ()
            return
        drawn = (key, record.version, int(now))
        if drawn != self._drawn:
            self._drawn = drawn
            self.query_one(Static).update(self._text(record, now))

    def _text(self, record: DeviceRecord, now: float) -> Text:
        text = Text()
        state = presence(record, now)
        text.append(f"{record.name}\n", "bold")
        text.append(f"{glyph(state.value)} {_(state.value)}", style(self, PRESENCE_ROLES[state]))
        if record.heard_at is not None:
            text.append(_(", heard {ago} ago", ago=age(now - record.heard_at)))
        if record.reason:
            text.append(f"\n{record.reason}", style(self, "bad" if record.impostor else "warning"))
        text.append("\n\n")
        for name, value in (*_identity(record, self._desk.own_id, now), *_health(record)):
            text.append(f"{_(name):{_NAME_CELLS}}", style(self, "dim"))
            text.append(f"{value}\n")
        self._append_trends(text, record)
        self._append_cards(text, record)
        self._append_log(text, record, now)
        # To be copied into a shell, and the device gave itself this name.
        handle = quote(self._desk.inventory.handle(record))
        text.append(f"\nfedconsole devices show {handle}\n", style(self, "dim"))
        text.append(f"fedconsole devices ping {handle}", style(self, "dim"))
        return text

    def _append_trends(self, text: Text, record: DeviceRecord) -> None:
        series = {
            "°C": [health.celsius for health in record.history],
            "RAM": [health.memory_share for health in record.history],
            "RTT": [health.ping_s for health in record.history],
        }
        text.append(f"\n{_('last 10 minutes')}\n", style(self, "title"))
        for name, values in series.items():
            known = [value for value in values if value is not None]
            trend = sparkline(values, _TREND_CELLS) if known else "-"
            ends = f" {number(min(known), 2)}..{number(max(known), 2)}" if known else ""
            text.append(f"{name:4} {trend}{ends}\n")

    def _append_cards(self, text: Text, record: DeviceRecord) -> None:
        text.append(f"\n{_('datasets')}\n", style(self, "title"))
        if not record.datasets:
            text.append(f"{_('no dataset')}\n")
        for card in record.datasets:
            shape = "x".join(map(str, card.sample_shape)) or "scalar"
            text.append(f"{clean(card.name, 64)}: ", "bold")
            text.append(
                _(
                    "{n} examples, {classes} classes, {shape} {dtype}, content {hash}",
                    n=card.num_examples,
                    classes=card.num_classes or "-",
                    shape=shape,
                    dtype=clean(card.sample_dtype, 20),
                    hash=card.sha256[:12],
                )
            )
            if card.label_counts:
                counts = sparkline(card.label_counts, len(card.label_counts))
                text.append(f"\n  {counts}  {' '.join(map(str, card.label_counts[:20]))}")
            text.append("\n")

    def _append_log(self, text: Text, record: DeviceRecord, now: float) -> None:
        if record.log:
            text.append(f"\n{_('log')}\n", style(self, "title"))
        for at, level, words in record.log:
            text.append(f"{age(now - at):>4} {level:7} {words}\n")


def _identity(record: DeviceRecord, own_id: str, now: float) -> Iterator[tuple[str, str]]:
    yield "address", clean(record.address, 80)
    yield "found by", record.device.source.value
    if record.device.is_paired:
        yield "paired key", in_groups(record.device.device_id or "")
        if record.impostor is not None:
            yield "key found", in_groups(record.impostor.found_id) or "?"
        yield "own key", in_groups(own_id) or "-"
    else:
        yield "device id", record.device_id or "-"
    if record.hello is None:
        return
    yield "version", clean(record.hello.build, 64)
    if able := record.hello.capabilities:
        yield "torch", clean(able.torch or "-", 40)
        yield "machine", f"{clean(able.machine, 40)}, {able.num_cpus} cores"
        yield "memory", size(able.memory_bytes)
        yield "largest model", size(able.max_model_bytes)
        yield "takes data", size(able.max_data_bytes) if able.max_data_bytes else _("no")
    if status := status_now(record, now):
        yield "doing", _(status.state.value)
        yield "run", clean(status.run or "-", 64)
        yield "held by", clean(status.holder or "-", 64)


def _health(record: DeviceRecord) -> Iterator[tuple[str, str]]:
    if health := record.telemetry:
        yield "temperature", heat(health.celsius)[0]
        yield "throttling", throttle_flags(health.throttled)
        yield "RAM in use", memory_share(record)
        yield "swap in use", "-" if health.swap_bytes is None else size(health.swap_bytes)
        yield "disk free", size(health.disk_free_bytes)
        yield "clock", clock_words(record.clock_ahead_s)
        yield "load", "-" if health.load is None else f"{health.load:.2f}"
    if record.ping_s is not None:
        yield "round trip", f"{1000 * record.ping_s:.1f} ms"
