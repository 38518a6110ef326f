"""What becomes of the run that goes on when its operator leaves."""

from __future__ import annotations

from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.lang import _


def farewell(run: str, *, ends_too: bool) -> Choice:
    """Answers with detach, abort or cancel; `ends_too`: the run cannot outlive the console."""
    cancel = ("cancel", _("Cancel"))
    if ends_too:
        words = _("The demo's devices and its run end with the console; the model is kept.")
        title = _("Run {run} ends", run=run)
        return Choice(title, words, [("abort", _("Leave")), cancel], default="cancel")
    words = _(
        "Detach leaves it going; fedconsole attach {run} comes back to it. "
        "Abort ends it; the model of the last complete round is kept.",
        run=run,
    )
    answers = [("detach", _("Detach")), ("abort", _("Abort")), cancel]
    return Choice(_("Run {run} goes on", run=run), words, answers, default="cancel")
