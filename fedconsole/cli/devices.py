"""`fedconsole discover` and `devices ...`: which devices are there, and what they say."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fedconsole.cli.output import (
    Output,
    OutputOption,
    harmless,
    print_rows,
    require_consent,
    say,
)
from fedconsole.errors import (
    FedconsoleError,
    IdentityChangedError,
    NotPairedError,
    RefusedError,
    UsageError,
)

if TYPE_CHECKING:
    from fedconsole.fleet.device import Device
    from fedconsole.fleet.viewer import Greeting
    from pi_daemon.protocol.messages import DatasetCard

T = TypeVar("T")

app = typer.Typer(help="Devices that are known.", invoke_without_command=True)

_NUM_PINGS = 4
_OFFERED = re.compile(r"[\w.:@+][\w.:@+-]*")
"""Names that a shell takes as they are. It puts what is offered on its command line, and zsh evaluates it
on the way: a device that named itself after a command would have it carried out."""
_DISCOVER_COLUMNS = ("name", "address", "trust", "device_id", "source", "others")
_LIST_COLUMNS = (
    *("name", "address", "trust", "state", "run", "datasets", "torch", "machine", "ping_ms"),
)
_CARD_COLUMNS = ("name", "num_examples", "num_classes", "samples", "targets", "sha256")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Read this TOML file first.")]


def _complete(incomplete: str) -> list[str]:
    """Of paired, configured and this machine's devices; the network is not asked."""
    from fedconsole.config import load
    from fedconsole.fleet.finding import find

    try:
        found = _await(find(load({}).devices, 0))
    except FedconsoleError:
        return []
    names = dict.fromkeys(device.name for device in found)
    return [name for name in names if name.startswith(incomplete) and _OFFERED.fullmatch(name)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name, id or address of a device.", autocompletion=_complete
    ),
]


def discover(
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How long to listen; 0: not at all.")
    ] = None,
    output: OutputOption = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Look for devices: on this machine, by mDNS, in the configuration, where paired ones were."""
    devices = _await(_find(config, seconds))
    if not devices:
        say("no devices; start pi-daemon on them, or name them in [[devices]]: fedconsole doctor")
    rows = [
        {
            "name": device.name,
            "address": device.address,
            "trust": _trust(device),
            "device_id": device.device_id,
            "source": device.source,
            "others": list(device.others),
        }
        for device in devices
    ]
    print_rows(rows, _DISCOVER_COLUMNS, output)


@app.callback()
def devices(
    ctx: typer.Context, output: OutputOption = Output.TABLE, config: ConfigFile = None
) -> None:
    """Known devices; without a command, their list."""
    if ctx.invoked_subcommand is None:
        list_devices(output, config)


@app.command("list")
def list_devices(output: OutputOption = Output.TABLE, config: ConfigFile = None) -> None:
    """Ask every known device what it is doing: paired ones, and others that were found."""
    from fedconsole.fleet.viewer import greet_all

    async def look() -> list[Greeting]:
        return await greet_all(await _find(config))

    greetings = _await(look())
    print_rows([_row(greeting) for greeting in greetings], _LIST_COLUMNS, output)
    changed = [str(g.failure) for g in greetings if isinstance(g.failure, IdentityChangedError)]
    if changed:
        raise NotPairedError("; ".join(changed))


@app.command("show")
def show(name: Name, output: OutputOption = Output.TABLE, config: ConfigFile = None) -> None:
    """All that a device tells: identity, state, capabilities, datasets."""
    greeting = _await(_greet(name, config))
    hello = greeting.hello
    if hello is None:
        raise _silent(greeting)
    row = _row(greeting)
    if output is not Output.TABLE:
        print_rows([row], _LIST_COLUMNS, output)
        return
    for key, value in row.items():
        if value is not None and key not in ("datasets", "cards"):
            print(harmless(f"{key.replace('_', ' '):14}  {value}"))
    if row["cards"]:
        print()
        labels = ["label_counts"] if any(card["label_counts"] for card in row["cards"]) else []
        print_rows([_shown(card) for card in row["cards"]], (*_CARD_COLUMNS, *labels), output)


@app.command("ping")
def ping(name: Name, config: ConfigFile = None) -> None:
    """Measure the time to a device and back."""

    async def go() -> None:
        from fedconsole.fleet.viewer import greet

        device = await _device(name, config)
        for _ in range(_NUM_PINGS):
            greeting = await greet(device)
            if greeting.ping_s is None:
                raise _silent(greeting)
            where = greeting.device.address
            print(harmless(f"{device.name} at {where}: {1000 * greeting.ping_s:.1f} ms"))

    _await(go())


@app.command("forget")
def forget(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget a device that is paired: it is a stranger from then on."""
    from fedconsole.trust import known_devices
    from pi_daemon.trust.keys import in_groups

    known = known_devices.load()
    match known.named(name):
        case [device]:
            pass
        case []:
            there = ", ".join(device.name for device in known.all) or "none"
            raise RefusedError(f"no device {name!r} is paired with this console; paired: {there}")
        case several:
            ids = ", ".join(f"{device.name} {device.short_id}" for device in several)
            raise UsageError(f"{name!r} fits several devices: {ids}; give the id of one")
    if not yes:
        require_consent(
            f"forgets {device.name} ({device.short_id})",
            f"Forget {device.name} ({in_groups(device.id)})? It must be paired anew to be used again",
        )
    known_devices.forget(device.id)
    say(
        f"{device.name} is forgotten; to lock this console out there, too: "
        "pi-daemon consoles revoke NAME"
    )


def _await(work: Coroutine[Any, Any, T]) -> T:
    # asyncio takes 25 ms to import, a tenth of what `--help` may take.
    import asyncio

    return asyncio.run(work)


async def find_all(configured: Sequence[Device], seconds: float) -> list[Device]:
    """Every known device; a network without multicast costs a word on stderr and no more."""
    from fedconsole.fleet.device import ONE_IDENTITY
    from fedconsole.fleet.finding import copies, damage, find, registry_damage

    if places := copies():
        say(ONE_IDENTITY.format(why=places))
    for damaged in filter(None, (damage(), registry_damage())):
        say(damaged)
    try:
        return await find(configured, seconds)
    except OSError as error:
        say(f"no multicast here ({error}); only devices of other sources are shown")
        return await find(configured, 0)


async def _find(config: Path | None, seconds: float | None = None) -> list[Device]:
    from fedconsole.config import load

    settings = load({}, config)
    if seconds is None:
        seconds = settings.front_end().search_seconds
    return await find_all(settings.devices, seconds)


async def _device(name: str, config: Path | None) -> Device:
    from fedconsole.fleet.device import Device, Source, parse_address

    found = await _find(config)
    matches = [
        device
        for device in found
        if name in (device.name, *device.places)
        or (device.device_id or "").startswith(name.replace("-", "").upper())
    ]
    # Anybody may announce a name, or answer at an address: whose key is known here is meant first.
    match [device for device in matches if device.is_paired] or matches:
        case [device]:
            return device
        case []:
            if any(mark in name for mark in ".:") or name == "localhost":
                return Device(name, parse_address(name), Source.CONFIG)
            known = ", ".join(device.name for device in found) or "none"
            raise RefusedError(f"no device {name!r}; known: {known}; an address works, too")
        case several:
            where = ", ".join(f"{d.device_id or 'no id'} at {d.address}" for d in several)
            raise UsageError(f"{name!r} fits several devices: {where}; give the id of one")


async def _greet(name: str, config: Path | None) -> Greeting:
    from fedconsole.fleet.viewer import greet_all

    (greeting,) = await greet_all([await _device(name, config)])
    return greeting


def _silent(greeting: Greeting) -> FedconsoleError:
    device = greeting.device
    if greeting.failure is not None:
        return greeting.failure
    where = "" if device.name == device.address else f" at {device.address}"
    return RefusedError(f"{device.name}{where} does not answer: {greeting.reason}")


def _trust(device: Device, greeting: Greeting | None = None) -> str:
    """Whether this console may speak with a device."""
    from fedconsole.fleet.device import is_loopback

    match greeting.failure if greeting else None:
        case IdentityChangedError():
            return "IDENTITY CHANGED"
        case FedconsoleError():
            return "not paired"
    if device.is_paired or (greeting and greeting.is_proven):
        return "paired"
    return "this machine" if is_loopback(device.address) else "not paired"


def _row(greeting: Greeting) -> dict[str, Any]:
    """What a device said, cleaned, as one flat row; None: it said nothing of that."""
    device, hello = greeting.device, greeting.hello
    status = hello.status if hello else None
    able = hello.capabilities if hello else None
    cards = [_card(card) for card in hello.datasets] if hello else []
    return {
        "name": _said(hello.name) if hello else device.name,
        "address": device.address,
        "trust": _trust(device, greeting),
        "id": _said(hello.id) if hello else device.device_id,
        "state": _state(greeting),
        "reason": greeting.reason or None,
        "run": _said(status.run) if status else None,
        "holder": _said(status.holder) if status else None,
        "datasets": [f"{card['name']} ({card['num_examples']})" for card in cards],
        "torch": _said(able.torch) if able else None,
        "machine": _said(able.machine) if able else None,
        "num_cpus": able.num_cpus if able else None,
        "memory_bytes": able.memory_bytes if able else None,
        "max_data_bytes": able.max_data_bytes if able else None,
        "build": _said(hello.build) if hello else None,
        "ping_ms": None if greeting.ping_s is None else round(1000 * greeting.ping_s, 1),
        "cards": cards,
    }


def _state(greeting: Greeting) -> str:
    if (hello := greeting.hello) is not None:
        return hello.status.state.value if hello.status else "online"
    return "links full" if greeting.is_full else "offline"


def _card(card: DatasetCard) -> dict[str, Any]:
    return {
        "name": _said(card.name),
        "num_examples": card.num_examples,
        "num_classes": card.num_classes,
        "sample_shape": list(card.sample_shape),
        "sample_dtype": _said(card.sample_dtype),
        "target_dtype": _said(card.target_dtype),
        "label_counts": None if card.label_counts is None else list(card.label_counts),
        "sha256": card.sha256,
    }


def _shown(card: dict[str, Any]) -> dict[str, Any]:
    """A card's row for people: what belongs together in one cell, the hash by its beginning."""
    shape = " x ".join(map(str, card["sample_shape"])) or "scalar"
    return card | {
        "samples": f"{shape} {card['sample_dtype']}",
        "targets": card["target_dtype"],
        "sha256": card["sha256"][:12],
    }


def _said(text: str | None) -> str | None:
    from pi_daemon.protocol.text import clean

    return clean(text, 64) or None if text is not None else None
