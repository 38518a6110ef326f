"""The device's refusals in words: which code, and what to do about it."""

from __future__ import annotations

from pi_daemon.actions import ControlCommand
from pi_daemon.protocol.limits import MAX_TEXT
from pi_daemon.protocol.messages import (
    Command,
    DatasetCard,
    Evaluate,
    Prepare,
    RefusalCode,
    Refused,
    StartRound,
)


def refused(cmd_id: str, code: RefusalCode, reason: str) -> Refused:
    return Refused(cmd_id, code, reason[:MAX_TEXT])


def is_viewer(command: Command) -> Refused:
    reason = "this link is a viewer: it only listens"
    return refused(command.cmd_id, RefusalCode.NOT_CONTROLLER, reason)


def wrong_state(command: Command, reason: str) -> Refused:
    return refused(command.cmd_id, RefusalCode.WRONG_STATE, reason)


def no_state(command: ControlCommand) -> Refused:
    reason = f"round {command.round} is not here: start it again"
    return refused(command.cmd_id, RefusalCode.NO_STATE, reason)


def no_model(command: StartRound | Evaluate) -> Refused:
    reason = f"model {command.model_id[:12]}... is not here: send it"
    return refused(command.cmd_id, RefusalCode.NO_MODEL, reason)


def misfit(command: Prepare, datasets: dict[str, DatasetCard]) -> Refused | None:
    """Why the run cannot be trained on the dataset that it names; None if it can."""
    card = datasets.get(command.dataset)
    if card is None:
        held = ", ".join(datasets) or "no dataset"
        reason = f"there is no dataset {command.dataset!r} here, there is {held}"
        return refused(command.cmd_id, RefusalCode.NO_DATASET, reason)
    found = card.sample_shape, card.sample_dtype
    expected = command.sample_shape, command.sample_dtype
    if found != expected or (card.num_classes or 0) > (command.num_classes or 0):
        reason = (
            f"dataset {card.name} holds {_describe(*found, card.num_classes)}, "
            f"the model takes {_describe(*expected, command.num_classes)}"
        )
        return refused(command.cmd_id, RefusalCode.DATASET_MISMATCH, reason)
    return None


def _describe(shape: tuple[int, ...], dtype: str, num_classes: int | None) -> str:
    classes = "no classes" if num_classes is None else f"{num_classes} classes"
    return f"{dtype} samples of {list(shape)} in {classes}"
