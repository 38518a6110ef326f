"""The engine process: one run, from the plan on its standard input to its outcome.

Started by `fedconsole.engine.launch`; says on the pipe that its argument names when its control
socket listens, or why the run's folder cannot be used.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator

import msgspec

from fedconsole import paths
from fedconsole.dialling import console_hello
from fedconsole.engine.control import ControlServer
from fedconsole.engine.going_back import go_back_to_whole_model, tell_lost_end
from fedconsole.engine.launch import READY, EngineRequest
from fedconsole.engine.session import Session
from fedconsole.engine.store import Row, RunStore
from fedconsole.engine.worker import Job
from fedconsole.errors import ExitCode, FedconsoleError, StorageError
from pi_daemon.protocol.messages import Role


async def carry(request: EngineRequest, ready: int) -> ExitCode:
    loop = asyncio.get_running_loop()
    try:
        store = RunStore(paths.runs_dir() / request.run_id)
        tell_lost_end(store)
        state = go_back_to_whole_model(store)
    except StorageError as refusal:
        # Not by the engine's log, which may be on the same full disk.
        os.write(ready, str(refusal).encode(errors="replace"))
        raise
    job = Job(
        run_id=request.run_id,
        plan=request.plan,
        hello=console_hello(Role.CONTROLLER),
        store=store,
        captured=loop.create_future(),
        names=loop.create_future(),
    )
    session = Session(job, state, is_dry_run=request.dry_run, search_s=request.search_s)
    control = ControlServer(store, session.request, session.standstill)
    await control.start()
    os.write(ready, READY)
    os.close(ready)
    try:
        exit_code = await session.run()
    except* FedconsoleError as errors:
        # The journal has no end: another engine can go on with the run.
        (error, *_) = _leaves(errors)
        exit_code = error.exit_code
        control.say_last(
            Row(
                "run.finished",
                {"outcome": "failed", "reason": str(error), "exit_code": exit_code},
            )
        )
    await control.close()
    if request.dry_run:
        store.remove()
    else:
        store.close()
    return exit_code


def _leaves(group: BaseExceptionGroup[FedconsoleError]) -> Iterator[FedconsoleError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def main() -> None:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineRequest)
    sys.exit(asyncio.run(carry(request, int(sys.argv[1]))))


if __name__ == "__main__":
    main()
