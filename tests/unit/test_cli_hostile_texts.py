"""Texts of runs, devices and files that try to reach the terminal, through every command line.

`CASES` names every command; one that is added without a case here fails the first test.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import termios
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest
import typer
from websockets.asyncio.server import ServerConnection, serve

from fedconsole import paths
from fedconsole.cli import main as fedconsole
from fedconsole.engine.control import ControlServer
from fedconsole.engine.store import Row, RunStore
from fedconsole.errors import RefusedError
from pi_daemon.cli import main as pi_daemon
from pi_daemon.protocol.codec import encode
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.trust.consoles import Console
from pi_daemon.trust.keys import open_keys
from tests.support.places import redirect
from tests.tui.driving import card, hello
from tests.tui.test_hostile_texts import ending, journal, on_wire

EVIL: Final = (
    "clear\x1b[2J\x9b2J copy\x1b]52;c;eA==\x07 oops turned\u202e\u2066round hid\u200bden "
    "nul\x01\x7f\b two\nlines\r\u2028\u0085end tab\tstop"
)
NAME: Final = "e\x1b[2J\u202e\x7f[oops]"
"""As a file may be called."""
LONG: Final = EVIL + "x" * 1_000_000
OURS: Final = re.compile(r"\x1b\[(\d*(;\d+)*m|\?25[lh]|\d*A|\d*K|1G)|\r")
"""Colours, and what redraws a line of bars."""
_MOST: Final = 4_000
"""Cells of a line that a person reads."""


class Case(NamedTuple):
    arguments: tuple[str, ...]
    """With {run}, {other}, {address} and {file} filled in."""
    exit_code: int = 0
    is_json: bool = False
    """Of each line, or the whole."""
    says: str = ""
    """What must stand in the output: the case has reached what it is about."""


def forms(*command: str, says: str = "") -> list[Case]:
    return [
        Case((*command, "-o", form), is_json=form == "json", says=says)
        for form in ("table", "json", "csv", "name")
    ]


CASES: Final[dict[str, list[Case] | str]] = {
    "fedconsole run": [
        Case(("run", "--task", NAME + ".py", "--virtual", "1", "--headless", *more), 3, says="oops")
        for more in ((), ("--dry-run",))
    ]
    + [
        Case(("run", "--worker", EVIL), 2, says="no address"),
        Case(("run", "--config", NAME), 3, says="is no TOML"),
    ],
    "fedconsole demo": [Case(("demo", "--workers", EVIL), 2, says="Invalid value")],
    "fedconsole attach": [
        Case(("attach", "{live}", *more), 6, is_json="--json" in more, says="oops")
        for more in (("--json",), ("--plain",), ("-v",), ("-vv",), ())
    ]
    + [Case(("attach", EVIL), 2, says="no run begins")],
    "fedconsole pause": [
        Case(("pause", "{live}"), 3, says="oops"),
        Case(("pause", EVIL), 2, says="no run begins"),
    ],
    "fedconsole resume": [Case(("resume", "{live}"), 3, says="oops")],
    "fedconsole abort": [Case(("abort", "{live}"), 3, says="oops")],
    "fedconsole quorum": [
        Case(("quorum", "{live}", "fewer"), 3, says="oops"),
        Case(("quorum", EVIL, "wait"), 2, says="no run begins"),
    ],
    "fedconsole logs": [
        Case(("logs", "{run}"), says="oops"),
        Case(("logs", "{run}", "--json"), is_json=True, says="oops"),
        Case(("logs", "-f", "{live}"), says="oops"),
        Case(("logs", "{broken}"), 8, says="cannot read the journal"),
    ],
    "fedconsole runs list": forms("runs", "list", says="live-e"),
    "fedconsole runs show": [
        *forms("runs", "show", "{run}", says=""),
        Case(("runs", "show", EVIL), 2, says="no run begins"),
        Case(("runs", "show", "{empty}"), 8, says="never began"),
    ],
    "fedconsole runs export": [
        Case(("runs", "export", "{run}", "--json"), is_json=True, says="oops"),
        *(Case(("runs", "export", "{run}", form)) for form in ("--csv", "--markdown", "--svg")),
        Case(("runs", "export", "{run}", "--model", NAME), 3, says="has no model"),
    ],
    "fedconsole runs compare": [
        *forms("runs", "compare", "{run}", "{other}"),
        Case(("runs", "compare", "{run}", "{broken}"), 8, says="cannot read the journal"),
    ],
    "fedconsole runs replay": [Case(("runs", "replay", "{run}"), 2, says="needs a terminal")],
    "fedconsole runs rm": [
        Case(("runs", "rm", "all"), 2, says="this deletes"),
        Case(("runs", "rm", "{empty}", "--yes"), says="removed"),
    ],
    "fedconsole discover": forms("discover", says="oops"),
    "fedconsole devices list": forms("devices", "list"),
    "fedconsole devices show": [
        *forms("devices", "show", "{address}"),
        Case(("devices", "show", EVIL), 3, says="known: "),
        Case(("devices", "show", "127.0.0.1:1"), 3, says="does not answer"),
    ],
    "fedconsole devices ping": [Case(("devices", "ping", "{address}"), says=" ms")],
    "fedconsole devices forget": [
        Case(("devices", "forget", EVIL), 3, says="is paired with this console"),
    ],
    "fedconsole pair": [Case(("pair", EVIL), 2, says="no join string")],
    "fedconsole identity show": forms("identity", "show"),
    "fedconsole deal": [
        Case(("deal", NAME, "--worker", "{address}"), 2, says="oops"),
        Case(("deal", NAME, "--name", "x", "--worker", "{address}"), 3),
        Case(("deal", "sample", "--worker", EVIL), 2, says="no address"),
    ],
    "fedconsole config show": [
        *(
            Case((*c.arguments, "--config", "{file}"), is_json=c.is_json, says=says)
            for c, says in zip(
                forms("config", "show"), ("oops", "oops", "oops", "task"), strict=True
            )
        ),
        Case(("config", "show", "--config", NAME), 3, says="is no TOML"),
        Case(("config", "show", "--config", "{badfile}"), 3, says="oops"),
    ],
    "fedconsole config path": [Case(("config", "path"), says="config.toml")],
    "fedconsole config check": [Case(("config", "check", "--config", "{badfile}"), 3, says="oops")],
    "fedconsole config edit": [
        Case(("config", "edit", "--config", "{badfile}"), 3, says="oops"),
        Case(("config", "edit", "--config", NAME), 3, says="is kept as you wrote it"),
    ],
    "fedconsole screenshot": [
        Case(("screenshot", "{run}", "--out", "/nowhere/" + NAME), 8, says="oops"),
        Case(("screenshot", "{run}", "--screen", NAME), 2, says="oops"),
    ],
    "fedconsole doctor": [
        Case(c.arguments, is_json=c.is_json, exit_code=-1) for c in forms("doctor")
    ],
    "fedconsole completion": [Case(("completion", EVIL), 2, says="no completion")],
    "fedconsole version": "it prints nothing but its own version",
    "pi-daemon data import wfdb": [
        Case(("data", "import", "wfdb", NAME), 3, says="oops"),
        Case(("data", "import", "wfdb", ".", "--to", NAME), 3, says="oops"),
        Case(("data", "import", "wfdb", "{records}"), 3, says="oops"),
    ],
    "pi-daemon data import csv": [
        Case(("data", "import", "csv", "{csv}"), 3, says="line 1 has 1 values"),
        Case(("data", "import", "csv", "{csv}", "--to", NAME), 3, says="oops"),
    ],
    "pi-daemon init": [
        Case(("init", "--id", NAME), says="oops"),
        Case(("init", "--state-dir", "{csv}"), 3, says="cannot be made"),
    ],
    "pi-daemon pair": [
        Case(("pair", "--id", EVIL[:100]), 3, says="no initialised device"),
        Case(("pair", "--state-dir", "{state}"), 3, says="no daemon runs"),
    ],
    "pi-daemon consoles list": [
        Case(("consoles", "list", "--state-dir", "{state}"), says="oops"),
        Case(("consoles", "list", "--state-dir", "{state}", "--json"), is_json=True, says="oops"),
    ],
    "pi-daemon consoles revoke": [
        Case(
            ("consoles", "revoke", NAME, "--state-dir", "{state}"), 3, says="no console is called"
        ),
    ],
    "pi-daemon audit": [
        Case(("audit", "--state-dir", "{state}"), says="oops"),
        Case(("audit", "--state-dir", "{state}", "--json"), is_json=True, says="oops"),
        Case(("audit", "--id", EVIL[:100]), 3, says="no audit log"),
    ],
    "pi-daemon install": "it prints the paths of this system and the owner's own settings",
    "pi-daemon uninstall": "it prints the paths of this system",
    "pi-daemon": [
        Case(("--dataset", f"x={NAME}"), 3, says="oops"),
        Case((EVIL,), 2, says="No such command"),
        Case(("--shard", EVIL, "--dataset", "digits=sample"), 3),
    ],
}


def leaves(command: Any, name: str) -> Iterator[str]:
    """The commands of a tree that do something."""
    for word, child in getattr(command, "commands", {}).items():
        yield from leaves(child, f"{name} {word}")
    if not hasattr(command, "commands"):
        yield name


pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")
"""wfdb reads its records with a pandas that is to change."""


def tree() -> set[str]:
    found = {*leaves(typer.main.get_command(fedconsole.app), "fedconsole"), "pi-daemon"}
    return found | {*leaves(typer.main.get_command(pi_daemon.app), "pi-daemon")}


def test_every_command_has_a_case_here_or_a_reason() -> None:
    assert tree() == CASES.keys()
    assert all(CASES.values())


# The places that hold hostile texts


def rows(run: str) -> list[Row]:
    texts = [EVIL, NAME]
    lines = [
        *journal(texts),
        {"type": "log", "worker": EVIL, "level": "info", "text": LONG},
        ending(EVIL),
    ]
    sizes = {"bytes_sent": 1, "bytes_received": 1, "model_id": EVIL}
    return [
        Row(
            one["type"],
            {k: v for k, v in one.items() if k not in ("type", "time", "run")}
            | (sizes if one["type"] == "round.finished" else {})
            | ({"exit_code": 6} if one["type"] == "run.finished" else {}),
        )
        for one in lines
    ]


def store(run: str) -> RunStore:
    kept = RunStore(paths.runs_dir() / run)
    (kept.folder / "engine.log").write_text(EVIL)
    kept.commit(*rows(run))
    return kept


def refuse(_request: str) -> None:
    raise RefusedError(f"it cannot do that now: {EVIL}")


@contextmanager
def in_thread(work: Callable[[asyncio.Event, Callable[[object], None]], Any]) -> Iterator[Any]:
    """Something that serves while the command line runs; gives what it reports when it is ready."""
    loop = asyncio.new_event_loop()
    is_over, told, is_ready = asyncio.Event(), [], threading.Event()

    def ready(value: object) -> None:
        told.append(value)
        is_ready.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(work(is_over, ready)))
    thread.start()
    try:
        assert is_ready.wait(60)
        yield told[0]
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join()
        loop.close()


async def engine(is_over: asyncio.Event, ready: Callable[[object], None]) -> None:
    """One that has written its last line, and refuses every request."""
    kept = store(f"live-{RUN_NAME}")
    control = ControlServer(kept, refuse)
    await control.start()
    # It hangs up when a reader has all lines, and goes on listening.
    control._is_closing = True
    ready(None)
    await is_over.wait()
    await control.close(grace_s=0.1)
    kept.close()


async def device(is_over: asyncio.Event, ready: Callable[[object], None]) -> None:
    status = {"state": "training", "holder": EVIL, "run": EVIL, "highest_fence": 0}
    able = {"torch": EVIL, "machine": EVIL}
    said = hello(
        on_wire(EVIL),
        build=on_wire(EVIL),
        capabilities={name: on_wire(text) for name, text in able.items()},
        status={k: on_wire(v) if isinstance(v, str) else v for k, v in status.items()},
        datasets=[card(sample_dtype="uint8")],
    )

    async def greet(link: ServerConnection) -> None:
        await link.send(encode(said))
        await link.wait_closed()

    async with serve(greet, "127.0.0.1", 0) as server:
        ready(next(iter(server.sockets)).getsockname()[1])
        await is_over.wait()


RUN_NAME: Final = "e\x1b[2J\u202e\x7f"
"""As a folder may be called."""


def paired(state_dir: Path) -> None:
    """A device with a console whose file was not written by a daemon."""
    keys = open_keys(state_dir)
    console = Console(keys.id, EVIL, ConsoleRole.VIEWER, EVIL, keys.certificate_path.read_text())
    (state_dir / "consoles").mkdir(mode=0o700)
    (state_dir / "consoles" / f"{keys.id}.json").write_bytes(msgspec.json.encode(console))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Folders, a device and an engine for all cases; what the arguments' names mean."""
    with pytest.MonkeyPatch.context() as patch:
        folder = redirect(tmp_path_factory.mktemp("x"), patch)
        patch.setenv("VISUAL", "true")
        names = {name: f"{name}-{RUN_NAME}" for name in ("run", "other", "broken", "empty", "live")}
        for name in ("run", "other"):
            store(names[name]).close()
        for name in ("broken", "empty"):
            (paths.runs_dir() / names[name]).mkdir()
        (paths.runs_dir() / names["broken"] / "run.db").write_text(EVIL * 100)
        quoted = json.dumps(EVIL).replace("\x7f", "\\u007f")
        (folder / "file.toml").write_text(f"[run]\nsave_model = {quoted}\n")
        (folder / "bad.toml").write_text(f"[run]\n{quoted} = 1\n")
        (folder / "beats.csv").write_text(f"{EVIL}\n")
        (folder / NAME).write_text(EVIL)
        (folder / f"{NAME}.py").write_text(f"raise ValueError({EVIL!r})\n")
        (folder / "records").mkdir()
        (folder / "records" / f"{NAME}.hea").write_text(EVIL)
        paired(folder / "state")
        entry = {"time": EVIL, "what": EVIL, "console": EVIL, "console_id": EVIL, "run": EVIL}
        (folder / "state" / "audit.jsonl").write_text(json.dumps(entry) + "\n")
        with in_thread(device) as port, in_thread(engine):
            (folder / "fedconsole.toml").write_text(
                f"[[devices]]\nname = {quoted}\nhost = '127.0.0.1'\nport = {port}\n"
            )
            yield names | {
                "address": f"127.0.0.1:{port}",
                "file": "file.toml",
                "badfile": "bad.toml",
                "csv": "beats.csv",
                "records": "records",
                "state": "state",
            }


# The test


def harm(text: str, *, is_terminal: bool) -> set[str]:
    """What no terminal should get, and lines that nobody reads to their end."""
    if is_terminal:
        text = OURS.sub("\n", text)
    # The system of 2020 put a tab there.
    text = text.replace("\tLoss: ", "")
    bad = {
        ascii(char)
        for char in set(text) - {"\n"}
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }
    return bad | {f"a line of {len(one)}" for one in text.splitlines() if len(one) > _MOST}


@pytest.fixture(autouse=True)
def again(place: dict[str, str]) -> None:
    """One case removes it."""
    (paths.runs_dir() / place["empty"]).mkdir(exist_ok=True)


def answer(
    capture: pytest.CaptureFixture[str], program: str, arguments: Sequence[str]
) -> tuple[int, str, str]:
    carry_out = pi_daemon.carry_out if program == "pi-daemon" else fedconsole.carry_out
    code = carry_out(list(arguments))
    out, err = capture.readouterr()
    return code, out, err


ALL: Final = [
    pytest.param(name.split()[0], case, id=f"{name}-{number}")
    for name, cases in CASES.items()
    if not isinstance(cases, str)
    for number, case in enumerate(cases)
]


@pytest.mark.parametrize(("program", "case"), ALL)
def test_a_pipe_gets_text_without_controls(
    program: str, case: Case, place: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(capsys, program, [a.format(**place) for a in case.arguments])
    assert case.exit_code in (code, -1), err
    if case.is_json:
        for text in [out] if out.startswith(("[\n", "[]")) else out.splitlines():
            json.loads(text)
        assert not {one for one in harm(out, is_terminal=False) if not one.startswith("a line")}
    else:
        assert harm(out, is_terminal=False) == set()
    assert harm(err, is_terminal=False) == set()
    assert case.says in out + err


@pytest.mark.parametrize(("program", "case"), ALL)
def test_a_terminal_gets_no_controls_but_ours(
    program: str, case: Case, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("CI", raising=False)
    carry_out = pi_daemon.carry_out if program == "pi-daemon" else fedconsole.carry_out
    with on_terminal(monkeypatch) as written:
        code = carry_out([argument.format(**place) for argument in case.arguments])
    text = written()
    assert case.exit_code in (code, -1), text
    found = harm(text.replace("\r\n", "\n"), is_terminal=True)
    assert {one for one in found if not (case.is_json and one.startswith("a line"))} == set()
    assert case.says in text


@contextmanager
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """stdout and stderr are a pseudo-terminal, 250 cells wide; gives all that was written, afterwards."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))
    data = bytearray()

    def read() -> None:
        while True:
            try:
                piece = os.read(master, 1 << 16)
            except OSError:
                # The end of the last writer.
                return
            data.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        patch.setattr("sys.stderr", terminal)
        yield lambda: data.decode()
    reader.join()
    os.close(master)
