"""The daemon, its trainer and torch under the system calls that the service leaves them."""

from __future__ import annotations

import ctypes.util
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pi_daemon.protocol.messages import Evaluate, Evaluated, Telemetry
from pi_daemon.trust.keys import open_keys
from pi_daemon.unit import unit
from tests.loopback.test_owner import one_round
from tests.support.daemons import daemon, owner_command
from tests.support.links import open_link
from tests.support.pairing import pair
from tests.support.rounds import tiny_model, write_dataset
from tests.support.tools import require_program
from tests.unit.test_unit_file import place


@pytest.fixture
def confined(tmp_path: Path) -> list[str]:
    """What starts a program in the service's locks."""
    require_program("systemd-analyze", "systemd")
    if ctypes.util.find_library("seccomp") is None:
        pytest.skip("needs libseccomp (Debian package libseccomp2)")
    path = tmp_path / "pi-daemon.service"
    path.write_text(unit(place()))
    return [sys.executable, "-m", "tests.support.confined", str(path)]


async def test_a_daemon_in_the_services_locks_pairs_trains_and_evaluates(
    tmp_path: Path, confined: list[str]
) -> None:
    data = write_dataset(tmp_path / "digits.npz")
    (tmp_path / "alice").mkdir(mode=0o710)
    tiny_model()  # takes seconds, in which a link would be silent
    options = ("--host", "127.0.0.1", "--pair", "--dataset", f"digits={data}")
    async with daemon(tmp_path, *options, under=confined) as alice:
        join = (await owner_command(alice, "pair")).strip()
        desk = await pair(join, open_keys(tmp_path / "desk"))
        async with open_link(alice.port, paired=desk) as link:
            await one_round(link)
            evaluate = Evaluate(
                cmd_id=link.new_cmd_id(),
                run=link.run,
                fence=link.fence,
                round=1,
                model_id=tiny_model().model_id,
                model=None,
            )
            assert isinstance(await link.ask(evaluate), Evaluated)
            telemetry = await link.expect(Telemetry)
            assert telemetry.memory_total_bytes == psutil.virtual_memory().total
        assert "evaluation sent" in await owner_command(alice, "audit")


def test_what_it_finds_out_about_the_machine_is_the_same(confined: list[str]) -> None:
    program = "import json, psutil; print(json.dumps(sorted(psutil.net_if_addrs())))"
    shown = subprocess.run(
        [*confined, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout) == sorted(psutil.net_if_addrs())


@pytest.mark.parametrize(
    "forbidden",
    [
        "import os; os.setpriority(os.PRIO_PROCESS, 0, 5)",
        "import os; os.chown('.', os.getuid(), os.getgid())",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None): raise OSError(ctypes.get_errno(), '')",
    ],
    ids=range(4),
)
def test_the_locks_of_the_test_are_shut(confined: list[str], forbidden: str) -> None:
    tried = subprocess.run(
        [*confined, sys.executable, "-c", forbidden], capture_output=True, text=True, check=False
    )
    assert tried.returncode == 1
    assert "[Errno 1]" in tried.stderr
