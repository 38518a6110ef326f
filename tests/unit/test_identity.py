from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import msgspec
import pytest

from pi_daemon.device.actions import Fence
from pi_daemon.discovery import (
    RegisteredDaemon,
    damaged_entries,
    registered,
    registered_daemons,
)
from pi_daemon.identity import IdentityError, open_identity
from pi_daemon.paths import UnsafePathError, default_state_dir, make_private, runtime_dir


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_a_key_that_stays(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with open_identity(folder) as first:
        assert len(first.device_id) == 52
        assert first.device_id.startswith(first.short_id)
    with open_identity(folder) as second:
        assert second.device_id == first.device_id
    with open_identity(tmp_path / "other") as other:
        assert other.device_id != first.device_id
    assert (mode_of(folder), mode_of(folder / "key.pem")) == (0o700, 0o600)


def test_two_daemons_do_not_share_a_state_directory(tmp_path: Path) -> None:
    with (
        open_identity(tmp_path / "state"),
        pytest.raises(IdentityError, match=r"another pi-daemon uses .* give this one another --id"),
        open_identity(tmp_path / "state"),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"nothing", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_broken_key_is_refused_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    folder = make_private(tmp_path / "state")
    (folder / "key.pem").write_bytes(content)
    (folder / "key.pem").chmod(0o600)
    with (
        pytest.raises(IdentityError, match=r"holds no private key .* restore it, or delete it"),
        open_identity(folder),
    ):
        pass


def test_a_key_that_others_can_read_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with open_identity(folder):
        pass
    (folder / "key.pem").chmod(0o644)
    with pytest.raises(IdentityError, match=r"has mode 0644.*chmod 600"), open_identity(folder):
        pass


def test_a_state_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(UnsafePathError, match=r"has mode 0755.*chmod 700"), open_identity(folder):
        pass


def test_a_link_is_no_private_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafePathError, match=r"is not a folder of this user's"):
        make_private(tmp_path / "link")


def test_the_highest_fence_is_remembered(tmp_path: Path) -> None:
    with open_identity(tmp_path / "state") as identity:
        assert identity.load_fence() == Fence()
        identity.save_fence(Fence(7, "run-1", "KEY"))
        identity.save_fence(Fence(8, "run-2", "KEY"))
    with open_identity(tmp_path / "state") as identity:
        assert identity.load_fence() == Fence(8, "run-2", "KEY")


def test_a_damaged_fence_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with open_identity(tmp_path / "state") as identity:
        (identity.folder / "fence.json").write_bytes(b"{")
        with pytest.raises(
            IdentityError, match=r"is damaged .* delete it while no run is going on"
        ):
            identity.load_fence()


def test_each_name_has_a_state_directory_inside_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_state_dir("alice") == Path("/state/pi-daemon/alice")
    assert default_state_dir("../../etc/x y") == Path("/state/pi-daemon/_.._etc_x_y")
    assert default_state_dir("..") == Path("/state/pi-daemon/_")


@pytest.fixture
def _own_runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.usefixtures("_own_runtime_dir")
def test_daemons_of_this_machine_are_found_while_they_run() -> None:
    bob = RegisteredDaemon("B" * 52, "bob", "127.0.0.1", 2, os.getpid())
    alice = RegisteredDaemon("A" * 52, "alice", "127.0.0.1", 1, os.getpid())
    dead = RegisteredDaemon("D" * 52, "dead", "127.0.0.1", 3, 2**22 + 1)
    with registered(bob), registered(alice), registered(dead):
        assert registered_daemons() == [alice, bob]
        assert not list(runtime_dir().glob("daemons/D*"))
    assert registered_daemons() == []


@pytest.mark.usefixtures("_own_runtime_dir")
def test_what_a_power_cut_left_of_a_daemon_is_not_taken_for_a_second_one() -> None:
    # Another program has its process id by now.
    before = RegisteredDaemon("A" * 52, "alice", "127.0.0.1", free_port(), os.getppid())
    alice = RegisteredDaemon("A" * 52, "alice", "127.0.0.1", 1, os.getpid())
    with registered(before), registered(alice):
        assert registered_daemons() == [alice]


def free_port() -> int:
    """At which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("_own_runtime_dir")
@pytest.mark.parametrize(
    "damage", [b"{", ("127.0.0.1", 65_536), ("127.0.0.1", 0), ("a b", 1), ("", 1), None]
)
def test_a_damaged_entry_hides_no_other_and_is_named(
    damage: bytes | tuple[str, int] | None,
) -> None:
    alice = RegisteredDaemon("A" * 52, "alice", "127.0.0.1", 1, os.getpid())
    with registered(alice):
        entry = runtime_dir() / "daemons" / "x.json"
        match damage:
            case None:
                os.mkfifo(entry)
            case bytes():
                entry.write_bytes(damage)
            case address, port:
                daemon = RegisteredDaemon("B" * 52, "bob", address, port, os.getpid())
                entry.write_bytes(msgspec.json.encode(daemon))
        assert registered_daemons() == [alice]
        assert damaged_entries() == [entry]
