"""Every device that was found: is it there, is it well, what does it have."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.widgets import Input

from fedconsole.errors import FedconsoleError, UsageError
from fedconsole.fleet.device import parse_address
from fedconsole.fleet.inventory import DeviceRecord, Hindrance, Presence
from fedconsole.tui.desk import Desk
from fedconsole.tui.frame import ConsoleScreen, Line
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import ChooseWorkers, Echo, Notice
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.device_panel import DevicePanel
from fedconsole.tui.widgets.device_rows import COLUMNS, PRESENCE_ROLES, DeviceRows
from fedconsole.tui.widgets.fault import Fault
from fedconsole.tui.widgets.filter_bar import FilterBar
from fedconsole.tui.widgets.line_table import LineTable
from pi_daemon.trust.keys import in_groups

_SELDOM = (Presence.CHANGED, Presence.UNPAIRED, Presence.FULL)
"""Counted where there is one."""
_LOOKING = "Looking for devices, here and on the network…"
_EMPTY = (
    "No devices yet; still looking.\n"
    "\n"
    "Try it out with devices on this machine:  fedconsole demo\n"
    "On a device:  pi-daemon --pair --dataset digits=sample\n"
    "Then here, with the line that it prints:  p"
)
_STOPPED = (
    "No devices: nobody looks for them any more.\n"
    "\n"
    "Pair one with  p\n"
    "What may be in the way:  fedconsole doctor"
)


class FleetScreen(ConsoleScreen):
    NAME = "fleet"
    ABOUT = (
        "Every device that is paired, and those that were found: by mDNS, in the configuration, or on "
        "this machine. One that is not paired is only a name. KEY CHANGED means that somebody else "
        "answers in the place of a paired device; nothing is sent there. Stale means that a linked device "
        "has been silent for more than 6 seconds; offline, that its link is gone. Mark devices and press "
        "n to train on them."
    )
    BINDINGS: ClassVar = [
        key("d", "details", "Details", cli="fedconsole devices show NAME"),
        key("n", "new_run", "New run with these", cli="fedconsole run WORKERS"),
        key("p", "pair", "Pair a device", cli="fedconsole pair STRING"),
        key("+", "add", "Add a device", cli="fedconsole devices show HOST:PORT"),
        key("delete", "forget", "Forget", cli="fedconsole devices forget NAME"),
    ]
    DEFAULT_CSS = """
    FleetScreen #panes { layout: vertical; height: 1fr; }
    FleetScreen #details { height: 1fr; display: none; border-top: solid $panel; border-left: none; }
    FleetScreen.-details #details { display: block; }
    FleetScreen.-wide #panes { layout: horizontal; }
    FleetScreen.-wide #details { width: 64; display: block; border-top: none; border-left: solid $panel; }
    FleetScreen #address { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._rows = DeviceRows(desk, self)

    def body(self) -> ComposeResult:
        yield Line(id="summary")
        yield Fault(id="hindrances")
        with Container(id="panes"):
            yield LineTable(
                COLUMNS, self._rows, empty=_LOOKING, sort="name", marks=True, id="devices"
            )
            yield DevicePanel(self.desk, id="details")
        yield FilterBar(id="filter")
        yield Input(placeholder="HOST:PORT", id="address")

    def on_mount(self) -> None:
        self._table.focus()

    @property
    def _table(self) -> LineTable:
        return self.query_one("#devices", LineTable)

    def flush(self) -> None:
        self.query_one("#summary", Line).show(self._summary())
        self._show_search()
        if gone := self._table.marked - self.desk.inventory.records.keys():
            self._table.set_marked(self._table.marked - gone)
        self._table.flush()
        self.query_one(FilterBar).set_count(self._table.shown, self._table.total)
        panel = self.query_one(DevicePanel)
        if panel.display:
            panel.show(self._table.current)

    def _summary(self) -> Text:
        counts = self.desk.inventory.counts(self.desk.clock())
        text = Text(" ", no_wrap=True)
        for presence, role in PRESENCE_ROLES.items():
            if presence in _SELDOM and not counts.get(presence):
                continue
            text.append(
                f"{glyph(presence.value)} {counts.get(presence, 0)} {_(presence.value)}  ",
                style(self, role),
            )
        if self._table.marked:
            text.append(_("{n} marked", n=len(self._table.marked)) + "  ")
        return text

    def _show_search(self) -> None:
        inventory = self.desk.inventory
        found = inventory.hindrances.items()
        words = [_(hindrance.value, why=why) for hindrance, why in found]
        has_stopped = Hindrance.STOPPED in inventory.hindrances
        changed = [
            _(
                "IDENTITY CHANGED: {name} at {address} has the key {found}…, not {known}…. Somebody may "
                "be in between: nothing was sent. Only if you know why: forget it (Del), and pair it anew",
                name=record.name,
                address=record.address,
                found=record.impostor.found_id[:7] or "?",
                known=record.impostor.known_id[:7],
            )
            for record in inventory.records.values()
            if record.impostor is not None
        ]
        is_warning = not (has_stopped or changed)
        self.query_one(Fault).say("\n".join(changed + words), is_warning=is_warning)
        is_looking = not inventory.is_searched
        self._table.set_empty(_STOPPED if has_stopped else _LOOKING if is_looking else _EMPTY)

    def show_device(self, key: str) -> None:
        """Put the cursor on a device and open its details."""
        self._table.move_to(key)
        self.add_class("-details")

    def action_details(self) -> None:
        self.toggle_class("-details")

    @on(LineTable.Selected)
    def _toggle_details(self) -> None:
        self.action_details()

    def action_new_run(self) -> None:
        self.post_message(ChooseWorkers(self._chosen()))

    def _chosen(self) -> list[str]:
        """The marked devices, or the one under the cursor."""
        marked = self._table.marked or {self._table.current}
        return sorted(key for key in self.desk.inventory.records if key in marked)

    def action_pair(self) -> None:
        self.run_worker(self._pair(), group="pair", exclusive=True)

    async def _pair(self) -> None:
        from fedconsole.tui.dialogs.pairing import PairingDialog

        name = await self.app.push_screen_wait(PairingDialog(self.desk))
        if name is not None:
            self.post_message(Notice(_("paired with {name}", name=name)))
            # What was pasted is a secret.
            self.post_message(Echo("fedconsole pair 'fp1:...'"))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "forget":
            return True if self._paired() is not None else None
        return True

    def why_not(self, action: str) -> str:
        return _("it is not paired") if action == "forget" else ""

    def _paired(self) -> DeviceRecord | None:
        """The device under the cursor, if it is paired."""
        if not self.is_mounted:
            return None
        record = self.desk.inventory.records.get(self._table.current or "")
        return record if record is not None and record.device.is_paired else None

    def action_forget(self) -> None:
        if (record := self._paired()) is not None:
            self.run_worker(self._forget(record), group="forget", exclusive=True)

    async def _forget(self, record: DeviceRecord) -> None:
        from fedconsole.tui.dialogs.choice import Choice

        device_id = record.device.device_id or ""
        answer = await self.app.push_screen_wait(
            Choice(
                _("Forget {name}?", name=record.name),
                _(
                    "Its key is {id}. Nothing is sent to it any more; to use it again, it must be paired "
                    "anew.",
                    id=in_groups(device_id),
                ),
                [("forget", _("Forget")), ("cancel", _("Cancel"))],
                default="cancel",
            )
        )
        if answer != "forget":
            return
        try:
            await self.desk.forget(device_id)
        except FedconsoleError as error:
            self.post_message(Notice(str(error), "error"))
            return
        self.post_message(Echo(f"fedconsole devices forget {quote(device_id[:7])}"))

    def action_add(self) -> None:
        field = self.query_one("#address", Input)
        field.display = True
        field.focus()

    @on(Input.Submitted, "#address")
    def _add(self, event: Input.Submitted) -> None:
        try:
            self.desk.add_device(event.value)
        except UsageError as error:
            # What was typed stays, to be mended.
            self.post_message(Notice(str(error), "error"))
            return
        self._close_address()
        self.post_message(Echo(f"fedconsole devices show {parse_address(event.value)}"))

    def _close_address(self) -> None:
        field = self.query_one("#address", Input)
        field.value = ""
        field.display = False
        self._table.focus()

    @on(FilterBar.Changed)
    def _filter(self, event: FilterBar.Changed) -> None:
        self._table.set_filter(event.filter)

    @on(FilterBar.Closed)
    def _leave_filter(self) -> None:
        self._table.focus()

    def back(self) -> bool:
        if self.query_one("#address").display:
            self._close_address()
            return True
        if self.query_one(FilterBar).clear():
            self._table.focus()
            return True
        if self.has_class("-details"):
            self.remove_class("-details")
            return True
        return False

    def names(self) -> Mapping[str, str]:
        inventory = self.desk.inventory
        workers = " ".join(f"--worker {quote(key)}" for key in self._chosen())
        names = {"WORKERS": workers} if workers else {}
        if (record := inventory.records.get(self._table.current or "")) is not None:
            names["NAME"] = quote(inventory.handle(record))
        return names

    def copy_text(self) -> str | None:
        return self._table.copy_text()
