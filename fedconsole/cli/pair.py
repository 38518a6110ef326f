"""`fedconsole pair` and `identity show`: who this console is, and how a device comes to know it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fedconsole.cli.output import Output, OutputOption, harmless, print_rows, say
from fedconsole.errors import UsageError

_COLUMNS = ("device", "address", "role", "device_id", "console_id")
_MAX_INPUT = 4_096

identity = typer.Typer(help="This console's own key.")


def pair(
    join: Annotated[
        str,
        typer.Argument(
            metavar="STRING",
            help="The line that pi-daemon pair prints, in quotes; - reads it from stdin, so that no "
            "shell keeps its secret.",
        ),
    ],
    output: OutputOption = Output.TABLE,
) -> None:
    """Pair with a device: it is known here from then on, and this console there.

    Example: ssh kitchen pi-daemon pair | fedconsole pair -
    """
    import asyncio

    from fedconsole.trust import known_devices
    from fedconsole.trust.own_keys import own_keys
    from fedconsole.trust.pairing import pair as pair_with
    from pi_daemon.protocol.pairing import ConsoleRole
    from pi_daemon.trust.join import JoinError, parse_join
    from pi_daemon.trust.keys import in_groups

    text = sys.stdin.readline(_MAX_INPUT) if join == "-" else join
    try:
        wanted = parse_join(text)
    except JoinError as error:
        raise UsageError(str(error)) from error
    own_id = own_keys().id
    say(f"device   {in_groups(wanted.device_id)}\nconsole  {in_groups(own_id)}")
    device = asyncio.run(pair_with(wanted, lambda: _places(wanted.device_id)))
    for other in known_devices.load().all:
        if other.name == device.name and other.id != device.id:
            say(
                harmless(
                    f"another device named {device.name} is paired, with the key {in_groups(other.id)}. If this "
                    "is the same device and you did not set it up anew, somebody may be in between; if you "
                    f"did: fedconsole devices forget {other.short_id}"
                )
            )
    if output is Output.TABLE:
        address = device.addresses[0]
        steers = device.role is ConsoleRole.OPERATOR
        then = f"run --worker {address}" if steers else f"devices show {device.short_id}"
        print(
            harmless(
                f"paired with {device.name} at {address} as {device.role}; next: fedconsole {then}"
            )
        )
        return
    row = {
        "device": device.name,
        "address": device.addresses[0],
        "role": device.role.value,
        "device_id": device.id,
        "console_id": own_id,
    }
    print_rows([row], _COLUMNS, output)


async def _places(device_id: str) -> list[str]:
    """Where a device that does not answer at its own address is announced."""
    from fedconsole.config import load
    from fedconsole.fleet.finding import candidates, places_of

    say("it does not answer there; looking for it by its id")
    settings = load({})
    try:
        found = await candidates(settings.devices, settings.front_end().search_seconds)
    except OSError as error:
        say(f"no multicast here ({error})")
        found = await candidates(settings.devices, 0)
    return places_of(device_id, found)


@identity.command("show")
def show(output: OutputOption = Output.TABLE) -> None:
    """Print this console's id, as devices show it; made if there is none."""
    from fedconsole.trust.own_keys import own_keys
    from pi_daemon.trust.keys import in_groups

    keys = own_keys()
    if output is Output.TABLE:
        print(in_groups(keys.id))
        say(f"kept in {keys.key_path.parent}")
        return
    row = {"console_id": keys.id, "folder": str(keys.key_path.parent)}
    print_rows([row], tuple(row), output)
