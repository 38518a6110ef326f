"""A device that is told what happens, step by step, and what it says and does about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from pi_daemon.device.actions import (
    Action,
    Tell,
)
from pi_daemon.device.device import Device
from pi_daemon.protocol.graphs import OptimizerSpec
from pi_daemon.protocol.messages import (
    Blob,
    Command,
    Cursor,
    DatasetCard,
    DeviceState,
    Hello,
    Prepare,
    RefusalCode,
    Refused,
    Role,
    StartRound,
    Status,
    TakeLease,
)
from pi_daemon.trainer.pipe import RoundTrained, WorkerReady

C = TypeVar("C", bound=Command)

CARD = DatasetCard("digits", (8, 8), "uint8", "int64", 480, 10, "d" * 64)
GRAPHS = Blob(1, 100, "a" * 64)
MODEL = Blob(2, 200, "b" * 64)
MODEL_ID = "c" * 64
READY = WorkerReady(1, 384, 96, 0.01, 1000)
TRAINED = RoundTrained(1, 480, 30, 0.5, 3.0, Cursor(1, 6), 300, "e" * 64)


@dataclass
class Script:
    """A device with a clock that the test moves, and two kinds of consoles."""

    device: Device = field(default_factory=lambda: Device((CARD,)))
    now_s: float = 100.0
    run: str = "run-1"
    fence: int = 1

    def open(
        self, link: int, role: Role = Role.CONTROLLER, name: str = "desk-1", key: str = ""
    ) -> None:
        hello = Hello(1, 1, f"id of {name}", name, "boot", "test", role)
        self.device.on_link_opened(link, hello, key)

    def say(self, link: int, kind: type[C], cmd_id: str = "", **fields: Any) -> list[Action]:
        """Send a command of this run; `cmd_id` is the command's name unless given."""
        command = kind(cmd_id=cmd_id or kind.__name__, run=self.run, fence=self.fence, **fields)
        return self.device.on_command(link, command, self.now_s)  # type: ignore[arg-type]

    def prepare(self, link: int, cmd_id: str = "", **changes: Any) -> list[Action]:
        fields: dict[str, Any] = {
            "worker_id": "alice",
            "dataset": "digits",
            "sample_shape": (8, 8),
            "sample_dtype": "uint8",
            "num_classes": 10,
            "batch_size": 16,
            "holdout": 0.2,
            "order_seed": "7",
            "optimizer": OptimizerSpec("sgd", 0.05),
            "graphs": GRAPHS,
        }
        return self.say(link, Prepare, cmd_id, **(fields | changes))

    def start(self, link: int, cmd_id: str = "", **changes: Any) -> list[Action]:
        fields: dict[str, Any] = {
            "round": 1,
            "attempt": 1,
            "model_id": MODEL_ID,
            "model": MODEL,
            "cursor": Cursor(0, 0),
            "num_batches": 30,
            "torch_seed": "5",
        }
        return self.say(link, StartRound, cmd_id, **(fields | changes))

    @property
    def state(self) -> DeviceState:
        return self.device.status(self.now_s).state


def told(actions: list[Action], link: int | None = 1) -> list[Any]:
    """What a link is told, without the status."""
    return [
        action.message
        for action in actions
        if isinstance(action, Tell)
        and action.link == link
        and not isinstance(action.message, Status)
    ]


def done(actions: list[Action]) -> list[Action]:
    """Everything that is not talk."""
    return [action for action in actions if not isinstance(action, Tell)]


def refusals(actions: list[Action], link: int = 1) -> list[RefusalCode]:
    return [message.code for message in told(actions, link) if isinstance(message, Refused)]


def leased() -> Script:
    script = Script()
    script.open(1)
    script.say(1, TakeLease)
    return script


def prepared() -> Script:
    script = leased()
    script.prepare(1)
    script.device.on_received(1, GRAPHS.transfer, script.now_s)
    script.device.on_prepared(1, READY, script.now_s)
    assert script.state is DeviceState.READY
    return script


def training() -> Script:
    """Round 1 trains as ticket 2 and has told two losses."""
    script = prepared()
    script.start(1)
    script.device.on_received(1, MODEL.transfer, script.now_s)
    script.device.on_begun(2, script.now_s)
    script.device.on_losses(2, (0.9, None), script.now_s)
    assert script.state is DeviceState.TRAINING
    return script


def delivering() -> Script:
    script = training()
    script.device.on_trained(2, TRAINED, script.now_s)
    assert script.state is DeviceState.DELIVERING
    return script
