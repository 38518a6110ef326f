"""`fedconsole demo`: daemons on this machine, and a run on them over real websockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fedconsole.cli import options as o
from fedconsole.coordinator.plan import Plan


def demo_plan(addresses: Sequence[str], rounds: int = 10) -> Plan:
    """Reaches a test accuracy of 0.95 on digits within seconds."""
    return Plan(
        task="digits",
        workers=tuple(addresses),
        rounds=rounds,
        federate_after_n_batches=20,
        batch_size=32,
        lr=0.05,
    )


def demo(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Daemons to start.")] = 3,
    headless: o.Headless = False,
    json: o.Json = False,
    plain: o.Plain = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> int:
    """Try it out: start some daemons here and train on them; nothing is downloaded."""
    import asyncio

    from fedconsole.cli.console import is_plain, open_demo, wants_full_screen
    from fedconsole.cli.follow import start_and_follow
    from fedconsole.engine.launch import start_engine
    from fedconsole.fleet.local import local_daemons
    from fedconsole.headless import choose_screen

    talks_plainly = is_plain(plain)
    if not headless and wants_full_screen(json, talks_plainly, quiet, verbose):
        return asyncio.run(open_demo(workers))
    verbosity = -1 if quiet else verbose
    screen = choose_screen(json=json, plain=talks_plainly, verbosity=verbosity)

    async def play() -> int:
        async with local_daemons(workers) as addresses:
            plan = demo_plan(addresses)
            return await start_and_follow(lambda run, _: start_engine(run, plan), screen)

    return asyncio.run(play())
