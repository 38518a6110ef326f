"""The systemd unit of `pi-daemon install`: what systemd thinks of it, and where its files go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pi_daemon.config import parse
from pi_daemon.unit import Place, unit
from tests.support.tools import require_program

EXPOSURE = 1.2
"""At most, of 10; systemd 252 says 1.1."""


def place(**changes: object) -> Place:
    fields: dict[str, object] = {
        "program": ("/usr/bin/true",),
        "config": "/etc/pi-daemon/config.toml",
        "state_dir": "/var/lib/pi-daemon",
        "read": ("/srv/motion.npz",),
        "write": (),
    }
    return Place(**(fields | changes))  # type: ignore[arg-type]


def install(
    root: Path, *options: str, command: str = "install"
) -> subprocess.CompletedProcess[str]:
    (root / "etc").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "pi_daemon.cli.main", command, "--root", str(root), *options],
        capture_output=True,
        text=True,
        check=False,
    )


def written(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


UNIT = "etc/systemd/system/pi-daemon.service"
FILES = {
    UNIT,
    "etc/systemd/system/multi-user.target.wants/pi-daemon.service",
    "etc/sysusers.d/pi-daemon.conf",
    "etc/pi-daemon/config.toml",
}


def test_systemd_finds_the_service_well_locked_in(tmp_path: Path) -> None:
    analyze = require_program("systemd-analyze", "systemd")
    assert install(tmp_path).returncode == 0
    threshold = f"--threshold={round(EXPOSURE * 10)}"
    looked = subprocess.run(
        [analyze, "security", "--offline=true", threshold, str(tmp_path / UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode == 0, looked.stdout + looked.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"read": ("/home/pi/my data/100%.npz",), "write": ("/home/pi/dealt", "/srv/dealt")},
        {"uses_gpu": True},
        {"has_firmware": True},
    ],
    ids=range(4),
)
def test_systemd_understands_every_line_of_it(tmp_path: Path, changes: dict[str, object]) -> None:
    analyze = require_program("systemd-analyze", "systemd")
    path = tmp_path / "pi-daemon.service"
    path.write_text(unit(place(**changes)))
    verified = subprocess.run(
        [analyze, "verify", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    of_the_unit = [line for line in verified.stderr.splitlines() if "pi-daemon" in line]
    assert (verified.returncode, of_the_unit) == (0, [])


def test_data_is_read_only_and_homes_are_hidden_but_for_it() -> None:
    lines = unit(place(read=("/home/pi/my data/100%.npz", "/srv/b.npz"), write=("/srv/dealt",)))
    shown = [line for line in lines.splitlines() if "Paths" in line or "Home" in line]
    assert shown == [
        "ProtectHome=tmpfs",
        'BindReadOnlyPaths=-"/home/pi/my data/100%%.npz"',
        "ReadOnlyPaths=-/srv/b.npz",
        "ReadWritePaths=-/srv/dealt",
    ]
    assert "ProtectHome=yes" in unit(place())


def test_install_writes_below_another_root_and_uninstall_leaves_the_owners_files(
    tmp_path: Path,
) -> None:
    assert install(tmp_path).returncode == 0
    assert written(tmp_path) == FILES
    parse((tmp_path / "etc/pi-daemon/config.toml").read_text(), "config.toml")
    wanted = tmp_path / "etc/systemd/system/multi-user.target.wants/pi-daemon.service"
    assert str(wanted.readlink()) == f"/{UNIT}"
    removed = install(tmp_path, command="uninstall")
    assert removed.returncode == 0
    assert written(tmp_path) == {"etc/pi-daemon/config.toml"}


def test_installing_again_takes_the_data_from_the_settings_and_keeps_them(tmp_path: Path) -> None:
    install(tmp_path)
    config = tmp_path / "etc/pi-daemon/config.toml"
    text = (
        'accept_data = "/srv/dealt"\ndevice = "cuda"\n'
        '[datasets]\nmotion = "/srv/motion.npz"\nnear = "near.npz"\ndigits = "sample"\n'
    )
    config.write_text(text)
    again = install(tmp_path)
    assert again.returncode == 0
    assert f'{config}: add state_dir = "/var/lib/pi-daemon", for' in again.stdout
    assert config.read_text() == text
    lines = (tmp_path / UNIT).read_text().splitlines()
    assert [line for line in lines if "Paths" in line or "PrivateDevices" in line] == [
        "PrivateDevices=no",
        "ReadOnlyPaths=-/srv/motion.npz",
        "ReadOnlyPaths=-/etc/pi-daemon/near.npz",
        "ReadWritePaths=-/srv/dealt",
    ]


def test_a_path_with_a_line_end_writes_no_line_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "etc/pi-daemon/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[datasets]\nd = "/srv/a\\nBindPaths=/root"\n')
    refused = install(tmp_path)
    assert refused.returncode == 3
    # A program in /tmp is warned of before.
    assert refused.stderr.splitlines()[-1] == (
        "pi-daemon: '/srv/a\\nBindPaths=/root' has a character that no line of a unit can have"
    )
    assert written(tmp_path) == {"etc/pi-daemon/config.toml"}


def test_what_a_path_says_to_systemd_is_only_the_path() -> None:
    command = ("/opt/my tools/pi-daemon",)
    lines = unit(place(program=command, state_dir="/srv/$HOME 100%")).splitlines()
    assert [line for line in lines if line.startswith("ExecStart")] == [
        'ExecStartPre="/opt/my tools/pi-daemon" init --state-dir "/srv/$$HOME 100%%"',
        'ExecStart="/opt/my tools/pi-daemon" --config /etc/pi-daemon/config.toml '
        '--state-dir "/srv/$$HOME 100%%"',
    ]


def test_a_card_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for command in ("install", "uninstall"):
        refused = subprocess.run(
            [sys.executable, "-m", "pi_daemon.cli.main", command, "--root", str(tmp_path / "card")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode == 3
        assert refused.stderr.startswith(f"pi-daemon: there is no system in {tmp_path / 'card'}: ")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_uninstall_is_said(tmp_path: Path) -> None:
    said = install(tmp_path, command="uninstall")
    assert said.returncode == 0
    assert said.stdout.startswith("there is no service to remove: ")


def test_settings_that_cannot_be_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = tmp_path / "etc/pi-daemon/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("prot = 1\n")
    refused = install(tmp_path)
    assert refused.returncode == 3
    said = f"pi-daemon: {config}: prot is no key of this file: is port meant?\n"
    assert refused.stderr == said
    assert written(tmp_path) == {"etc/pi-daemon/config.toml"}


def test_a_dry_run_prints_the_unit_and_writes_nothing(tmp_path: Path) -> None:
    shown = install(tmp_path, "--dry-run")
    assert shown.returncode == 0
    assert shown.stdout.startswith("[Unit]\n")
    assert written(tmp_path) == set()


def test_without_the_rights_for_it_install_says_sudo() -> None:
    program = "from pi_daemon.cli.main import carry_out\ncarry_out(['install', '--dry-run'])\n"
    if os.geteuid() == 0:
        # Somebody without rights, for whom the program is loaded already.
        program += "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    program += "raise SystemExit(carry_out(['install']))"
    refused = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 3
    *_, last = refused.stderr.splitlines()
    assert last.startswith("pi-daemon: this changes the system: sudo ")
