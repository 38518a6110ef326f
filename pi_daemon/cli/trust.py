"""`pi-daemon init`, `pair`, `consoles`: who this device is, and who may speak to it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer

from pi_daemon.cli.refusal import refuse
from pi_daemon.protocol.text import clean
from pi_daemon.trust.consoles import named
from pi_daemon.trust.keys import in_groups

if TYPE_CHECKING:
    from pi_daemon.server.admin import Answer, ListConsoles, PairedConsole, Revoke
    from pi_daemon.trust.join import JoinString

A = TypeVar("A")

WorkerName = Annotated[
    str,
    typer.Option("--id", "--name", metavar="NAME", help="The worker's.", show_default="host name"),
]
StateDir = Annotated[
    str | None,
    typer.Option(help="As of the daemon.", show_default="one for each name"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

consoles_app = typer.Typer(
    no_args_is_help=True, help="Say which consoles are paired, and revoke one."
)


def init(worker_name: WorkerName = "", state_dir: StateDir = None) -> None:
    """Make this device's identity: from then on it listens on the network, to paired consoles alone.

    Prints the device's id. Changes nothing where it has been done.
    """
    from pi_daemon.identity import IdentityError, StateInUseError, open_identity
    from pi_daemon.paths import UnsafePathError
    from pi_daemon.trust.consoles import FOLDER, Consoles

    folder = state_folder(worker_name, state_dir)
    try:
        with open_identity(folder) as identity:
            Consoles(identity.folder / FOLDER)
            print(in_groups(identity.device_id))
    except StateInUseError:
        refuse(
            f"a pi-daemon that runs uses {folder}: stop it, give this command, and start it again"
        )
    except (IdentityError, UnsafePathError, OSError) as error:
        refuse(str(error))
    start = command_line("", worker_name, state_dir)
    print(clean(f"Next: {start} --pair, with its --dataset"), file=sys.stderr)


def pair(
    worker_name: WorkerName = "",
    state_dir: StateDir = None,
    viewer: Annotated[
        bool, typer.Option("--viewer", help="The console may look, and steer nothing.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Where the console finds this device.",
            show_default="that of the way out",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let one console pair with the daemon that runs, within ten minutes.

    Prints the join string for it alone on stdout.
    """
    from pi_daemon.protocol.pairing import ConsoleRole
    from pi_daemon.server.admin import NoDaemonError, Opened, OpenWindow, ask
    from pi_daemon.trust.join import JoinError, parse_join

    folder = _initialised(worker_name, state_dir)
    role = ConsoleRole.VIEWER if viewer else ConsoleRole.OPERATOR
    try:
        answer = ask(folder, OpenWindow(role, address.strip("[]") if address else None))
    except NoDaemonError:
        start = command_line("", worker_name, state_dir)
        refuse(f"no daemon runs that uses {folder}: start it with {start}, then pair")
    opened = _expected(answer, Opened)
    try:
        join = parse_join(opened.join)
    except JoinError:
        refuse(f"--address {address}: expected a host name or an IP address")
    if as_json:
        print(json.dumps({"join": str(join), "role": role, "seconds": opened.seconds}))
    else:
        show_join_string(join)


@consoles_app.command("list")
def list_consoles(
    worker_name: WorkerName = "", state_dir: StateDir = None, as_json: AsJson = False
) -> None:
    """Say which consoles are paired with this device."""
    consoles = _consoles(_initialised(worker_name, state_dir))
    names = {console.id: clean(console.name, 64) for console in consoles}
    if as_json:
        for console in consoles:
            print(json.dumps(msgspec.to_builtins(console)))
        return
    if not consoles:
        print("no console is paired with this device", file=sys.stderr)
        return
    width = max(map(len, ("NAME", *names.values())))
    print(f"{'NAME':<{width}}  ROLE      PAIRED                     ID")
    for console in consoles:
        print(
            f"{names[console.id]:<{width}}  {console.role:<8}  {clean(console.paired_at, 25):<25}  "
            f"{in_groups(console.id)}{'  connected' if console.is_connected else ''}"
        )


@consoles_app.command("revoke")
def revoke_console(
    console: Annotated[str, typer.Argument(metavar="NAME|ID", help="An id may be cut.")],
    worker_name: WorkerName = "",
    state_dir: StateDir = None,
) -> None:
    """Admit a console no more; if it is connected, it is so no longer."""
    from pi_daemon.server.admin import Revoke, Revoked

    folder = _initialised(worker_name, state_dir)
    found = named(_consoles(folder), console)
    if len(found) != 1:
        what = f"{len(found)} consoles are" if found else "no console is"
        shown = "; ".join(f"{c.name} {in_groups(c.id)}" for c in found or _consoles(folder))
        refuse(f"{what} called {console}" + (f": {shown}" if shown else ", and none is paired"))
    _expected(_asked(folder, Revoke(found[0].id)), Revoked)
    print(clean(f"{found[0].name} ({in_groups(found[0].id)}) is revoked"), file=sys.stderr)


def _consoles(folder: Path) -> tuple[PairedConsole, ...]:
    from pi_daemon.server.admin import ListConsoles, Listed

    return _expected(_asked(folder, ListConsoles()), Listed).consoles


def _asked(folder: Path, question: ListConsoles | Revoke) -> Answer:
    """The answer of the daemon that runs, or of the files where none does."""
    from pi_daemon.identity import IdentityError, StateInUseError, open_identity
    from pi_daemon.paths import UnsafePathError
    from pi_daemon.server.admin import NoDaemonError, answer_from, ask
    from pi_daemon.trust.consoles import FOLDER, Consoles

    try:
        try:
            return ask(folder, question)
        except NoDaemonError:
            with open_identity(folder):
                return answer_from(Consoles(folder / FOLDER), question)
    except StateInUseError:
        refuse(f"the daemon that uses {folder} does not answer: try again, or stop it first")
    except (IdentityError, UnsafePathError, OSError) as error:
        refuse(str(error))


def _expected(answer: Answer, kind: type[A]) -> A:
    from pi_daemon.server.admin import Failed

    if not isinstance(answer, kind):
        refuse(answer.reason if isinstance(answer, Failed) else "the daemon answers something else")
    return answer


def _initialised(worker_name: str, state_dir: str | None) -> Path:
    from pi_daemon.discovery import registered_daemons
    from pi_daemon.trust.consoles import is_initialised

    folder = state_folder(worker_name, state_dir)
    if not is_initialised(folder):
        do = command_line("init", worker_name, state_dir)
        others = [d.worker_name for d in registered_daemons() if d.is_initialised]
        refuse(
            f"{folder} holds no initialised device: stop its daemon if one runs, then {do}"
            + (f"; another one runs here: --id {', '.join(others)}" if others else "")
        )
    return folder


def state_folder(worker_name: str, state_dir: str | None) -> Path:
    """The state directory that the daemon with these options uses."""
    from pi_daemon.cli.configuring import chosen, full_name

    name = full_name(worker_name) if worker_name else None
    return chosen(None, {"id": name, "state_dir": state_dir}).state_dir


def command_line(command: str, worker_name: str, state_dir: str | None) -> str:
    """How to give a command to the daemon that has these options."""
    words = ["pi-daemon", *([command] if command else [])]
    if state_dir:
        words += ["--state-dir", state_dir]
    elif worker_name:
        words += ["--id", worker_name]
    return shlex.join(words)


def show_join_string(join: JoinString) -> None:
    """The string alone on stdout, for scripts; on stderr what it is for."""
    print(join, flush=True)
    print(
        f"On the console, within 10 minutes and once:  fedconsole pair '{join}'",
        file=sys.stderr,
        flush=True,
    )
