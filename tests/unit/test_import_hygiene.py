"""What the commands load. A static check cannot see imports inside functions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_help_takes_less_than_a_third_of_a_second_of_processor_time(tmp_path: Path) -> None:
    times = []
    for _ in range(3):
        before = os.times()
        loaded_by(["--help"], tmp_path)
        after = os.times()
        times.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
    assert min(times) < 0.3
