from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from fedconsole.errors import DeviceFullError, IdentityChangedError, NotPairedError
from fedconsole.fleet.device import Device, Source
from fedconsole.fleet.inventory import Hindrance
from fedconsole.tui.dialogs.help import HelpDialog
from fedconsole.tui.dialogs.pairing import PairingDialog
from fedconsole.tui.screens.fleet import FleetScreen
from fedconsole.tui.screens.new_run import NewRunScreen
from fedconsole.tui.widgets.line_table import LineTable
from tests.support.desk import PreparedDesk
from tests.support.histories import focused_label, lines_of, press, text_of, told
from tests.tui.driving import add_device, card, console, hello, palette_of, shows, telemetry, until

KITCHEN, ATTIC, SHED = "10.0.0.1:10002", "10.0.0.2:10002", "10.0.0.3:10002"
WIDE = (170, 40)


@pytest.fixture
def desk() -> PreparedDesk:
    desk = PreparedDesk()
    digits = [card(label_counts=[1, 8])]
    add_device(desk, "kitchen", KITCHEN, said=hello("kitchen", datasets=digits))
    add_device(desk, "attic", ATTIC, health=telemetry(celsius=82.0, throttled=0x40001))
    desk.inventory.found(Device("shed", SHED, Source.CONFIG))
    desk.inventory.pinged(KITCHEN, 0.0042, desk.time_s)
    return desk


def table_of(pilot: Pilot[None]) -> LineTable:
    return pilot.app.screen.query_one("#devices", LineTable)


def names_of(pilot: Pilot[None]) -> list[str]:
    """Names in the order of the rows."""
    names = ("kitchen", "attic", "shed")
    return [name for line in lines_of(pilot)[3:8] for name in names if f" {name} " in line]


# Devices


async def test_every_device_has_a_row_with_all_that_it_told(desk: PreparedDesk) -> None:
    async with console(desk, "fleet", (290, 20)) as pilot:
        rows = [" ".join(line.split("│")[0].split()) for line in lines_of(pilot)[3:6]]
    assert rows == [
        f"□ ● online attic idle 82 HOT! UV! thr no dataset 0.5 1.0G/4.0G - 0s {ATTIC}"
        " - 20.0G aarch64 4… LBMO5HN pi-daemon 0.1.0",
        f"□ ● online kitchen idle 48 - digits 479 ▁█ 0.5 1.0G/4.0G 4 ms 0s {KITCHEN}"
        " - 20.0G aarch64 4… LBMO5HN pi-daemon 0.1.0",
        f"□ ◇ new shed - - - - - - - - {SHED} - - - - -",
    ]


async def test_a_device_that_comes_later_appears(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        assert "garage" not in text_of(pilot)
        add_device(desk, "garage", "10.0.0.4:10002")
        await shows(pilot, "garage", "● 3 online")


async def test_without_devices_it_says_how_to_get_some() -> None:
    desk = PreparedDesk()
    async with console(desk) as pilot:
        assert "Looking for devices, here and on the network…" in text_of(pilot)
        desk.inventory.is_searched = True
        await shows(pilot, "No devices yet; still looking.")
        assert "fedconsole demo" in text_of(pilot)
        await press(pilot, "enter", "escape", "space", "asterisk", "s")
        assert isinstance(pilot.app.screen, FleetScreen)


async def test_what_stands_in_the_way_of_finding_devices_is_told(desk: PreparedDesk) -> None:
    desk.inventory.hindered(Hindrance.NO_MULTICAST, "no route\x1b[2J")
    async with console(desk) as pilot:
        assert "▲ no multicast here (no route" in text_of(pilot)
        assert "add devices by address with +" in text_of(pilot)


async def test_presence_counts_up_by_the_clock(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        seen = {}
        for seconds in (0, 6, 7, 9, 15, 16, 75, 7_200):
            desk.time_s = 1_000.0 + seconds
            await press(pilot)
            row = next(line for line in lines_of(pilot) if " kitchen " in line)
            seen[seconds] = row.split(" kitchen ")[0].removeprefix("□").strip()
        assert "○ 2 offline  ◇ 1 new" in lines_of(pilot)[1]
    assert seen == {
        0: "● online",
        6: "● online",
        7: "◐ stale 7s",
        9: "◐ stale 9s",
        15: "◐ stale 15s",
        16: "○ offline 16s",
        75: "○ offline 1m",
        7_200: "○ offline 2h",
    }


@pytest.mark.parametrize(("silence_s", "is_told"), [(12, True), (16, False)])
async def test_what_a_device_that_is_gone_did_last_is_not_shown_as_what_it_does(
    silence_s: float, is_told: bool
) -> None:
    desk = PreparedDesk()
    busy = {"state": "training", "run": "20261123-abcd"}
    add_device(desk, "kitchen", KITCHEN, said=hello("kitchen", status=busy))
    async with console(desk, size=(240, 40)) as pilot:
        await press(pilot, "slash", *"doing:training", "enter")
        await shows(pilot, "online", "training", "20261123-abcd")
        desk.let_pass(silence_s)
        await shows(pilot, "stale" if is_told else "no device")
        await press(pilot, "escape")
        await shows(pilot, "kitchen")
        shown = text_of(pilot).replace("doing:training", "")
        assert ("training" in shown, "20261123-abcd" in shown) == (is_told, is_told)


async def test_a_device_is_offline_as_soon_as_its_link_is_lost(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        desk.inventory.lost(KITCHEN, "the connection was lost")
        await shows(pilot, "○ offline 0s  kitchen", "● 1 online", "○ 1 offline")
        desk.inventory.linked(KITCHEN, hello("kitchen"), desk.time_s)
        await shows(pilot, "● online      kitchen")


# The details


async def test_the_details_tell_everything_of_the_device_under_the_cursor(
    desk: PreparedDesk,
) -> None:
    async with console(desk, "fleet", WIDE) as pilot:
        pane = "\n".join(line.partition("│")[2].strip() for line in lines_of(pilot))
        assert "attic\n● online, heard 0s ago" in pane
        assert "temperature   82 HOT!\nthrottling    UV! thr\nRAM in use    25.0%" in pane
        assert "fedconsole devices show attic\nfedconsole devices ping attic" in pane
        await press(pilot, "down")
        await shows(pilot, "digits: 479 examples, 10 classes, 8x8 uint8, content")
        assert "round trip    4.2 ms" in text_of(pilot)
        desk.inventory.lost(KITCHEN, "the connection was lost")
        desk.time_s += 61
        await shows(pilot, "│ ○ offline, heard 1m ago", "│ the connection was lost")


@pytest.mark.parametrize("key", ["d", "enter"])
async def test_a_key_opens_the_details_where_they_are_hidden(desk: PreparedDesk, key: str) -> None:
    async with console(desk, "fleet", (80, 40)) as pilot:
        assert "found by" not in text_of(pilot)
        await press(pilot, key)
        assert "found by      mDNS" in text_of(pilot)
        await press(pilot, "escape")
        assert "found by" not in text_of(pilot)
        assert isinstance(pilot.app.screen, FleetScreen)


@pytest.mark.parametrize("is_in_tmux", [False, True])
async def test_copying_takes_the_row_of_the_device_and_keeps_it_in_a_file(
    desk: PreparedDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_tmux: bool
) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    if is_in_tmux:
        monkeypatch.setenv("TMUX", "/tmp/tmux-1000/default,1,0")
    desk.folder = tmp_path / "exports"
    async with console(desk) as pilot:
        await press(pilot, "end", "y")
        assert pilot.app.clipboard.split("\t")[:2] == ["◇ new", "shed"]
        assert (desk.folder / "copied.txt").read_text() == pilot.app.clipboard
        assert [text.endswith("set-clipboard on)") for text in told(pilot)] == [is_in_tmux]


# Filter and order


async def test_a_filter_leaves_what_matches_until_escape(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "slash", *"state:online")
        assert names_of(pilot) == ["attic", "kitchen"]
        assert "2/3" in text_of(pilot)
        await press(pilot, "enter")
        assert table_of(pilot).has_focus
        desk.time_s += 20
        await shows(pilot, "nothing matches the filter")
        await press(pilot, "escape")
        assert names_of(pilot) == ["attic", "kitchen", "shed"]


async def test_what_is_typed_into_the_filter_is_seen(desk: PreparedDesk) -> None:
    async with console(desk, "fleet", (80, 24)) as pilot:
        await press(pilot, "slash", *"state:on")
        assert lines_of(pilot)[-2].startswith(" / state:on")


@pytest.mark.parametrize("typed", ['""', "''", '10.0 ""'])
async def test_a_pair_of_quotes_matches_everything(typed: str, desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "slash", *typed)
        assert "3/3" in text_of(pilot)


async def test_s_sorts_by_the_next_column_and_capital_s_reverses(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        assert "name▲" in lines_of(pilot)[2]
        await press(pilot, "S")
        assert names_of(pilot) == ["shed", "kitchen", "attic"]
        assert "name▼" in lines_of(pilot)[2]
        await press(pilot, "S", "s", "s")
        assert "°C▲" in lines_of(pilot)[2]
        assert names_of(pilot) == ["kitchen", "attic", "shed"]


async def test_a_click_on_a_title_sorts_and_another_one_reverses(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        orders = []
        for _ in range(2):
            await pilot.click(offset=(lines_of(pilot)[2].index("°C"), 2))
            await press(pilot)
            orders.append(names_of(pilot))
    # What is not known stays last.
    assert orders == [["kitchen", "attic", "shed"], ["attic", "kitchen", "shed"]]


async def test_the_cursor_stays_on_its_device_when_the_order_changes(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "down")
        assert table_of(pilot).current == KITCHEN
        await press(pilot, "S", "s")
        assert table_of(pilot).current == KITCHEN


# Marks, and what follows from them


async def test_space_marks_one_device_and_asterisk_all(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "space")
        assert table_of(pilot).marked == {ATTIC}
        assert table_of(pilot).current == KITCHEN
        assert "1 marked" in text_of(pilot)
        assert [line[0] for line in lines_of(pilot)[3:6]] == ["■", "□", "□"]
        await press(pilot, "asterisk")
        assert table_of(pilot).marked == {KITCHEN, ATTIC, SHED}
        await press(pilot, "asterisk")
        assert table_of(pilot).marked == set()
        assert "marked" not in text_of(pilot)


@pytest.mark.parametrize("x", [0, 1])
async def test_a_click_on_the_box_or_beside_it_marks(desk: PreparedDesk, x: int) -> None:
    async with console(desk) as pilot:
        await pilot.click(offset=(x, 4))
        await press(pilot)
        assert table_of(pilot).marked == {KITCHEN}


async def test_n_carries_the_marked_devices_to_the_form(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "space", "end", "space", "n")
        screen = pilot.app.screen
        assert isinstance(screen, NewRunScreen)
        assert screen.state.workers == (ATTIC, SHED)
        await shows(pilot, f"fedconsole run --worker {ATTIC} --worker {SHED}")


async def test_n_without_marks_takes_the_device_under_the_cursor(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "down", "n")
        screen = pilot.app.screen
        assert isinstance(screen, NewRunScreen)
        assert screen.state.workers == (KITCHEN,)


async def test_plus_adds_a_device_by_its_address(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "plus", *"10.0.0.9", "enter")
        assert desk.added == ["10.0.0.9:10002"]
        assert told(pilot) == ["fedconsole devices show 10.0.0.9:10002"]
        assert table_of(pilot).has_focus


async def test_a_bad_address_is_refused_and_stays_to_be_mended(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "plus", *"10.0.0.9:port", "enter")
        assert told(pilot) == [
            "'10.0.0.9:port' is no address; expected HOST:PORT, such as 192.168.0.52:10002"
        ]
        assert pilot.app.screen.query_one("#address", Input).value == "10.0.0.9:port"
        assert " 10.0.0.9:port" in text_of(pilot)
        await press(pilot, *["backspace"] * 4, *"7000", "enter")
        assert desk.added == ["10.0.0.9:7000"]


async def test_escape_leaves_the_address_and_adds_nothing(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "plus", *"10.0.0.9", "escape")
        assert table_of(pilot).has_focus
        await press(pilot, "plus")
        assert pilot.app.screen.query_one("#address", Input).value == ""
        assert desk.added == []


async def test_the_help_names_the_screen_s_keys_and_their_commands(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "question_mark")
        assert isinstance(pilot.app.screen, HelpDialog)
        assert "fedconsole devices show " in text_of(pilot)
        assert "New run with these" in text_of(pilot)


# Trust


KNOWN_ID, FOUND_ID, OWN_ID = "K" * 52, "M" * 52, "D" * 52
SECRET = "4KAJWKBR5RGYOW7J"
JOIN = f"fp1:192.168.0.52:10002:{KNOWN_ID}:{SECRET}"


def put_paired(desk: PreparedDesk, error: NotPairedError | None = None) -> None:
    record = desk.inventory.found(
        Device("cellar", "10.0.0.9:10002", Source.KNOWN, KNOWN_ID, is_paired=True)
    )
    assert record is not None
    if error is not None:
        desk.inventory.lost(record.key, str(error), error)


async def test_a_changed_key_is_said_in_words_with_both_ids_until_it_is_proved_again(
    desk: PreparedDesk,
) -> None:
    desk.own_id = OWN_ID
    put_paired(desk, IdentityChangedError("10.0.0.9:10002", "cellar", KNOWN_ID, FOUND_ID))
    async with console(desk, "fleet", WIDE) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, FleetScreen)
        assert "IDENTITY CHANGED: cellar at 10.0.0.9:10002 has the key MMMMMMM" in text_of(pilot)
        assert "✗ KEY CHANGED cellar" in text_of(pilot)
        screen.show_device("10.0.0.9:10002")
        await shows(pilot, "paired key", "│ KKKKKKK-KKKKKKK-", "key found", "│ MMMMMMM-MMMMMMM-")
        assert "│ DDDDDDD-DDDDDDD-" in text_of(pilot)
        # Trying another place in vain takes nothing back.
        desk.inventory.lost("10.0.0.9:10002", "no answer in time")
        await shows(pilot, "IDENTITY CHANGED: cellar")
        desk.inventory.linked("10.0.0.9:10002", hello("cellar"), desk.time_s)
        await shows(pilot, "● online      cellar")
        assert "IDENTITY CHANGED" not in text_of(pilot)


async def test_a_device_that_is_not_paired_is_shown_as_such(desk: PreparedDesk) -> None:
    desk.inventory.lost(SHED, "pair it", NotPairedError("pair it"))
    async with console(desk) as pilot:
        assert "· not paired  shed" in text_of(pilot)
        assert "· 1 not paired" in lines_of(pilot)[1]


async def test_a_device_that_has_no_link_left_for_this_console_says_so(
    desk: PreparedDesk,
) -> None:
    why = "8 consoles are connected already"
    desk.inventory.lost(SHED, why, DeviceFullError(why))
    async with console(desk, size=(160, 40)) as pilot:
        assert "◆ links full  shed" in text_of(pilot)
        assert "◆ 1 links full" in lines_of(pilot)[1]
        await press(pilot, "end", "enter")
        await shows(pilot, why)
        desk.inventory.linked(SHED, hello("shed"), desk.time_s)
        await shows(pilot, "● online      shed")


async def test_a_device_is_paired_by_the_line_that_is_pasted_which_is_shown_nowhere(
    desk: PreparedDesk,
) -> None:
    async with console(desk) as pilot:
        await press(pilot, "p")
        assert isinstance(pilot.app.screen, PairingDialog)
        pilot.app.screen.query_one(Input).value = JOIN
        await shows(pilot, "device  KKKKKKK-KKKKKKK", "at      192.168.0.52:10002")
        assert SECRET not in text_of(pilot)
        assert SECRET not in pilot.app.export_screenshot()
        desk.refusal = NotPairedError("this join string was used")
        await press(pilot, "enter")
        await shows(pilot, "✗ this join string was used")
        desk.refusal = None
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, FleetScreen))
        assert desk.paired == [JOIN]
        assert told(pilot) == ["paired with kitchen", "fedconsole pair 'fp1:...'"]


async def test_escape_leaves_the_pairing(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "p", "escape")
        assert isinstance(pilot.app.screen, FleetScreen)
        assert desk.paired == []


async def test_a_paired_device_is_forgotten_only_when_that_is_chosen(desk: PreparedDesk) -> None:
    put_paired(desk)
    async with console(desk) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, FleetScreen)
        screen.show_device("10.0.0.9:10002")
        await press(pilot, "delete")
        assert "Forget cellar?" in text_of(pilot)
        assert focused_label(pilot) == "Cancel"
        await press(pilot, "enter")
        assert desk.forgotten == []
        await press(pilot, "delete", "left", "enter")
        await until(pilot, lambda: desk.forgotten)
        assert desk.forgotten == [KNOWN_ID]
        assert told(pilot) == ["fedconsole devices forget KKKKKKK"]


async def test_what_is_not_paired_cannot_be_forgotten(desk: PreparedDesk) -> None:
    async with console(desk) as pilot:
        await press(pilot, "delete")
        assert isinstance(pilot.app.screen, FleetScreen)
        reasons = {command.title: command.why for command in palette_of(pilot)}
        assert reasons["Forget"] == "not possible now: it is not paired"


async def test_a_row_goes_when_its_device_is_paired_or_forgotten_elsewhere(
    desk: PreparedDesk,
) -> None:
    put_paired(desk)
    async with console(desk, "fleet", WIDE) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, FleetScreen)
        screen.show_device("10.0.0.9:10002")
        await press(pilot, "space")
        assert "1 marked" in text_of(pilot)
        desk.inventory.dropped("10.0.0.9:10002")
        await until(pilot, lambda: "cellar" not in text_of(pilot))
        assert "1 marked" not in text_of(pilot)
        await press(pilot, "delete", "d", "down", "up")
        assert isinstance(pilot.app.screen, FleetScreen)
