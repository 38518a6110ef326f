"""A real daemon on the device of somebody who has something to say: their file, their bounds, their log."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from pi_daemon.protocol.messages import (
    Abort,
    AcceptUpdate,
    Hello,
    Ok,
    RefusalCode,
    Refused,
    ReleaseLease,
    Role,
    RoundFailed,
    Telemetry,
)
from tests.loopback.test_daemon_cli import ended
from tests.support.daemons import RUNTIME, START_S, daemon, environment
from tests.support.disks import full, small_disk
from tests.support.links import RawLink, console_hello, open_link
from tests.support.rounds import (
    prepare,
    prepare_command,
    start_command,
    tiny_model,
    write_dataset,
)


@pytest.fixture(autouse=True)
def captured() -> None:
    """The model is made first: that takes seconds, in which a link would be silent."""
    tiny_model()


def write_config(folder: Path, more: str = "", name: str = "config.toml") -> Path:
    """A configuration beside the data that it names."""
    write_dataset(folder / "digits.npz")
    path = folder / name
    path.write_text(f'{more}\n[datasets]\ndigits = "digits.npz"\n')
    return path


async def audit(folder: Path, *options: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr of `pi-daemon audit` about alice's device."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pi_daemon.cli.main", "audit"),
        *("--state-dir", str(folder / "alice"), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(folder / RUNTIME),
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def lines_of(folder: Path) -> list[dict[str, Any]]:
    code, out, err = await audit(folder, "--json")
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


# The file


async def test_the_users_own_file_is_read_and_options_win(tmp_path: Path) -> None:
    folder = tmp_path / RUNTIME / "pi-daemon"
    folder.mkdir(parents=True)
    write_config(folder, 'id = "kitchen"\nshard = "1/3"\nverbose = true')
    async with daemon(tmp_path) as alice:
        line = alice.lines[-1]
        assert line.startswith("pi-daemon alice (")
        assert line.endswith(", datasets: digits (160 examples)\n")


async def test_a_file_that_is_named_is_read_instead(tmp_path: Path) -> None:
    folder = tmp_path / RUNTIME / "pi-daemon"
    folder.mkdir(parents=True)
    write_config(folder, "nonsense = true")
    config = write_config(tmp_path, 'shard = "1/4"')
    async with daemon(tmp_path, "--config", str(config)) as alice:
        assert alice.lines[-1].endswith(", datasets: digits (120 examples)\n")


async def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    wrong = write_config(tmp_path, "prot = 1")
    rule = write_config(tmp_path, "[share]\ndigit = {min_examples = 50}", "rule.toml")
    for file, said in [
        (missing, f"{missing} cannot be read (No such file or directory): see --config"),
        (wrong, f"{wrong}: prot is no key of this file: is port meant?"),
        (
            rule,
            f"{rule}: share.digit is a rule for a dataset that is not here: there is digits",
        ),
    ]:
        code, stderr = await ended(tmp_path, "--port", "0", "--config", str(file))
        assert (code, stderr) == (3, f"pi-daemon: {said}\n")


# Its bounds


async def test_what_is_over_a_bound_is_refused_by_the_name_of_the_limit(tmp_path: Path) -> None:
    config = write_config(tmp_path, "[limits]\nmax_round_batches = 20")
    async with daemon(tmp_path, "--config", str(config)) as alice, open_link(alice.port) as link:
        await prepare(link)
        start = start_command(link)
        assert await link.ask(start, tiny_model().content) == Refused(
            start.cmd_id,
            RefusalCode.NOT_ALLOWED,
            "30 batches in a round; the device's owner allows 20 (max_round_batches)",
            "max_round_batches",
        )
        start = start_command(link, num_batches=20)
        assert await link.ask(start, tiny_model().content) == Ok(start.cmd_id)
        await link.update()


async def test_a_run_whose_time_is_over_ends_in_mid_round_and_the_trainer_goes_on(
    tmp_path: Path,
) -> None:
    config = write_config(tmp_path, "[limits]\nmax_run_seconds = 1.0")
    async with daemon(tmp_path, "--config", str(config)) as alice:
        async with open_link(alice.port, fence=1) as link:
            await prepare(link)
            start = start_command(link, num_batches=1_000_000)
            assert await link.ask(start, tiny_model().content) == Ok(start.cmd_id)
            failed = await link.expect(RoundFailed)
            assert failed.reason.endswith("the device's owner allows 1 (max_run_seconds)")
            assert failed.limit == "max_run_seconds"
            again = await link.ask(start_command(link, round=2), tiny_model().content)
            assert isinstance(again, Refused)
            assert again.limit == "max_run_seconds"
            [trainer] = alice.trainers()
        async with open_link(alice.port, fence=2) as link:
            await prepare(link)
            start = start_command(link, num_batches=20)
            assert await link.ask(start, tiny_model().content) == Ok(start.cmd_id)
            await link.update()
            assert alice.trainers() == [trainer]


async def test_a_dataset_is_kept_from_those_whom_its_rule_does_not_name(tmp_path: Path) -> None:
    config = write_config(tmp_path, "[share]\ndigits = {roles = []}")
    async with daemon(tmp_path, "--config", str(config)) as alice, open_link(alice.port) as link:
        assert isinstance(await link.take_lease(), Ok)
        command = prepare_command(link)
        reason = "the device's owner does not share dataset digits with operators"
        assert await link.ask(command, tiny_model().graphs) == Refused(
            command.cmd_id, RefusalCode.NOT_ALLOWED, reason
        )


async def test_a_round_on_too_few_examples_is_not_trained(tmp_path: Path) -> None:
    config = write_config(tmp_path, "[share]\n'*' = {min_examples = 300}")
    async with daemon(tmp_path, "--config", str(config)) as alice, open_link(alice.port) as link:
        await prepare(link)
        few = await link.ask(start_command(link, num_batches=18), tiny_model().content)
        assert isinstance(few, Refused)
        assert few.limit == "min_examples"
        assert "this round would train on 288 different examples" in few.reason
        start = start_command(link, num_batches=19)
        assert await link.ask(start, tiny_model().content) == Ok(start.cmd_id)


# Its log


async def one_round(link: RawLink) -> tuple[int, str]:
    """Bytes and hash of the update that left the device."""
    await prepare(link)
    start = start_command(link)
    assert await link.ask(start, tiny_model().content) == Ok(start.cmd_id)
    update, _ = await link.update()
    accept = AcceptUpdate(
        cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence, round=1, attempt=1
    )
    assert await link.ask(accept) == Ok(accept.cmd_id)
    return update.parameters.size, update.parameters.sha256


async def test_everything_that_a_console_did_and_got_is_in_the_log(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    async with daemon(tmp_path, "--config", str(config)) as alice, open_link(alice.port) as link:
        hello = link.seen[0]
        assert isinstance(hello, Hello)
        size, sha256 = await one_round(link)
        unknown = prepare_command(link, dataset="mnist")
        assert isinstance(await link.ask(unknown, tiny_model().graphs), Refused)
        released = ReleaseLease(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence)
        assert await link.ask(released) == Ok(released.cmd_id)
        while_it_runs = await lines_of(tmp_path)
        assert {line["console"] for line in while_it_runs} == {"desk-1"}
    lines = await lines_of(tmp_path)
    assert lines[: len(while_it_runs)] == while_it_runs
    whats = [line["what"] for line in lines]
    assert whats == [
        "link opened",
        "lease taken",
        "run prepared",
        "round trained",
        "losses told",
        "update sent",
        "refused",
        "lease released",
        "link closed",
    ]
    [sent] = [line for line in lines if line["what"] == "update sent"]
    assert (sent["bytes"], sent["sha256"], sent["num_examples"]) == (size, sha256, 480)
    assert (sent["console"], sent["console_id"], sent["run"]) == ("desk-1", "console", "run-1")
    [told] = [line for line in lines if line["what"] == "losses told"]
    assert (told["round"], told["losses"]) == (1, 30)
    [refused] = [line for line in lines if line["what"] == "refused"]
    assert (refused["command"], refused["code"]) == ("run.prepare", "no_dataset")


async def test_the_log_is_shown_in_aligned_lines_with_the_sum_of_what_left(
    tmp_path: Path,
) -> None:
    config = write_config(tmp_path)
    async with daemon(tmp_path, "--config", str(config)) as alice:
        async with open_link(alice.port, hello=console_hello(name="desk\x1b[31m-1")) as link:
            size, sha256 = await one_round(link)
            abort = Abort(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence, round=1)
            await link.ask(abort)
        async with open_link(alice.port, hello=console_hello(Role.VIEWER, "tablet")):
            pass
    code, out, err = await audit(tmp_path)
    assert (code, err) == (0, "")
    head, *rows, last = out.splitlines()
    columns = [head.index(name) for name in ("what", "console", "more")]
    assert all(row[column - 1] == " " != row[column] for row in rows for column in columns)
    assert "\x1b" not in out
    [sent] = [row for row in rows if "update sent" in row]
    assert sent.split("  ")[-1] == (
        f"run run-1, round 1, attempt 1, bytes {size}, num_examples 480, sha256 {sha256[:12]}"
    )
    count = len(rows)
    assert last == (
        f"{count} of {count} lines. Left this device in all: 1 updates ({size:,} bytes), "
        "0 evaluations, 30 losses "
        "(once for each console that was told)."
    )
    code, out, _ = await audit(tmp_path, "--last", "2")
    assert [row.split("  ")[1] for row in out.splitlines()[1:-1]] == ["link opened", "link closed"]
    assert out.splitlines()[-1] == last.replace(str(count), "2", 1)


async def test_without_a_log_it_says_where_it_looked(tmp_path: Path) -> None:
    code, out, err = await audit(tmp_path)
    folder = tmp_path / "alice"
    assert (code, out) == (3, "")
    assert err.startswith(f"pi-daemon: there is no audit log in {folder}: see --id")


async def test_who_never_says_who_they_are_is_in_the_log_by_their_address(tmp_path: Path) -> None:
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    async with daemon(tmp_path) as alice:
        address = f"ws://127.0.0.1:{alice.port}"
        async with connect(address, subprotocols=[Subprotocol("fedconsole.v1")]) as stranger:
            await stranger.send('{"type":"lease.renew","cmd_id":"1","run":"r","fence":1}')
            await stranger.wait_closed()
    [line] = await lines_of(tmp_path)
    assert (line["what"], line["console"], line["address"], line["reason"]) == (
        "link refused",
        None,
        "127.0.0.1",
        "the first message must be hello",
    )


async def test_a_full_disk_is_said_once_while_links_are_served_and_lines_follow(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        async with daemon(disk) as alice:
            with full(disk):
                for _ in range(3):
                    async with open_link(alice.port, hello=console_hello(Role.VIEWER)) as link:
                        await link.expect(Telemetry)
                await alice.wait_for_line("the audit log cannot be written")
            await alice.wait_for_line("the audit log is written again")
        assert [line["what"] for line in await lines_of(disk)] == ["link opened", "link closed"] * 3
        said = [line for line in alice.lines if "audit log" in line]
        assert len(said) == 2


# Under systemd


async def test_systemd_is_told_when_it_serves_that_it_lives_and_that_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + f"manager-of-{os.getpid()}")
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@manager-of-{os.getpid()}")
        async with daemon(tmp_path) as alice:
            async with asyncio.timeout(START_S):
                assert await loop.sock_recv(manager, 100) == b"READY=1"
                for _ in range(2):
                    assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
                alice.process.terminate()
                while (told := await loop.sock_recv(manager, 100)) != b"STOPPING=1":
                    assert told == b"WATCHDOG=1"


async def test_a_manager_that_does_not_listen_any_more_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    async with daemon(tmp_path) as alice, open_link(alice.port) as link:
        assert isinstance(await link.take_lease(), Ok)
