"""The form of a new run: what to train, how long, on which workers; a trial; the equal command line."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Collapsible, Input, Select, Static

from fedconsole.coordinator.plan import Plan
from fedconsole.equivalent import command_line, to_toml
from fedconsole.errors import FedconsoleError
from fedconsole.fleet.inventory import DeviceRecord, presence
from fedconsole.headless import sentence
from fedconsole.tui.desk import Desk, Line
from fedconsole.tui.formats import size
from fedconsole.tui.frame import Command, ConsoleScreen
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import Copy, Echo, Notice, OpenRun
from fedconsole.tui.run_form import DATASETS, FIELDS, FormState, estimate
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.device_rows import PRESENCE_ROLES
from fedconsole.tui.widgets.form_field import FormField
from fedconsole.tui.widgets.line_table import LineTable
from fedconsole.tui.widgets.table_cells import Column
from pi_daemon.protocol.text import clean

_MAX_COMMAND: Final = 4_000
_WORKER_COLUMNS: Final = (
    Column("name", "worker", 12, flexible=True),
    Column("state", "state", 10),
    Column("data", "examples", 9, right=True),
    Column("note", "note", 12, priority=1, flexible=True),
)


class _Workers:
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

    def cells(self, key: str) -> Mapping[str, Text]:
        record = self._desk.inventory.records.get(key)
        if record is None:
            return {"name": Text(clean(key, 80)), "state": Text("-"), "note": self._note(key, None)}
        state = presence(record, self._desk.clock())
        look = style(self._screen, PRESENCE_ROLES[state])
        return {
            "name": Text(record.name),
            "state": Text(f"{glyph(state.value)} {_(state.value)}", look),
            "data": Text(str(_num_examples(record, self._screen.dataset) or "-")),
            "note": self._note(key, record),
        }

    def _note(self, key: str, record: DeviceRecord | None) -> Text:
        trial = self._screen.trials.get(key)
        if trial is not None and trial.get("ok"):
            seconds = trial.get("batch_seconds") or 0.0
            memory = size(trial.get("memory_bytes") or 0)
            words = _("{s} s a batch, {memory}", s=f"{seconds:.3f}", memory=memory)
            return Text(f"{glyph('done')} {words}", style(self._screen, "good"))
        if trial is not None:
            reason = clean(trial.get("reason") or "", 200)
            return Text(f"{glyph('failed')} {reason}", style(self._screen, "bad"))
        wanted = self._screen.dataset
        if record and record.hello and wanted and _num_examples(record, wanted) is None:
            return Text(_("has no {dataset}", dataset=wanted), style(self._screen, "warning"))
        return Text("")

    def sort_value(self, key: str, column: str) -> Any:
        record = self._desk.inventory.records.get(key)
        if column == "data":
            return _num_examples(record, self._screen.dataset) if record else None
        return record.name.lower() if record else key

    def fields(self, key: str) -> Mapping[str, str]:
        record = self._desk.inventory.records.get(key)
        return {"name": record.name if record else "", "address": key}


def _is_file(path: str) -> bool:
    return Path(path).expanduser().is_file()


def _num_examples(record: DeviceRecord, dataset: str | None) -> int | None:
    cards = [card for card in record.datasets if dataset in (None, card.name)]
    return sum(card.num_examples for card in cards) if cards else None


class NewRunScreen(ConsoleScreen):
    NAME = "new"
    AUTO_FOCUS = ""
    ABOUT = (
        "A run, set up. What is left empty has its default, which is shown dim. Choose workers on the "
        "right with Space, or simulate some on this machine. F5 tries a batch on each of them and says how "
        "long the run will take; F9 starts it. Below stands the command line that does the same."
    )
    BINDINGS: ClassVar = [
        key("f9,ctrl+r", "start", "Start", cli="fedconsole run"),
        key("f5", "check", "Check", cli="fedconsole run --dry-run"),
        key("ctrl+l", "last_run", "Last run's settings"),
        key("ctrl+y", "copy_command", "Copy the command"),
        key("f6", "write_file", "Write run.toml", cli="fedconsole run --config run.toml"),
    ]
    DEFAULT_CSS = """
    NewRunScreen #top { height: 1fr; }
    NewRunScreen #form { width: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    NewRunScreen #choose { width: 1fr; border-left: solid $panel; }
    NewRunScreen.-wide #choose { width: 2fr; }
    NewRunScreen Collapsible { border: none; padding: 0; background: $background; }
    NewRunScreen #foot { height: auto; border-top: solid $panel; }
    NewRunScreen #missing { height: auto; max-height: 3; padding: 0 1; }
    NewRunScreen #command { height: auto; max-height: 3; padding: 0 1; color: $text-muted; }
    NewRunScreen #buttons { height: 1; padding: 0 1; }
    NewRunScreen #buttons Button { margin-right: 2; }
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.state = FormState()
        self.trials: dict[str, Mapping[str, Any]] = {}
        """What the last check found, by address."""
        self._plan: Plan | None = None
        self._problems: Mapping[str, str] = {}
        self._verdict = ""
        """Of the last check or start; gone with the next change."""
        self._is_busy = False
        self._is_filling = False

    @property
    def dataset(self) -> str | None:
        """The dataset that the task wants; None: not known here."""
        return DATASETS.get(self.state.texts.get("task", "").strip() or "digits")

    def body(self) -> ComposeResult:
        with Horizontal(id="top"):
            with VerticalScroll(id="form", can_focus=False):
                for spec in FIELDS:
                    if not spec.is_more:
                        yield FormField(spec)
                with Collapsible(title=_("more"), id="more"):
                    for spec in FIELDS:
                        if spec.is_more:
                            yield FormField(spec)
            with Vertical(id="choose"):
                yield LineTable(
                    _WORKER_COLUMNS,
                    _Workers(self.desk, self),
                    empty="No devices found yet.\nSimulate some, or add one on the Fleet screen.",
                    sort="name",
                    marks=True,
                    filters=False,
                    id="workers",
                )
        with Vertical(id="foot"):
            yield Static(id="missing", markup=False)
            yield Static(id="command", markup=False)
            with Horizontal(id="buttons"):
                yield Button(_("Start"), id="start", compact=True, variant="primary")
                yield Button(_("Check"), id="check", compact=True)

    def on_mount(self) -> None:
        self._fill_from_settings()
        # Only a field that has its place on the screen gets the terminal's caret, which input methods need.
        self.call_after_refresh(self.query_one("#task", Input).focus)

    def _fill_from_settings(self) -> None:
        self.state.fill_values(self.desk.configured())
        self._show_state()

    # Between the state and the fields

    def fill(self, plan: Plan) -> None:
        """Show the plan of another run."""
        self.state.fill(plan)
        self._show_state()
        self.post_message(Notice(_("the form shows that run's plan")))

    def choose_workers(self, addresses: Iterable[str]) -> None:
        self.state.workers = tuple(addresses)
        self._show_state()

    def _show_state(self) -> None:
        self._is_filling = True
        for field in self.query(FormField):
            field.set_text(clean(self.state.texts.get(field.spec.name, "")))
        self.query_one("#workers", LineTable).set_marked(frozenset(self.state.workers))
        self._is_filling = False
        self._changed()

    @on(Input.Changed)
    @on(Select.Changed)
    def _typed(self) -> None:
        if not self._is_filling:
            for field in self.query(FormField):
                self.state.texts[field.spec.name] = field.text
            self._changed()

    @on(LineTable.Marked)
    def _marked(self, event: LineTable.Marked) -> None:
        self.state.workers = tuple(sorted(event.keys))
        self._changed()

    @on(LineTable.Selected)
    def _mark_selected(self, event: LineTable.Selected) -> None:
        event.table.set_marked(event.table.marked ^ {event.key})

    def _changed(self) -> None:
        self.trials.clear()
        self._verdict = ""
        self._plan, problems = self.state.read()
        if self._plan and self._plan.task.endswith(".py") and not _is_file(self._plan.task):
            self._plan, problems = None, {"task": _("there is no such file here")}
        for field in self.query(FormField):
            field.show_problem(problems.get(field.spec.name))
        self._problems = problems
        self._show_foot()
        self.refresh_bindings()

    def _show_foot(self) -> None:
        problems = self._problems
        missing = self.query_one("#missing", Static)
        if problems:
            wrong = [_(problems[""])] if "" in problems else []
            labels = {spec.name: _(spec.label) for spec in FIELDS}
            named = [labels[name] for name in problems if name]
            if named:
                wrong.append(_("to be mended: {fields}", fields=", ".join(named)))
            missing.update(Text(f"{glyph('failed')} {'; '.join(wrong)}", style(self, "warning")))
        else:
            missing.update(
                clean(self._verdict) or Text(_("ready to start: F9"), style(self, "good"))
            )
        self.query_one("#command", Static).update(clean(self.copy_text() or "", _MAX_COMMAND))
        for name in ("start", "check"):
            self.query_one(f"#{name}", Button).disabled = self._plan is None or self._is_busy

    def copy_text(self) -> str | None:
        """The equal command line."""
        if self._plan is None:
            return None
        return command_line(self._plan, self.desk.configured())

    def flush(self) -> None:
        self.query_one("#workers", LineTable).flush()

    def back(self) -> bool:
        """Leave the fields: then the letters are keys again."""
        table = self.query_one("#workers", LineTable)
        if table.has_focus:
            return False
        table.focus()
        return True

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("start", "check", "copy_command", "write_file"):
            return True if self._plan is not None and not self._is_busy else None
        return True

    def commands(self) -> Iterable[Command]:
        yield Command(_("Clear the form"), "", self._clear)

    def _clear(self) -> None:
        self.state = FormState()
        self._fill_from_settings()

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        if self._plan is not None and not self._is_busy:
            self._start(self._plan)

    @on(Button.Pressed, "#check")
    def action_check(self) -> None:
        if self._plan is not None and not self._is_busy:
            self._check(self._plan)

    @on(Input.Submitted)
    def _start_from_field(self) -> None:
        self.action_start()

    @work(exclusive=True)
    async def _start(self, plan: Plan) -> None:
        command = self.copy_text() or ""
        self._set_busy(_("starting the engine…"))
        try:
            run = await self.desk.start(plan)
        except FedconsoleError as error:
            self._set_idle(str(error))
            self.post_message(Notice(str(error), "error"))
            return
        self._set_idle("")
        self.post_message(Echo(command))
        self.post_message(OpenRun(run))

    @work(exclusive=True)
    async def _check(self, plan: Plan) -> None:
        self._set_busy(_("trying a batch on every worker…"))
        self.trials.clear()
        end: Line = {}
        try:
            async for line in self.desk.preflight(plan):
                if line["type"] == "preflight":
                    self.trials[line["address"]] = line
                elif line["type"] == "run.finished":
                    end = line
        except FedconsoleError as error:
            self._set_idle(str(error))
            return
        self._set_idle(self._verdict_on(plan, end))

    def _verdict_on(self, plan: Plan, end: Line) -> str:
        ready = sum(bool(trial["ok"]) for trial in self.trials.values())
        if end.get("exit_code"):
            return sentence(end)
        duration = estimate(plan, self.trials.values())
        words = _("{n} workers are ready", n=ready)
        if duration is None:
            return words
        about = _("training will take about {time}; sending and tests come on top", time=duration)
        return f"{glyph('done')} {words}; {about}"

    def _set_busy(self, words: str) -> None:
        self._is_busy = True
        self._verdict = words
        self._show_foot()

    def _set_idle(self, verdict: str) -> None:
        self._is_busy = False
        self._verdict = verdict
        self._show_foot()
        self.refresh_bindings()

    def action_last_run(self) -> None:
        plan = self.desk.last_plan()
        if plan is None:
            self.post_message(Notice(_("there is no run yet"), "warning"))
        else:
            self.fill(plan)

    def action_copy_command(self) -> None:
        if text := self.copy_text():
            self.post_message(Copy(text))

    def action_write_file(self) -> None:
        if self._plan is None:
            return
        path = Path("run.toml")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(to_toml(self._plan, self.desk.configured()))
        except FileExistsError:
            words = _("{path} exists; move it away first", path=path.absolute())
            self.post_message(Notice(words, "error"))
        except OSError as error:
            self.post_message(Notice(f"{path.absolute()}: {error.strerror}", "error"))
        else:
            self.post_message(Echo(f"fedconsole run --config {path.absolute()}"))
