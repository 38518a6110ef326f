from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedconsole import config, paths
from fedconsole.cli.main import carry_out
from tests.support.places import redirect

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


def test_configuration_is_shown_with_origins_and_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("FEDCONSOLE_DATA", raising=False)
    Path("fedconsole.toml").write_text("[run]\nlr = 0.5\n")
    carry_out(["config", "show", "--origin", "-o", "json"])
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["lr"] == {"key": "lr", "value": 0.5, "origin": "fedconsole.toml"}
    assert carry_out(["config", "check"]) == 0
    assert capsys.readouterr().err == "good: fedconsole.toml\n"
    Path("fedconsole.toml").write_text("[run]\nlr = -1\n")
    assert carry_out(["config", "check"]) == 2
    carry_out(["config", "path"])
    assert capsys.readouterr().out.splitlines()[0] == str(Path("fedconsole.toml").absolute())


def test_a_check_of_the_configuration_names_variables_that_mean_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("FEDCONSOLE_DATA", "/somewhere")
    assert carry_out(["config", "check"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "FEDCONSOLE_DATA is no setting of fedconsole, so it changes nothing",
        "good: no files, all defaults",
    ]


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets $EDITOR to a shell script, with an option of its own; $2 is the file."""

    def use(script: str) -> None:
        path = tmp_path / "an editor"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", f"'{path}' --wait")

    return use


def test_an_edited_configuration_is_made_with_comments_checked_and_kept(
    editor: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("FEDCONSOLE_DATA", raising=False)
    file = paths.user_config()
    editor("exit 0")
    assert carry_out(["config", "edit"]) == 0
    assert "# lr = 0.01\n" in file.read_text()
    assert capsys.readouterr().err == f"good: {file}\n"
    editor("""printf '[run]\\nlr = "much"\\n' > "$2" """)
    assert carry_out(["config", "edit"]) == 3
    assert file.read_text() == '[run]\nlr = "much"\n'
    assert capsys.readouterr().err.splitlines() == [
        f"{file} is kept as you wrote it; to mend it: fedconsole config edit",
        f"fedconsole: lr is 'much' ({file}): expected a number",
    ]
    editor("exit 7")
    assert carry_out(["config", "edit"]) == 3
    assert f"ended with 7; {file} was not checked" in capsys.readouterr().err


def test_without_an_editor_there_is_a_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    assert carry_out(["config", "edit"]) == 3
    assert "set VISUAL or EDITOR" in capsys.readouterr().err
    monkeypatch.setenv("VISUAL", "/no/such/editor")
    assert carry_out(["config", "edit"]) == 3
    assert "cannot start /no/such/editor" in capsys.readouterr().err


def test_the_new_configuration_holds_the_defaults() -> None:
    lines = config.template().splitlines()
    said = [line.removeprefix("# ") for line in lines if not line.endswith("=")]
    Path("fedconsole.toml").write_text("\n".join(said[1:]))
    loaded = config.load({})
    defaults = {setting.key: setting.value for setting in config.Config({}, (), ()).settings()}
    # No test may look for devices: `redirect` sets that one.
    assert {s.key: s.value for s in loaded.settings()} == defaults | {"search_seconds": 0}
    assert [device.address for device in loaded.devices] == ["192.168.0.52:10002"]
    keys = {line.removeprefix("# ").partition(" ")[0] for line in lines if " =" in line}
    assert keys == config.KEYS.keys() | {"host"}
