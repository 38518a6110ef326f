"""`pi-daemon install` and `uninstall`: makes the daemon a system service that starts at boot."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from pi_daemon.cli.configuring import SYSTEM_CONFIG, read
from pi_daemon.cli.refusal import refuse

if TYPE_CHECKING:
    from pi_daemon.config import Config

UNIT: Final = Path("/etc/systemd/system/pi-daemon.service")
WANTED: Final = Path("/etc/systemd/system/multi-user.target.wants/pi-daemon.service")
SYSUSERS: Final = Path("/etc/sysusers.d/pi-daemon.conf")

STARTER: Final = """\
# What pi-daemon does on this device. Every key: docs/device.md. After a change:
#   sudo systemctl restart pi-daemon

# id = "kitchen"
state_dir = "/var/lib/pi-daemon"

[datasets]
# motion = "/srv/motion.npz"

[limits]
# max_memory = "512M"
# max_run_rounds = 1000

[share]
# motion = {roles = ["operator"], min_examples = 50}
"""

Root = Annotated[
    Path,
    typer.Option(
        metavar="DIR", help="Another system's files, such as a card's.", show_default="this system"
    ),
]


def install(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the unit.")] = False,
    root: Root = Path("/"),
) -> None:
    """Make the daemon a service of this system, with a user of its own, started at boot.

    It can write nothing but its state directory, and see no home but for the data that
    /etc/pi-daemon/config.toml names. Give the command again when that has changed.
    """
    from pi_daemon.unit import STATE_DIR
    from pi_daemon.unit import SYSUSERS as USERS

    _require_system(root)
    if not dry_run:
        _require_rights(root, "install")
    config = _below(root, SYSTEM_CONFIG)
    settings = read(config if config.exists() else Path(os.devnull), SYSTEM_CONFIG.parent)
    text = _unit(root, settings)
    if dry_run:
        print(text, end="")
        return
    try:
        if not config.exists():
            _write(config, STARTER)
        elif settings.state_dir is None:
            print(f'{config}: add state_dir = "{STATE_DIR}", for `pair` and `audit` to find it')
        _write(_below(root, SYSUSERS), USERS)
        _write(_below(root, UNIT), text)
        wanted = _below(root, WANTED)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        wanted.unlink(missing_ok=True)
        wanted.symlink_to(UNIT)
    except OSError as error:
        refuse(f"{error.filename} cannot be written ({error.strerror})")
    print(f"wrote {_below(root, UNIT)} and {_below(root, SYSUSERS)}; settings: {config}")
    if root != Path("/"):
        return
    _run("systemd-sysusers", str(SYSUSERS))
    _run("systemctl", "daemon-reload")
    _run("systemctl", "restart", "pi-daemon")
    print(
        "pi-daemon runs, and will at each boot: `systemctl status pi-daemon`, "
        "`journalctl -u pi-daemon`.\n"
        f"To let a console pair:  sudo -u pi-daemon {shlex.join(_program())} pair"
    )


def uninstall(root: Root = Path("/")) -> None:
    """End the service and remove its files; settings, key and audit log stay."""
    _require_system(root)
    _require_rights(root, "uninstall")
    if not _below(root, UNIT).exists():
        print(f"there is no service to remove: {_below(root, UNIT)} is not there")
        return
    if root == Path("/"):
        _run("systemctl", "disable", "--now", "pi-daemon")
    try:
        for path in (WANTED, UNIT, SYSUSERS):
            _below(root, path).unlink(missing_ok=True)
    except OSError as error:
        refuse(f"{error.filename} cannot be removed ({error.strerror})")
    if root == Path("/"):
        _run("systemctl", "daemon-reload")
    print(
        f"removed. What stays: {_below(root, SYSTEM_CONFIG)}, and /var/lib/pi-daemon with the key"
    )


def _unit(root: Path, config: Config) -> str:
    from pi_daemon.unit import STATE_DIR, Place, in_home, in_tmp, unit

    program = _program()
    if in_home(sys.prefix):
        refuse(
            f"{program[0]} lies in somebody's home, where the service's user may not read: install it "
            "for all, such as in /opt/fedconsole, and give this command there"
        )
    read = tuple(source for source in config.datasets.values() if source != "sample")
    for path in (program[0], *read):
        if in_tmp(path):
            print(f"warning: the service will not see {path}: its /tmp is its own", file=sys.stderr)
    place = Place(
        program=program,
        config=str(SYSTEM_CONFIG),
        state_dir=config.state_dir or STATE_DIR,
        read=read,
        write=tuple(
            path for path in (config.accept_data, config.state_dir) if path not in (None, STATE_DIR)
        ),
        uses_gpu=config.device == "cuda",
        has_firmware=_below(root, Path("/dev/vcio")).exists(),
    )
    try:
        return unit(place)
    except ValueError as error:
        refuse(str(error))


def _program() -> tuple[str, ...]:
    script = Path(sys.prefix) / "bin" / "pi-daemon"
    return (str(script),) if script.exists() else (sys.executable, "-m", "pi_daemon.cli.main")


def _require_system(root: Path) -> None:
    if not (root / "etc").is_dir():
        refuse(f"there is no system in {root}: it has no folder etc; is the card mounted?")


def _require_rights(root: Path, command: str) -> None:
    if root != Path("/"):
        return
    if os.geteuid() != 0:
        refuse(f"this changes the system: sudo {sys.prefix}/bin/pi-daemon {command}")
    if shutil.which("systemctl") is None:
        refuse("there is no systemctl: this system is not run by systemd; start pi-daemon yourself")


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _write(path: Path, text: str) -> None:
    """The whole file or none, readable for all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        _refuse_failed(command, done.stderr)


def _refuse_failed(command: tuple[str, ...], stderr: str) -> NoReturn:
    *_, last = stderr.strip().splitlines() or ["it said nothing"]
    refuse(f"`{' '.join(command)}` failed: {last}")
