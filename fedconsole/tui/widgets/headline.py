"""Two lines that say how a run stands, and one more when something is wrong or over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from shlex import quote
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from fedconsole.coordinator.phases import RunPhase
from fedconsole.sentences import sentence
from fedconsole.tui.formats import cut, fit, number, percent, size, span
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.phase_signs import sign_of
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.theme import style
from pi_daemon.protocol.text import clean

_BAR_CELLS: Final = 24
_NARROW: Final = 100
_NAMED: Final = 4
_MAX_BANNER: Final = 1_000
_GAP: Final = "  "
_SILENT_S: Final = 40.0
"""An engine that works says so every 30 s: what is shown may be old."""
_PHASE_ROLES: Final = {
    RunPhase.WAITING: "warning",
    RunPhase.PAUSED: "accent",
    RunPhase.PAUSING: "accent",
    RunPhase.COMPLETED: "good",
    RunPhase.FAILED: "bad",
    RunPhase.ABORTED: "bad",
    RunPhase.ABORTING: "warning",
}

_AT_TIMEOUT: Final = {
    "wait": ", then it waits longer",
    "fewer": ", then it goes on without them",
    "fail": ", then it fails",
}


def first_line(model: RunModel, widget: Widget, now: datetime, mode: str = "") -> Text:
    """Which run, how far, how long. `mode` says that it is a replay."""
    total = model.num_rounds
    parts = [
        _Part(0, Text(model.run or "…", "bold")),
        _Part(4, Text(fit(model.task, 16))),
        _Part(0, Text(_("round {n}/{of}", n=model.round, of=total if total else "?"))),
    ]
    if model.epoch and model.plan.get("epochs"):
        parts.append(_Part(5, Text(_("epoch {n}/{of}", n=model.epoch, of=model.plan["epochs"]))))
    if (share := model.share()) is not None:
        cells = _BAR_CELLS if widget.size.width >= _NARROW else _BAR_CELLS // 2
        full = round(share * cells)
        bar = Text(glyph("bar_full") * full, style(widget, "accent"))
        bar.append(glyph("bar_empty") * (cells - full), style(widget, "dim"))
        parts += [_Part(3, bar), _Part(0, Text(f"{100 * share:.0f}%"))]
    if not (model.is_finished or model.has_crashed):
        eta = model.eta_s(now)
        parts.append(_Part(0, Text(f"ETA {'—' if eta is None else span(eta[0])}")))
        if eta is not None and eta[1] >= 1:
            parts.append(_Part(6, Text(f"(±{span(eta[1])})")))
    parts.append(_Part(1, Text(f"{_('elapsed')} {span(model.elapsed_s(now))}")))
    if mode:
        parts.append(_Part(0, Text(mode, style(widget, "warning"))))
    return _fitted(parts, widget.size.width)


def second_line(model: RunModel, widget: Widget) -> Text:
    """How well, how fast, who is there, and the phase."""
    sign = glyph(sign_of(model))
    role = "bad" if model.has_crashed else _PHASE_ROLES.get(model.phase, "title")
    look = style(widget, role)
    has_loss = any(row.num_steps for row in model.workers.values())
    loss = number(model.loss) if has_loss else "-"
    trend = _trend([*(row.loss for row in model.rounds), model.loss])
    parts = [
        _Part(0, Text(f"{sign} {_phase_words(model)}", look)),
        _Part(0, Text(f"{_('loss')} {loss}{trend}")),
    ]
    if model.tests:
        last = model.tests[-1]
        trend = _trend([test.loss for test in model.tests])
        parts.append(_Part(4, Text(f"{_('test')} {number(last.loss)}{trend}")))
        if last.accuracy is not None:
            trend = _trend([test.accuracy for test in model.tests])
            parts.append(_Part(0, Text(f"{_('acc')} {percent(last.accuracy)}{trend}")))
    here, wanted = model.num_here, len(model.workers)
    words = _("workers {here}/{all}, need {need}", here=here, all=wanted, need=model.quorum)
    sent, received = size(model.bytes_sent), size(model.bytes_received)
    if not model.has_crashed:
        parts.append(_Part(1, Text(words)))
        if rate := model.examples_per_s:
            parts.append(_Part(2, Text(f"{rate:.0f} {_('ex/s')}")))
    parts.append(_Part(3, Text(f"{glyph('send')}{sent} {glyph('receive')}{received}")))
    return _fitted(parts, widget.size.width)


class _Part(NamedTuple):
    priority: int
    """Where there is no room for all, the highest number goes first; 0 stays."""
    text: Text


def _fitted(parts: Sequence[_Part], width: int) -> Text:
    """As many parts as have room, two cells apart."""
    left = list(parts)
    while sum(part.text.cell_len + len(_GAP) for part in left) > width:
        last = max(left, key=lambda part: part.priority)
        if last.priority == 0:
            break
        left.remove(last)
    return Text(" ", no_wrap=True) + Text(_GAP).join(part.text for part in left)


def banner(model: RunModel, widget: Widget, now: datetime) -> Text | None:
    """What is wrong, or how it ended; None: nothing to say."""
    if model.ending is not None:
        return _ending(model, widget)
    if model.taken_up_at is not None:
        return None  # what was wrong, the last engine said
    parts = []
    if model.stalled:
        parts.append(_("the run stands still: {reason}", reason=model.stalled))
    elif (
        model.last_at is not None
        and (silent_s := (now - model.last_at).total_seconds()) > _SILENT_S
    ):
        parts.append(_("the engine has said nothing for {gone}", gone=span(silent_s)))
    if model.have is not None and model.need is not None:
        left = ""
        if model.quorum_seconds_left is not None and model.quorum_at is not None:
            seconds = model.quorum_seconds_left - (now - model.quorum_at).total_seconds()
            left = _("; {s} s left", s=max(0, round(seconds)))
            left += _(_AT_TIMEOUT.get(model.quorum_then, ""))
        parts.append(
            _("{have} of {need} needed{left}", have=model.have, need=model.need, left=left)
        )
        if model.phase is RunPhase.WAITING:
            parts.append(_("f or g: choose"))
    lost = [row for row in model.workers.values() if row.lost_at is not None]
    for row in lost[:_NAMED]:
        assert row.lost_at is not None
        gone = span((now - row.lost_at).total_seconds())
        words = "{worker} lost {gone}, retrying"
        if row.name in model.preparing:
            words = "{worker} lost {gone}, back and getting ready"
        elif row.num_lost > 1:
            words = "{worker} lost {gone}, retrying; lost {n} times"
        parts.append(_(words, worker=row.label, gone=gone, n=row.num_lost))
    if len(lost) > _NAMED:
        parts.append(_("{n} more lost", n=len(lost) - _NAMED))
    if lost and model.have is None:
        here, need = model.num_here, model.quorum
        words = "quorum {here}/{need} still met" if here >= need else "quorum {here}/{need} not met"
        parts.append(_(words, here=here, need=need))
    if not parts:
        return None
    return banner_text(f"{glyph('warning')} " + "; ".join(parts), widget, "warning")


def banner_text(text: str, widget: Widget, role: str) -> Text:
    """One line; of what has no room it says where all of it is."""
    text = cut(clean(text, _MAX_BANNER), widget.size.width - 1, _("!: all of it"))
    return Text(f" {text}", style(widget, role), no_wrap=True)


def _ending(model: RunModel, widget: Widget) -> Text:
    assert model.ending is not None
    sign, text = glyph(sign_of(model)), sentence(model.ending)
    path = model.ending.get("model_path")
    where = _("Model: {path}", path=clean(path)) if path else ""
    then = _("Next: {command}", command=f"fedconsole runs show {quote(model.run)}")
    # The reason comes first; what comes next has to have room beside all of it.
    for parts in ([sign, text, where, then], [sign, text, then], [sign, text]):
        whole = " ".join(filter(None, parts))
        if cell_len(whole) < widget.size.width:
            break
    return banner_text(whole, widget, _PHASE_ROLES.get(model.phase, "title"))


def _phase_words(model: RunModel) -> str:
    if model.has_crashed:
        return _("crashed").upper()
    word = _(model.phase_word)
    if model.is_stopping and not model.is_finished:
        word = _("{phase}, stops after this round", phase=word)
    if not model.waiting_for:
        return word
    names = sorted(model.workers[name].label for name in model.waiting_for if name in model.workers)
    shown = ", ".join(names[:_NAMED]) + (f" +{len(names) - _NAMED}" if len(names) > _NAMED else "")
    return _("{phase}… waiting for {names}", phase=word, names=shown)


def _trend(values: list[float | None]) -> str:
    finite = [value for value in values if value is not None]
    if len(finite) < 2 or finite[-1] == finite[-2]:
        return ""
    return glyph("up" if finite[-1] > finite[-2] else "down")
