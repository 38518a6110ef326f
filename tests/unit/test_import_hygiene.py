"""What the commands load. A static check cannot see imports inside functions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import redirect

SLOW = {
    "cryptography",
    "numpy",
    "safetensors",
    "sklearn",
    "textual",
    "torch",
    "websockets",
    "zeroconf",
}
COMMANDS = [
    [],
    ["run"],
    ["demo"],
    ["attach"],
    ["logs"],
    ["runs", "export"],
    ["screenshot"],
    ["deal"],
    ["discover"],
    ["devices", "show"],
    ["config", "show"],
    ["doctor"],
]

_PROBE = """
import sys
from fedconsole.cli.main import carry_out
exit_code = carry_out(sys.argv[1:])
print("loaded:", *sorted(name for name in sys.modules if "." not in name))
sys.exit(exit_code)
"""


def loaded_by(arguments: list[str], tmp_path: Path) -> set[str]:
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_loads_no_slow_library(command: list[str], tmp_path: Path) -> None:
    assert loaded_by([*command, "--help"], tmp_path) & SLOW == set()


@pytest.mark.parametrize("command", [["runs", "list"], ["config", "show"], ["doctor"]])
def test_looking_at_this_machine_loads_no_slow_library(command: list[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert loaded_by(command, tmp_path) & SLOW == set()


_COMPLETION = """
import sys

def refuse(event, _arguments):
    if event in ("socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"):
        raise RuntimeError(event)

sys.addaudithook(refuse)
from fedconsole.cli.devices import _complete
assert _complete("ki") == ["kitchen"]
print(*sys.modules)
"""


def test_completing_a_device_asks_nobody_and_loads_no_slow_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    redirect(tmp_path, monkeypatch)
    monkeypatch.setenv("FEDCONSOLE_SEARCH_SECONDS", "3")
    Path("fedconsole.toml").write_text("[[devices]]\nhost = '192.0.2.2'\nname = 'kitchen'\n")
    done = subprocess.run(
        [sys.executable, "-c", _COMPLETION], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & SLOW == set()


@pytest.mark.parametrize(
    "module",
    [
        "fedconsole.headless",
        "fedconsole.history",
        "fedconsole.config",
        "fedconsole.fleet.viewer",
        "fedconsole.cli.follow",
    ],
)
def test_the_front_ends_never_load_torch_or_textual(module: str) -> None:
    probe = f"import sys, {module}; print(*({{'torch', 'textual', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


_FIRST_SCREEN = """
import asyncio, sys
from fedconsole.tui.app import FedconsoleApp
from tests.support.desk import PreparedDesk

async def show():
    async with FedconsoleApp(PreparedDesk(), has_bell=False).run_test() as pilot:
        await pilot.pause(0)

asyncio.run(show())
print(*(name for name in sys.modules if name.startswith("fedconsole.tui.screens.")))
"""


def test_the_console_shows_its_first_screen_before_it_loads_the_others() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_SCREEN], capture_output=True, text=True, check=True
    )
    loaded = {name.rpartition(".")[2] for name in done.stdout.split()}
    assert loaded == {"first", "fleet"}


def test_the_first_screen_waits_neither_for_dialogs_nor_for_the_protocol() -> None:
    probe = "import sys, fedconsole.tui.app, fedconsole.tui.screens.fleet; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "fedconsole.fleet.inventory" in loaded
    assert not {name for name in loaded if name.startswith("fedconsole.tui.dialogs.")}
    assert "pi_daemon.protocol.messages" not in loaded
