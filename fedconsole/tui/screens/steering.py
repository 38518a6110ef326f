"""What an operator may ask of the run that a screen shows: keys, questions, and the requests."""

from __future__ import annotations

from shlex import quote
from typing import Final

from textual import work

from fedconsole.coordinator.phases import Request
from fedconsole.errors import FedconsoleError
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import Echo, Notice
from fedconsole.tui.run_model import RunModel

STEERING_KEYS: Final = (
    key("p", "pause", "Pause", cli="fedconsole pause RUN"),
    key("p", "resume", "Resume", cli="fedconsole resume RUN"),
    key("a", "abort", "Abort", cli="fedconsole abort RUN"),
    key("o", "stop", "Stop after this round", cli="fedconsole abort RUN --after-round"),
    key("f", "fewer", "Go on with fewer", cli="fedconsole quorum RUN fewer"),
    key("g", "wait", "Give more time", cli="fedconsole quorum RUN wait"),
)
_ONLY_WHEN_ALLOWED: Final = frozenset({"resume", "wait", "fewer"})
"""Not even shown elsewhere."""
REQUESTS: Final = frozenset(request.value for request in Request)


class Steering(ConsoleScreen):
    """A screen of one run, which may be steered."""

    run_id: str
    model: RunModel

    @property
    def is_steerable(self) -> bool:
        """Whether the run may still be asked for something."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action not in REQUESTS:
            return True
        allowed = self.is_steerable and Request(action) in self.model.allowed
        if allowed:
            return True
        # One key: what is not possible gives way to its counterpart.
        other = {"pause": Request.RESUME, "resume": Request.PAUSE}.get(action)
        is_hidden = action in _ONLY_WHEN_ALLOWED or (
            other is not None and other in self.model.allowed
        )
        return False if is_hidden else None

    def action_pause(self) -> None:
        self._request(Request.PAUSE)

    def action_resume(self) -> None:
        self._request(Request.RESUME)

    def action_stop(self) -> None:
        self._ask_whether_to_stop()

    @work(exclusive=True, group="ask")
    async def _ask_whether_to_stop(self) -> None:
        model = self.model
        answer = await self.app.push_screen_wait(
            Choice(
                _("Stop run {run} after this round?", run=self.run_id),
                _("The open round is completed, then the run ends; it cannot be resumed."),
                [("stop", _("Stop after this round")), ("cancel", _("Cancel"))],
                default="cancel",
                is_moot=lambda: not self.is_steerable or Request.STOP not in model.allowed,
            )
        )
        if answer == "stop":
            self._request(Request.STOP)

    def action_wait(self) -> None:
        self._request(Request.WAIT)

    def action_fewer(self) -> None:
        self._ask_what_is_enough()

    @work(exclusive=True, group="ask")
    async def _ask_what_is_enough(self) -> None:
        model = self.model
        have, need = model.have or 0, model.need or model.quorum
        answers = [
            ("wait", _("Give more time")),
            ("abort", _("Abort now")),
            ("cancel", _("Cancel")),
        ]
        if have:
            answers.insert(0, ("fewer", _("Go on with {n}", n=have)))
        answer = await self.app.push_screen_wait(
            Choice(
                _("{have} of {need} needed", have=have, need=need),
                _(
                    "More time: {s} s from now on. Going on: this round is content with what is there, "
                    "and the next one needs all again.",
                    s=f"{model.plan.get('quorum_timeout_s') or 0:g}",
                ),
                answers,
                default="cancel",
                is_moot=lambda: not self.is_steerable or Request.FEWER not in model.allowed,
            )
        )
        if answer != "cancel":
            self._request(Request(answer))

    def action_abort(self) -> None:
        self._ask_how_to_end()

    @work(exclusive=True, group="ask")
    async def _ask_how_to_end(self) -> None:
        model = self.model
        # True for as long as the question stands there.
        kept = (
            _("The model of the last complete round is kept.")
            if model.num_finished
            else _("Before a round is complete there is no model to keep.")
        )
        answers = [("abort", _("Abort now"))]
        if Request.STOP in model.allowed:
            answers.append(("stop", _("Stop after this round")))
        answer = await self.app.push_screen_wait(
            Choice(
                _("Abort run {run}?", run=self.run_id),
                f"{_('The workers stop within a batch.')} {kept}",
                [*answers, ("cancel", _("Cancel"))],
                default="cancel",
                is_moot=lambda: not self.is_steerable,
            )
        )
        if answer != "cancel":
            self._request(Request(answer))

    @work(group="request")
    async def _request(self, request: Request) -> None:
        try:
            await self.desk.request(self.run_id, request)
        except FedconsoleError as error:
            self.post_message(Notice(str(error), "error"))
            return
        self.post_message(Echo(_twin(request, self.run_id)))


def _twin(request: Request, run: str) -> str:
    """The command line that does the same."""
    run = quote(run)
    match request:
        case Request.STOP:
            return f"fedconsole abort {run} --after-round"
        case Request.WAIT | Request.FEWER:
            return f"fedconsole quorum {run} {request}"
        case _:
            return f"fedconsole {request} {run}"
