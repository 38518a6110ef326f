"""The device's refusals in words: which code, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from pi_daemon.device.actions import ControlCommand
from pi_daemon.device.terms import Peer
from pi_daemon.protocol.codec import encode
from pi_daemon.protocol.limits import MAX_FRAME_BYTES, MAX_TEXT
from pi_daemon.protocol.messages import (
    Command,
    DatasetCard,
    Evaluate,
    Evaluated,
    Prepare,
    RefusalCode,
    Refused,
    StartRound,
)
from pi_daemon.trainer.pipe import ModelEvaluated


def refused(cmd_id: str, code: RefusalCode, reason: str) -> Refused:
    return Refused(cmd_id, code, reason[:MAX_TEXT])


@dataclass(frozen=True, slots=True)
class Excess:
    """What would be more, or less, than the device's owner allows."""

    limit: str
    """Its key in the owner's configuration."""
    reason: str


def over_limit(command: Command, excess: Excess | None) -> Refused | None:
    if excess is None:
        return None
    # An older console knows no code of its own for this, and would not read the message.
    code, reason = RefusalCode.NOT_ALLOWED, excess.reason
    return Refused(command.cmd_id, code, reason[:MAX_TEXT], excess.limit)


def evaluated(command: Evaluate, found: ModelEvaluated) -> Evaluated | Refused:
    """The table of very many classes is more than a message holds."""
    table = found.confusion
    answer = Evaluated(command.cmd_id, command.round, found.num_examples, found.loss, table)
    if table is None or (size := len(encode(answer))) <= MAX_FRAME_BYTES:
        return answer
    reason = f"the table of {len(table)} classes takes {size:,} bytes, a message holds "
    reason += f"{MAX_FRAME_BYTES:,}: train with --holdout 0"
    return refused(command.cmd_id, RefusalCode.TOO_LARGE, reason)


def not_shared(command: Prepare, peer: Peer) -> Refused:
    reason = f"the device's owner does not share dataset {command.dataset} with {peer.role}s"
    return refused(command.cmd_id, RefusalCode.NOT_ALLOWED, reason)


def is_viewer(command: Command) -> Refused:
    reason = "this link is a viewer: it only listens"
    return refused(command.cmd_id, RefusalCode.NOT_CONTROLLER, reason)


def wrong_state(command: Command, reason: str) -> Refused:
    return refused(command.cmd_id, RefusalCode.WRONG_STATE, reason)


def no_state(command: ControlCommand) -> Refused:
    reason = f"round {command.round} is not here: start it again"
    return refused(command.cmd_id, RefusalCode.NO_STATE, reason)


def lacks_model(command: StartRound | Evaluate, held: str | None) -> Refused | None:
    """Whether a command brings no model, and the one that it names is not the one that is held."""
    if command.model is not None or command.model_id == held:
        return None
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
