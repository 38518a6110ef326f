"""Two lines that say how a run stands, and one more when something is wrong or over."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rich.text import Text
from textual.widget import Widget

from fedconsole.coordinator.phases import RunPhase
from fedconsole.headless import sentence
from fedconsole.tui.formats import fit, number, percent, size, span
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.theme import style

_BAR_CELLS: Final = 24
_NARROW: Final = 100
_NAMED: Final = 4
_PHASE_SIGNS: Final = {
    RunPhase.TRAINING: "running",
    RunPhase.CLOSING: "running",
    RunPhase.FINISHING: "running",
    RunPhase.PAUSED: "paused",
    RunPhase.PAUSING: "paused",
    RunPhase.WAITING: "warning",
    RunPhase.ABORTING: "aborted",
    RunPhase.ABORTED: "aborted",
    RunPhase.COMPLETED: "done",
    RunPhase.FAILED: "failed",
}
_PHASE_ROLES: Final = {
    RunPhase.WAITING: "warning",
    RunPhase.PAUSED: "accent",
    RunPhase.PAUSING: "accent",
    RunPhase.COMPLETED: "good",
    RunPhase.FAILED: "bad",
    RunPhase.ABORTED: "bad",
    RunPhase.ABORTING: "warning",
}


def first_line(model: RunModel, widget: Widget, now: datetime, mode: str = "") -> Text:
    """Which run, how far, how long. `mode` says that it is a replay."""
    text = Text(no_wrap=True)
    text.append(f" {model.run or '…'}", "bold")
    text.append(f" {fit(model.task, 16)}  ")
    total = model.num_rounds
    text.append(_("round {n}/{of}", n=model.round, of=total if total else "?"))
    if model.epoch and model.plan.get("epochs"):
        text.append(_(" epoch {n}/{of}", n=model.epoch, of=model.plan["epochs"]))
    if (share := model.share()) is not None:
        cells = _BAR_CELLS if widget.size.width >= _NARROW else _BAR_CELLS // 2
        full = round(share * cells)
        text.append(" " + glyph("bar_full") * full, style(widget, "accent"))
        text.append(glyph("bar_empty") * (cells - full), style(widget, "dim"))
        text.append(f" {100 * share:.0f}%")
    eta = model.eta_s(now)
    if not model.is_finished:
        text.append("  ETA ")
        text.append("—" if eta is None else f"{span(eta[0])} (±{eta[1]:.0f} s)")
    text.append(f"  {_('elapsed')} {span(model.elapsed_s(now))}")
    if mode:
        text.append(f"  {mode}", style(widget, "warning"))
    return text


def second_line(model: RunModel, widget: Widget) -> Text:
    """How well, how fast, who is there, and the phase."""
    text = Text(no_wrap=True)
    sign = glyph(_PHASE_SIGNS.get(model.phase, "new"))
    text.append(
        f" {sign} {_phase_words(model)}  ", style(widget, _PHASE_ROLES.get(model.phase, "title"))
    )
    losses = [row.loss for row in model.rounds]
    text.append(f"loss {number(model.loss)}{_trend([*losses, model.loss])}  ")
    if model.tests:
        last = model.tests[-1]
        text.append(f"{_('test')} {number(last.loss)}{_trend([t.loss for t in model.tests])}  ")
        if last.accuracy is not None:
            trend = _trend([test.accuracy for test in model.tests])
            text.append(f"{_('accuracy')} {percent(last.accuracy)}{trend}  ")
    text.append(
        _(
            "workers {here}/{all}, need {need}",
            here=model.num_here,
            all=len(model.workers),
            need=model.quorum,
        )
    )
    text.append(f"  {model.examples_per_s:.0f} ex/s  ")
    text.append(f"{glyph('send')}{size(model.bytes_sent)} ")
    text.append(f"{glyph('receive')}{size(model.bytes_received)}")
    return text


def banner(model: RunModel, widget: Widget, now: datetime) -> Text | None:
    """What is wrong, or how it ended; None: nothing to say."""
    if model.ending is not None:
        return _ending(model, widget)
    parts = []
    if model.have is not None and model.need is not None:
        left = ""
        if model.quorum_seconds_left is not None and model.quorum_at is not None:
            seconds = model.quorum_seconds_left - (now - model.quorum_at).total_seconds()
            left = _("; {s} s left", s=max(0, round(seconds)))
        parts.append(
            _("{have} of {need} needed{left}", have=model.have, need=model.need, left=left)
        )
    lost = [row for row in model.workers.values() if row.lost_at is not None]
    for row in lost[:_NAMED]:
        assert row.lost_at is not None
        gone = span((now - row.lost_at).total_seconds())
        parts.append(
            _("{worker} lost {gone}, retrying ({n})", worker=row.label, gone=gone, n=row.num_lost)
        )
    if len(lost) > _NAMED:
        parts.append(_("{n} more lost", n=len(lost) - _NAMED))
    if lost and model.have is None:
        here, need = model.num_here, model.quorum
        words = "quorum {here}/{need} still met" if here >= need else "quorum {here}/{need} not met"
        parts.append(_(words, here=here, need=need))
    if not parts:
        return None
    return Text(f" {glyph('warning')} " + "; ".join(parts), style(widget, "warning"), no_wrap=True)


def _ending(model: RunModel, widget: Widget) -> Text:
    assert model.ending is not None
    text = sentence(model.ending)
    if path := model.ending.get("model_path"):
        text += " " + _("Model: {path}", path=path)
    if model.num_finished:
        text += " " + _("Next: {command}", command=f"fedconsole runs show {model.run}")
    role = _PHASE_ROLES.get(model.phase, "title")
    return Text(f" {glyph(_PHASE_SIGNS[model.phase])} {text}", style(widget, role), no_wrap=True)


def _phase_words(model: RunModel) -> str:
    word = _(model.phase.value.upper())
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
