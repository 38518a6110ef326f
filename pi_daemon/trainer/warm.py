"""Keeps one trainer at hand: started when it is first needed, and again when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from pi_daemon.protocol.messages import RefusalCode
from pi_daemon.trainer.process import (
    TrainerExitedError,
    TrainerProcess,
    TrainerRefusal,
    start_trainers,
)

R = TypeVar("R")

Asking = Callable[[TrainerProcess], Coroutine[Any, Any, R]]


class WarmTrainer:
    def __init__(self, device: str, max_memory_bytes: int, max_batch_s: float) -> None:
        """As for `start_trainers`."""
        self._device = device
        self._max_memory_bytes = max_memory_bytes
        self._max_batch_s = max_batch_s
        self._trainer: TrainerProcess | None = None
        # Fair: requests reach the trainer in the order in which they were made here.
        self._turn = asyncio.Lock()
        self._is_closed = False

    async def ask(self, request: Asking[R], is_wanted: Callable[[], bool] = lambda: True) -> R:
        """Ask the trainer; it is started if none runs.

        Args:
            is_wanted: whether to ask still, when all that was asked before has reached the trainer.

        Raises:
            TrainerExitedError, TrainerRefusal: as the methods of `TrainerProcess`.
        """
        async with self._turn:
            if not is_wanted():
                raise TrainerRefusal(RefusalCode.WRONG_STATE, "the run has ended here")
            trainer = await self._ensure()
            # A task, so that the request is written before the next one's turn comes.
            reply = asyncio.get_running_loop().create_task(request(trainer))
        return await reply

    async def warm_up(self) -> None:
        """Start the trainer if none runs; what is asked of it next waits less."""
        async with self._turn:
            with suppress(TrainerExitedError):
                await self._ensure()

    async def stop(self, request: Asking[None]) -> None:
        """Ask a running trainer to abort or forget; nobody else asks until it has stopped, or was
        killed for not obeying, since what comes next may need another one."""
        async with self._turn:
            if self._trainer is not None:
                await request(self._trainer)

    async def close(self) -> None:
        """End the trainer, for good."""
        self._is_closed = True
        if self._trainer is not None:
            await self._trainer.close()

    async def _ensure(self) -> TrainerProcess:
        if self._trainer is None or self._trainer.exit_reason is not None:
            self._trainer = await self._start()
        return self._trainer

    async def _start(self) -> TrainerProcess:
        if self._is_closed:
            raise TrainerExitedError("the daemon is closing")
        try:
            [trainer] = await start_trainers(
                device=self._device,
                max_memory_bytes=self._max_memory_bytes,
                max_batch_s=self._max_batch_s,
            )
        except OSError as error:
            raise TrainerExitedError(f"the trainer cannot be started: {error}") from error
        return trainer


def failure(error: TrainerRefusal | TrainerExitedError | OSError) -> tuple[RefusalCode, str]:
    """What a console is told of a request that came to nothing."""
    code = error.code if isinstance(error, TrainerRefusal) else RefusalCode.TRAINER_FAILED
    return code, str(error)
