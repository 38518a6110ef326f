"""Gathers what the device wants done, and sees to it that each command is answered alike each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from pi_daemon.device.actions import Action, Tell
from pi_daemon.device.refusals import refused
from pi_daemon.protocol.messages import Answer, FromDaemon, RefusalCode

MAX_ANSWERS: Final = 64
"""Answers kept for commands that are repeated."""


class Outbox:
    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._pending: dict[str, int] = {}
        """Commands under way, with the link that gets the answer."""
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def do(self, action: Action) -> None:
        self._actions.append(action)

    def tell(self, link: int | None, message: FromDaemon) -> None:
        self.do(Tell(link, message))

    def take(self) -> list[Action]:
        """All that was gathered since the last time."""
        actions, self._actions = self._actions, []
        return actions

    def begin(self, link: int, cmd_id: str) -> bool:
        """Note a command that `answer` will answer on this link; False: it is a repeated one.

        That gets its answer again, now, or when there is one.
        """
        answer = self._answers.get(cmd_id)
        if answer is not None:
            self.tell(link, answer)
            return False
        is_new = cmd_id not in self._pending
        self._pending[cmd_id] = link
        return is_new

    def answer(self, answer: Answer) -> None:
        """Answer a command, unless that was done, or nobody waits for it any more."""
        link = self._pending.pop(answer.cmd_id, None)
        if link is None:
            return
        self._answers[answer.cmd_id] = answer
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        self.tell(link, answer)

    def answer_all(self, cmd_ids: list[str], answer: Callable[[str], Answer]) -> None:
        """Answer these, and empty the list."""
        for cmd_id in cmd_ids:
            self.answer(answer(cmd_id))
        cmd_ids.clear()

    def refuse_all(self, cmd_ids: list[str], reason: str) -> None:
        self.answer_all(cmd_ids, lambda cmd_id: refused(cmd_id, RefusalCode.WRONG_STATE, reason))

    def give_up(self, cmd_ids: list[str]) -> None:
        """Forget these unanswered: a repeated one is a new one."""
        for cmd_id in cmd_ids:
            self._pending.pop(cmd_id, None)

    def forget_run(self) -> None:
        """Forget every command and answer."""
        self._pending.clear()
        self._answers.clear()
