"""The devices of the fleet as rows to choose a run's workers from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from fedconsole.fleet.inventory import DeviceRecord, Presence, presence
from fedconsole.health import THROTTLED_NOW, is_clock_wrong, is_disk_low
from fedconsole.tui.desk import Desk
from fedconsole.tui.formats import size
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.device_rows import PRESENCE_ROLES
from fedconsole.tui.widgets.health import clock_words, heat, throttle_flags
from fedconsole.tui.widgets.table_cells import Column
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from fedconsole.tui.screens.new_run import NewRunScreen

WORKER_COLUMNS: Final = (
    Column("name", "worker", 12, flexible=True),
    Column("state", "state", 10),
    Column("data", "examples", 9, right=True),
    Column("note", "note", 12, priority=1, flexible=True),
)


class WorkerChoice:
    """The devices of the fleet as rows to choose from."""

    def __init__(self, desk: Desk, screen: NewRunScreen) -> None:
        self._desk = desk
        self._screen = screen

    def keys(self) -> Sequence[str]:
        known = self._desk.inventory.records
        # Chosen ones that are not in the fleet must stay in sight.
        return [*known, *(a for a in self._screen.state.workers if a not in known)]

    def version(self, key: str) -> Hashable:
        record = self._desk.inventory.records.get(key)
        trial = self._screen.trials.get(key)
        state = presence(record, self._desk.clock()) if record else None
        return record.version if record else 0, state, self._screen.dataset, id(trial)

    def absent(self) -> list[str]:
        """Names of the chosen ones that do not answer now."""
        records, now = self._desk.inventory.records, self._desk.clock()
        chosen = {key: records.get(key) for key in self._screen.state.workers}
        return [
            clean(record.name if record else key, 64)
            for key, record in chosen.items()
            if record is None or presence(record, now) not in (Presence.ONLINE, Presence.STALE)
        ]

    def lack_data(self) -> bool:
        """Whether all chosen ones are known to be without the dataset that the task wants."""
        chosen = map(self._desk.inventory.records.get, self._screen.state.workers)
        return all(record is not None and self._lacks_data(record) for record in chosen)

    def _lacks_data(self, record: DeviceRecord) -> bool:
        wanted = self._screen.dataset
        return bool(record.hello and wanted) and num_examples(record, wanted) is None

    def cells(self, key: str) -> Mapping[str, Text]:
        record = self._desk.inventory.records.get(key)
        if record is None:
            missing = style(self._screen, "warning")
            words = Text(f"{glyph('offline')} {_('not found')}", missing)
            return {"name": Text(clean(key, 80)), "state": words, "note": self._note(key, None)}
        state = presence(record, self._desk.clock())
        look = style(self._screen, PRESENCE_ROLES[state])
        return {
            "name": Text(record.name),
            "state": Text(f"{glyph(state.value)} {_(state.value)}", look),
            "data": Text(str(num_examples(record, self._screen.dataset) or "-")),
            "note": self._note(key, record),
        }

    def _note(self, key: str, record: DeviceRecord | None) -> Text:
        trial = self._screen.trials.get(key)
        if trial is not None and trial.get("ok"):
            seconds = trial.get("batch_seconds") or 0.0
            memory = size(trial.get("memory_bytes") or 0)
            words = _("{s} s a batch, {memory}", s=f"{seconds:.3f}", memory=memory)
            text = Text(f"{glyph('done')} {words}", style(self._screen, "good"))
            if worries := "; ".join(trial.get("worries") or ()):
                look = style(self._screen, "warning")
                text.append(f"  {glyph('warning')} {clean(worries, 200)}", look)
            return text
        if trial is not None:
            reason = clean(trial.get("reason") or "", 200)
            return Text(f"{glyph('failed')} {reason}", style(self._screen, "bad"))
        if record and self._lacks_data(record):
            words = _("has no {dataset}", dataset=self._screen.dataset)
            return Text(words, style(self._screen, "warning"))
        return Text("; ".join(self._warnings(record)), style(self._screen, "warning"))

    def _warnings(self, record: DeviceRecord | None) -> list[str]:
        """What stands against choosing it now."""
        if record is None or presence(record, self._desk.clock()) is Presence.NEW:
            return []
        words = [clean(record.reason, 200)] if record.reason else []
        if (health := record.telemetry) is not None:
            temperature, role = heat(health.celsius)
            number, _blank, word = temperature.partition(" ")
            words += [f"{number} °C {word}"] if role else []
            flags = throttle_flags(health.throttled & THROTTLED_NOW if health.throttled else None)
            words += [flags] if flags != "-" else []
            if is_disk_low(health.disk_free_bytes):
                words.append(_("disk {free}", free=size(health.disk_free_bytes)))
            if is_clock_wrong(record.clock_ahead_s):
                words.append(_("clock {off}", off=clock_words(record.clock_ahead_s)))
        return words

    def sort_value(self, key: str, column: str) -> Any:
        record = self._desk.inventory.records.get(key)
        if column == "data":
            return num_examples(record, self._screen.dataset) if record else None
        return record.name.lower() if record else key

    def fields(self, key: str) -> Mapping[str, str]:
        record = self._desk.inventory.records.get(key)
        if record is None:
            return {"name": clean(key, 80), "address": key}
        state = presence(record, self._desk.clock()).value
        return {"name": record.name, "address": record.address, "state": state}


def num_examples(record: DeviceRecord, dataset: str | None) -> int | None:
    cards = [card for card in record.datasets if dataset in (None, card.name)]
    return sum(card.num_examples for card in cards) if cards else None
