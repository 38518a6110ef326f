"""One run as it goes on: how it stands, its losses, its workers, its log; and what may be asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from shlex import quote
from typing import TYPE_CHECKING, ClassVar, Final, cast

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, Vertical

from fedconsole.coordinator.phases import RunPhase
from fedconsole.errors import FedconsoleError
from fedconsole.tui.desk import Desk
from fedconsole.tui.frame import Command, Line
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import Alarm, Notice, OpenRun
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.run_records import AlarmRecord
from fedconsole.tui.screens.log_file import save_log
from fedconsole.tui.screens.steering import REQUESTS, STEERING_KEYS, Steering
from fedconsole.tui.screens.taking_up import TAKE_UP_KEY, TakingUp
from fedconsole.tui.steady_time import SteadyTime
from fedconsole.tui.theme import SERIES
from fedconsole.tui.widgets.curves import MAX_NAMED, Curve
from fedconsole.tui.widgets.filter_bar import FilterBar
from fedconsole.tui.widgets.headline import banner, banner_text, first_line, second_line
from fedconsole.tui.widgets.line_log import LineLog
from fedconsole.tui.widgets.line_table import LineTable
from fedconsole.tui.widgets.plot import Plot
from fedconsole.tui.widgets.worker_rows import COLUMNS, WorkerRows

if TYPE_CHECKING:
    from fedconsole.tui.app import FedconsoleApp
    from fedconsole.tui.desk import Line as JournalLine
    from fedconsole.tui.replay import Replay

_LINES_AT_ONCE: Final = 200
"""Then the screen gets a turn: a journal is read faster than a key may wait."""
_PLOT_TICKS: Final = 3
_BAND_TICKS: Final = 20
"""A band over a thousand workers takes longer to compute than to look at."""
_AXES: Final = ("step", "time", "round")
_WORKER_ROWS: Final = 8
_MOST_OFFERED: Final = 100
_MOST_TOLD: Final = 3
"""Alarms of a tick; more would cover the screen."""
_TOGETHER: Final = timedelta(seconds=1)
"""Workers in the palette."""
_TEST_COLOUR: Final = "#999999"
_LOOK_EVERY_S: Final = 2.0
_BEHIND_S: Final = 5.0
_READING_S: Final = 1.0
"""Without a line for so long, all lines are read."""
"""For another engine, when the run's own is gone."""


class LiveScreen(Steering, TakingUp):
    NAME = "live"
    ABOUT = (
        "The run as it goes on. Above, how it stands; then the loss of every worker and of the tests, "
        "the workers, and the log. Leaving this screen leaves the run going."
    )
    BINDINGS: ClassVar = [
        *STEERING_KEYS[:2],
        key("p", "replay_pause", "Hold the replay"),
        *STEERING_KEYS[2:],
        TAKE_UP_KEY,
        key("<", "slower", "Slower"),
        key(">", "faster", "Faster"),
        key("x", "next_axis", "x axis"),
        key("tab", "app.focus_next", "Next pane", show=False),
        key("z", "zoom", "Zoom"),
        key("/", "want_filter", "Filter", show=False),
        key("r", "open_page", "Page of the run", cli="fedconsole runs show RUN", show=False),
    ]
    ALLOW_IN_MAXIMIZED_VIEW = "#head, KeyBar"
    DEFAULT_CSS = """
    LiveScreen #head { height: auto; }
    LiveScreen.-maximized-view #head { dock: top; }
    LiveScreen #banner { display: none; }
    LiveScreen #panes { layout: vertical; height: 1fr; }
    LiveScreen #left { height: 3fr; }
    LiveScreen #right { height: 2fr; min-height: 4; }
    LiveScreen #log-state { background: $panel; }
    LiveScreen.-short Plot { display: none; }
    LiveScreen.-wide #panes { layout: horizontal; }
    LiveScreen.-wide #left { width: 3fr; height: 1fr; }
    LiveScreen.-wide #right { width: 2fr; height: 1fr; border-left: solid $panel; }
    LiveScreen #workers { height: 4; border-top: solid $panel; }
    LiveScreen Plot:focus, LiveScreen LineLog:focus { background-tint: $foreground 4%; }
    """

    def __init__(self, desk: Desk, run: str, replay: Replay | None = None) -> None:
        """Show a run of the desk, or a replay of it."""
        super().__init__(desk)
        self.run_id = run
        self.model = RunModel()
        self._replay = replay
        self._time = SteadyTime(desk.now, desk.clock)
        self._axis = 0
        self._drawn_version = -1
        self._drawn_sign: tuple[RunPhase, bool] | None = None
        self._num_flushes = 0
        self._num_alarms = 0
        self._last_words = ""
        """Why nothing more comes, if the engine did not say."""
        self._looked_s = 0.0
        """When there was no engine; of the desk's clock."""
        self._read_s = 0.0
        """When the last line came; of the desk's clock."""
        self._rows = WorkerRows(self.model, self)

    @property
    def is_steerable(self) -> bool:
        """Whether the run may still be asked for something."""
        return self._replay is None and not self.model.is_finished and not self._last_words

    def alarms(self) -> Sequence[AlarmRecord]:
        return self.model.alarms

    def body(self) -> ComposeResult:
        with Vertical(id="head"):
            yield Line(id="first")
            yield Line(id="second")
            yield Line(id="banner")
        with Container(id="panes"):
            with Vertical(id="left"):
                yield Plot(is_smooth=True, id="plot")
                yield LineTable(
                    COLUMNS, self._rows, empty="waiting for workers", sort="worker", id="workers"
                )
            with Vertical(id="right"):
                yield Line(id="log-state")
                yield LineLog(id="log")
                yield FilterBar(id="filter")

    def on_mount(self) -> None:
        self.query_one("#workers").focus()
        self._follow()

    # Reading: lines are applied here, and drawn by flush

    @work(exclusive=True)
    async def _follow(self) -> None:
        source: AsyncIterator[JournalLine] = (
            aiter(self._replay) if self._replay is not None else self.desk.follow(self.run_id)
        )
        num = 0
        try:
            async for line in source:
                told = datetime.fromisoformat(line["time"])
                self.model.apply(line, told if self._replay else self._time.of(told))
                self._read_s = self.desk.clock()
                num += 1
                if num % _LINES_AT_ONCE == 0:
                    await asyncio.sleep(0)
        except FedconsoleError as error:
            self._last_words = str(error)
            self.model.alarm(self._last_words, at=self.desk.now())
            return
        finally:
            # Not left to the end of the event loop, which would break into what it still does.
            if isinstance(source, AsyncGenerator):
                await source.aclose()
        goes_on = self._replay is not None and self.desk.is_running(self.run_id)
        if not (self.model.is_finished or goes_on):
            words = "the engine of run {run} ended without a last word; finished rounds are kept"
            self._last_words = _(words, run=self.run_id)
            if not num:
                why = await asyncio.to_thread(self.desk.last_words, self.run_id)
                self._last_words = _("it never began: {why}", why=why)
            self._looked_s = self.desk.clock()
            self.model.crash(self._last_words, self.desk.now())

    def _look_for_engine(self) -> None:
        """A run that was resumed elsewhere is shown anew, from its first line on."""
        if self.desk.clock() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = self.desk.clock()
        if self.desk.is_running(self.run_id):
            self.post_message(OpenRun(self.run_id, self.model.told_at))

    # Drawing

    def flush(self) -> None:
        model, now = self.model, self._now()
        self.query_one("#first", Line).show(first_line(model, self, now, self._mode()))
        self.query_one("#second", Line).show(second_line(model, self))
        self._flush_banner()
        log = self.query_one("#log", LineLog)
        log.append(model.take_log())
        log.flush()
        self.query_one("#log-state", Line).show(log.state_words())
        self.query_one("#filter", FilterBar).set_count(*log.counts)
        table = self.query_one("#workers", LineTable)
        height = min(len(model.workers), self._room_for_workers) + 2
        if table.styles.height is None or table.styles.height.value != max(3, height):
            table.styles.height = max(3, height)
        table.flush()
        self._flush_plot()
        self._tell_alarms()
        if self._drawn_sign != (sign := (model.phase, model.has_crashed)):
            self._drawn_sign = sign
            self.refresh_bindings()
        self._num_flushes += 1
        if self.model.has_crashed and self._replay is None:
            self._look_for_engine()

    @property
    def _room_for_workers(self) -> int:
        return max(3, min(_WORKER_ROWS, self.size.height // 5))

    def _now(self) -> datetime:
        """In a replay: the time of the run."""
        if self._replay is not None and self.model.last_at is not None:
            return self.model.last_at
        return self._time.now()

    def _mode(self) -> str:
        if self._replay is None:
            return _("catching up") if self._is_behind() else ""
        held = f" {_('held')}" if self._replay.is_paused else ""
        return f"{_('REPLAY')} {self._replay.speed:g}x{held}"

    def _is_behind(self) -> bool:
        """Lines of long ago are still being read: what is shown is how the run stood then."""
        last = self.model.last_at
        if last is None or self.model.is_finished or self.desk.clock() - self._read_s > _READING_S:
            return False
        return (self._now() - last).total_seconds() > _BEHIND_S

    def _flush_banner(self) -> None:
        line = self.query_one("#banner", Line)
        text = banner(self.model, self, self._now())
        if self._last_words and not self.model.is_finished:
            text = banner_text(self._last_words, self, "bad")
        if line.display != (text is not None):
            line.display = text is not None
        if text is not None:
            line.show(text)

    def _flush_plot(self) -> None:
        is_band = len(self.model.workers) > MAX_NAMED
        if self._num_flushes % (_BAND_TICKS if is_band else _PLOT_TICKS):
            return
        if self.model.version != self._drawn_version:
            self._drawn_version = self.model.version
            self._show_curves()
        self.query_one("#plot", Plot).flush()

    def _show_curves(self) -> None:
        axis = _AXES[self._axis]
        curves = [
            Curve(row.label, row.letter, SERIES[i % len(SERIES)], xs, row.series.losses)
            for i, row in enumerate(sorted(self.model.workers.values(), key=lambda r: r.name))
            if (
                xs := {"step": row.series.steps, "time": row.series.times}.get(
                    axis, row.series.rounds
                )
            )
        ]
        places = {
            end[0]: end[1 + _AXES.index(axis)] if axis != "round" else end[0]
            for end in self.model.round_ends
        }
        tests = [
            (places[test.round], test.loss)
            for test in self.model.tests
            if test.round in places and test.loss is not None
        ]
        if tests:
            at, losses = [x for x, _y in tests], [y for _x, y in tests]
            curves.append(Curve(_("test"), "T", _TEST_COLOUR, at, losses, thick=True))
        label = _("seconds" if axis == "time" else axis)
        chosen = self.query_one("#workers", LineTable).current
        named = self.model.workers[chosen].label if chosen in self.model.workers else None
        self.query_one("#plot", Plot).show(curves, list(places.values()), label, named)

    def _tell_alarms(self) -> None:
        num_new = self.model.num_alarms - self._num_alarms
        self._num_alarms = self.model.num_alarms
        if not num_new or self._replay is not None:
            return  # what is replayed is no news
        new = self.model.alarms[-num_new:]
        # At the start the past comes at once: of that only what came with the last is news.
        news = [record for record in new if new[-1].time - record.time <= _TOGETHER]
        for record in news[:_MOST_TOLD]:
            self.post_message(Alarm(record.text, record.worker or None))
        if num_more := len(news[_MOST_TOLD:]):
            self.post_message(Notice(_("and {n} more, see !", n=num_more), "warning"))

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("replay_pause", "slower", "faster"):
            return self._replay is not None and not self._replay.is_over
        if action == "take_up":
            return self._replay is None and self.model.has_crashed
        if action in REQUESTS and self._replay is not None:
            return False
        return super().check_action(action, parameters)

    def why_not(self, action: str) -> str:
        if self._last_words:
            return _("its engine is gone")
        if self.model.is_finished:
            return _("the run has ended")
        if action == "stop" and self.model.is_stopping:
            return _("it stops after this round already")
        return _("the run is {phase}", phase=_(self.model.phase_word))

    # The rest of the keys

    def action_replay_pause(self) -> None:
        if self._replay is not None:
            self._replay.toggle_pause()

    def action_take_up(self) -> None:
        self.take_up(self.run_id)

    def action_slower(self) -> None:
        if self._replay is not None:
            self._replay.slower()

    def action_faster(self) -> None:
        if self._replay is not None:
            self._replay.faster()

    def action_next_axis(self) -> None:
        self._axis = (self._axis + 1) % len(_AXES)
        self._show_curves()
        self.query_one("#plot", Plot).flush()

    def action_zoom(self) -> None:
        if self.maximized is not None:
            self.minimize()
        elif self.focused is not None:
            self.maximize(self.focused)
            self.post_message(Notice(_("z or Esc brings the other panes back")))

    def action_open_page(self) -> None:
        from fedconsole.tui.screens.run_page import RunPage

        self.app.push_screen(RunPage(self.desk, self.run_id))

    def back(self) -> bool:
        if self.maximized is not None:
            self.minimize()
            return True
        if not self.query_one("#filter", FilterBar).clear() and self._replay is not None:
            self.app.call_later(cast("FedconsoleApp", self.app).leave_replay, self)
        # There is nothing behind a run that goes on.
        return True

    def action_want_filter(self) -> None:
        """From a pane that has no filter of its own."""
        self.query_one("#filter", FilterBar).open()

    @on(FilterBar.Changed)
    def _filter(self, event: FilterBar.Changed) -> None:
        self.query_one("#log", LineLog).set_filter(event.filter)
        self.query_one("#workers", LineTable).set_filter(event.filter)

    @on(FilterBar.Closed)
    def _leave_filter(self) -> None:
        self.query_one("#log").focus()

    @on(LineTable.Selected)
    def _show_worker_only(self, event: LineTable.Selected) -> None:
        """Enter on a worker: the log shows its lines only."""
        self._filter_worker(self.model.workers[event.key].label)

    def _filter_worker(self, label: str) -> None:
        self.query_one("#filter", FilterBar).open(f'worker:"{label}"')

    def commands(self) -> Iterable[Command]:
        for row in islice(self.model.workers.values(), _MOST_OFFERED):
            title = _("Only the lines of {worker}", worker=row.label)
            yield Command(title, "", partial(self._filter_worker, row.label))

    @on(LineLog.SaveWanted)
    def _save_log(self, event: LineLog.SaveWanted) -> None:
        save_log(self, event.log, self.run_id)

    def names(self) -> Mapping[str, str]:
        return {"RUN": quote(self.run_id)}

    def copy_text(self) -> str | None:
        return self.run_id
