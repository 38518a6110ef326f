"""The form of a new run: what to train, how long, on which workers; a trial; the equal command line.

Fields, the choice of workers, the foot and what is typed are modules of their own. What stays here is what a
change of one means for the others, and stays together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Collapsible, Input, Select

from fedconsole.coordinator.plan import Plan
from fedconsole.equivalent import command_line, to_toml
from fedconsole.errors import FedconsoleError
from fedconsole.sentences import sentence
from fedconsole.tui.desk import Desk, Line
from fedconsole.tui.frame import Command, ConsoleScreen
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _, retold
from fedconsole.tui.messages import Copy, Echo, Notice, OpenRun, Trouble
from fedconsole.tui.run_form import DATASETS, FIELDS, FormState, estimate
from fedconsole.tui.screens.worker_choice import WORKER_COLUMNS, WorkerChoice
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.filter_bar import FilterBar
from fedconsole.tui.widgets.form_field import FormField
from fedconsole.tui.widgets.line_table import LineTable
from fedconsole.tui.widgets.run_foot import RunFoot
from pi_daemon.protocol.text import clean

_NAMED: Final = 4
_FIRST_FRAME_S: Final = 0.1
"""Textual draws nothing in the first half of it, lest one see a screen that is not complete."""
_LOOKING: Final = "Looking for devices…\nOr simulate some workers."
_NO_DEVICES: Final = "No devices found yet.\nSimulate some, or add one on the Fleet screen."


def _is_file(path: str) -> bool:
    return Path(path).expanduser().is_file()


class NewRunScreen(ConsoleScreen):
    NAME = "new"
    AUTO_FOCUS = ""
    """Until Tab, a number changes the screen; in a field it would be typed."""
    ABOUT = (
        "A run, set up. What is left empty has its default, which is shown dim. Choose workers on the "
        "right with Space, or simulate some on this machine. F5 tries a batch on each of them and says how "
        "long the run will take; F9 starts it. Below stands the command line that does the same."
    )
    BINDINGS: ClassVar = [
        # At once, not when the field has had its turn: what is typed next goes into the next one.
        key("tab", "go_to_field(1)", "Fields", priority=True),
        key("shift+tab", "go_to_field(-1)", "Previous field", show=False, priority=True),
        key("f9,ctrl+r", "start", "Start", cli="fedconsole run PLAN"),
        key("f5", "check", "Check", cli="fedconsole run --dry-run PLAN"),
        key("ctrl+l", "last_run", "As last run"),
        key("ctrl+y", "copy_command", "Copy the command"),
        key("f6", "write_file", "Write run.toml", cli="fedconsole run --config run.toml"),
    ]
    DEFAULT_CSS = """
    NewRunScreen #top { height: 1fr; }
    NewRunScreen #form { width: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    NewRunScreen #choose { width: 1fr; border-left: solid $panel; }
    NewRunScreen.-wide #choose { width: 2fr; }
    NewRunScreen Collapsible { border: none; padding: 0; background: $background; }
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.state = FormState()
        self.trials: dict[str, Mapping[str, Any]] = {}
        """What a check of the plan in the form found, by address."""
        self._plan: Plan | None = None
        self._problems: Mapping[str, str] = {}
        self._verdict = ""
        """Of the last check or start; gone with the next change."""
        self._busy_words: Callable[[], str] | None = None
        """What goes on; None: nothing."""
        self._is_filling = False
        self._choice = WorkerChoice(desk, self)
        self._is_complete = asyncio.Event()
        self._absent: list[str] = []
        """Chosen ones that did not answer when the foot was drawn."""
        self._lacks_data = False
        """No chosen one had the dataset when the foot was drawn."""
        self._said = ""
        """Of what goes on, when the foot was drawn."""

    @property
    def dataset(self) -> str | None:
        """The dataset that the task wants; None: not known here."""
        return DATASETS.get(self.state.texts.get("task", "").strip() or "digits")

    def body(self) -> ComposeResult:
        with Horizontal(id="top"):
            with VerticalScroll(id="form", can_focus=False):
                yield FormField(FIELDS[0])
            with Vertical(id="choose"):
                yield LineTable(
                    WORKER_COLUMNS,
                    self._choice,
                    empty=_LOOKING,
                    sort="name",
                    marks=True,
                    id="workers",
                )
                yield FilterBar(id="filter")
        yield RunFoot(id="foot")

    def on_mount(self) -> None:
        self.retell()
        self._fill_from_settings()

    def _focus_first(self) -> None:
        # `focus()` would wait for its turn behind a key that is pressed meanwhile.
        self.set_focus(self.query_one("#task", Input))

    def on_screen_resume(self) -> None:
        self._complete()

    @work(group="read")
    async def _complete(self) -> None:
        """The other fields are half of what takes time here: the first frame does without them."""
        await asyncio.sleep(_FIRST_FRAME_S)
        if self.query("#more"):
            return
        fields = [FormField(spec) for spec in FIELDS[1:] if not spec.is_more]
        # Its fields come when it is unfolded.
        more = Collapsible(title=_("more"), id="more")
        await self.query_one("#form").mount_all([*fields, more])
        self._show_state()
        self._is_complete.set()

    def _fill_from_settings(self) -> None:
        self.state.fill_values(self.desk.configured())
        self._show_state()

    def retell(self) -> None:
        for more in self.query("#more").results(Collapsible):
            more.title = _("more")
        self._changed()

    @on(Collapsible.Expanded, "#more")
    async def _unfold(self, event: Collapsible.Expanded) -> None:
        if not event.collapsible.query(FormField):
            await event.collapsible.query_one(Collapsible.Contents).mount_all(
                FormField(spec) for spec in FIELDS if spec.is_more
            )
            self._show_state()

    # Between the state and the fields

    def _fields(self) -> list[FormField]:
        """Those that are there already."""
        return [field for field in self.query(FormField) if field.is_mounted]

    def fill(self, plan: Plan) -> None:
        """Show the plan of another run."""
        self.state.fill(plan)
        self._show_state()
        self.post_message(Notice(_("the form shows that run's plan")))

    def choose_workers(self, addresses: Iterable[str]) -> None:
        """What is left to say is typed: it begins in the first field."""
        self.state.workers = tuple(addresses)
        self._show_state()
        self._focus_first()

    def _show_state(self) -> None:
        self._is_filling = True
        for field in self._fields():
            field.set_text(clean(self.state.texts.get(field.spec.name, "")))
        self.query_one("#workers", LineTable).set_marked(frozenset(self.state.workers))
        self._is_filling = False
        self._changed()

    @on(Input.Changed)
    @on(Select.Changed)
    def _typed(self, event: Input.Changed | Select.Changed) -> None:
        if not self._is_filling:
            for field in self._fields():
                if field.spec.name == event.control.id:
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
        before = self._plan
        self._plan, problems = self.state.read()
        if self._plan is None or self._plan != before:
            self.trials = {}
            self._verdict = ""
        if self._plan and self._plan.task.endswith(".py") and not _is_file(self._plan.task):
            self._plan, problems = None, {"task": _("there is no such file here")}
        for field in self._fields():
            problem = problems.get(field.spec.name)
            field.show_problem(problem and retold(problem))
        self._problems = problems
        self._show_foot()

    def _show_foot(self) -> None:
        self._absent, self._lacks_data, self._said = self._foot_facts()
        command = self.copy_text() or ""
        possible = {name for name in ("start", "check") if self._can(name)}
        self.query_one(RunFoot).show(self._state_words(), command, possible)
        self.refresh_bindings()

    def _foot_facts(self) -> tuple[list[str], bool, str]:
        """What changes by itself, below the form."""
        said = self._busy_words() if self._busy_words is not None else ""
        return self._choice.absent(), self._without_data(), said

    def _state_words(self) -> Text:
        problems = self._problems
        if not problems:
            words = self._said or self._verdict
            return Text(clean(words)) if words else self._readiness()
        wrong = [retold(problems[""])] if "" in problems else []
        labels = {spec.name: _(spec.label) for spec in FIELDS}
        if named := [labels[name] for name in problems if name]:
            wrong.append(_("to be mended: {fields}", fields=", ".join(named)))
        return Text(f"{glyph('failed')} {'; '.join(wrong)}", style(self, "warning"))

    def _without_data(self) -> bool:
        if self._plan is None or self._plan.virtual:
            return False
        # A device that was tried knows better than what it told the fleet earlier.
        return self._choice.lack_data() and not any(t["ok"] for t in self.trials.values())

    def _data_words(self) -> str:
        return _("no chosen worker has {dataset}: deal it, or choose others", dataset=self.dataset)

    def _readiness(self) -> Text:
        if self._lacks_data:
            return Text(f"{glyph('failed')} {self._data_words()}", style(self, "warning"))
        text = Text(_("ready to start: F9"), style(self, "good"))
        if self._absent:
            names = ", ".join(self._absent[:_NAMED])
            more = f" +{num}" if (num := len(self._absent) - _NAMED) > 0 else ""
            words = _("not there now: {names}; a run would wait for them", names=names + more)
            text.append(f"  {glyph('warning')} {words}", style(self, "warning"))
        return text

    def names(self) -> Mapping[str, str]:
        command = self.copy_text()
        return {} if command is None else {"PLAN": command.removeprefix("fedconsole run").strip()}

    def copy_text(self) -> str | None:
        """The equal command line."""
        if self._plan is None:
            return None
        return command_line(self._plan, self.desk.configured())

    def flush(self) -> None:
        table = self.query_one("#workers", LineTable)
        table.set_empty(_NO_DEVICES if self.desk.inventory.is_searched else _LOOKING)
        table.flush()
        self.query_one(FilterBar).set_count(table.shown, table.total)
        if self._foot_facts() != (self._absent, self._lacks_data, self._said):
            self._show_foot()

    def back(self) -> bool:
        """Leave the filter, or the fields: then the letters are keys again."""
        table = self.query_one("#workers", LineTable)
        if not self.query_one(FilterBar).clear() and table.has_focus:
            return False
        table.focus()
        return True

    @on(FilterBar.Changed)
    def _filter(self, event: FilterBar.Changed) -> None:
        self.query_one("#workers", LineTable).set_filter(event.filter)

    @on(FilterBar.Closed)
    def _leave_filter(self) -> None:
        self.query_one("#workers", LineTable).focus()

    # Actions

    async def action_go_to_field(self, step: int) -> None:
        # What was typed right behind it waits, too.
        await self._is_complete.wait()
        if self.focused is None:
            self._focus_first()
            return
        # Textual's order is that of the places, which new fields do not have yet.
        chain = self.focus_chain
        form = [widget for widget in self.query("#form *") if widget in chain]
        at = form.index(self.focused) + step if self.focused in form else -1
        if 0 <= at < len(form):
            self.set_focus(form[at])
        else:
            (self.focus_next if step > 0 else self.focus_previous)()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("start", "check", "copy_command", "write_file"):
            return True if self._can(action) else None
        return True

    def _can(self, action: str) -> bool:
        is_ready = self._plan is not None and self._busy_words is None
        # A check asks the devices themselves.
        return is_ready and not (action == "start" and self._lacks_data)

    def why_not(self, action: str) -> str:
        if self._busy_words is not None:
            return _("a check or a start goes on")
        if self._plan is not None:
            return self._data_words()
        return _("the form is not complete")

    def commands(self) -> Iterable[Command]:
        yield Command(_("Clear the form"), "", self._clear)

    def _clear(self) -> None:
        self.state = FormState()
        self._fill_from_settings()

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        if self._plan is not None and self._can("start"):
            self._start(self._plan)

    @on(Button.Pressed, "#check")
    def action_check(self) -> None:
        if self._plan is not None and self._can("check"):
            self._check(self._plan)

    @on(Input.Submitted)
    def _start_from_field(self) -> None:
        self.action_start()

    @work(exclusive=True)
    async def _start(self, plan: Plan) -> None:
        command = self.copy_text() or ""
        self._set_busy(lambda: _("starting the engine…"))
        try:
            run = await self.desk.start(plan)
        except FedconsoleError as error:
            self._set_idle(f"{glyph('failed')} {error}")
            self.post_message(Notice(str(error), "error"))
            return
        self._set_idle("")
        self.post_message(Echo(command))
        self.post_message(OpenRun(run))

    @work(exclusive=True)
    async def _check(self, plan: Plan) -> None:
        trials: dict[str, Line] = {}
        began_s = self.desk.clock()

        def progress() -> str:
            words = "trying a batch on every worker… {n} of {all} answered, {s} s"
            seconds = int(self.desk.clock() - began_s)
            return _(words, n=len(trials), all=plan.num_workers, s=seconds)

        self._set_busy(progress)
        end: Line = {}
        verdict = ""
        try:
            async for line in self.desk.preflight(plan):
                if line["type"] == "preflight":
                    trials[line["address"]] = line
                    self.trials = trials if self._plan == plan else {}
                elif line["type"] == "run.finished":
                    end = line
        except FedconsoleError as error:
            verdict = f"{glyph('failed')} {error}"
            self.post_message(Trouble(str(error)))
        if self._plan == plan:
            self.trials = trials
            self._set_idle(verdict or self._verdict_on(plan, end))
        else:
            words = _("the form was changed during the check: F5 checks it as it is now")
            self._set_idle(f"{glyph('warning')} {words}")

    def _verdict_on(self, plan: Plan, end: Line) -> str:
        ready = sum(bool(trial["ok"]) for trial in self.trials.values())
        if end.get("exit_code"):
            self.post_message(Trouble(sentence(end)))
            hint = _("Mend it or choose other workers, then F5 again")
            return f"{glyph('failed')} {sentence(end)} {hint}"
        duration = estimate(plan, self.trials.values())
        words = _("{n} workers are ready", n=ready)
        if duration is None:
            return words
        about = _("training will take about {time}; sending and tests come on top", time=duration)
        return f"{glyph('done')} {words}; {about}"

    def _set_busy(self, words: Callable[[], str]) -> None:
        self._busy_words = words
        self._show_foot()

    def _set_idle(self, verdict: str) -> None:
        self._busy_words = None
        self._verdict = verdict
        self._show_foot()

    def action_last_run(self) -> None:
        try:
            plan = self.desk.last_plan()
        except FedconsoleError as error:
            self.post_message(Notice(str(error), "error"))
            return
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
            self.post_message(Echo(f"fedconsole run --config {quote(str(path.absolute()))}"))
