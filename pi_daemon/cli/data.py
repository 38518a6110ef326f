"""`pi-daemon data`: makes datasets of recordings."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pi_daemon.cli.refusal import refuse
from pi_daemon.durable import put_in_place
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(no_args_is_help=True, help="Make datasets of recordings.")
import_app = typer.Typer(
    no_args_is_help=True, help="Turn recordings into one .npz file for `pi-daemon --dataset`."
)
app.add_typer(import_app, name="import")

_BAR_WIDTH: Final = 24

Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")]


@import_app.command("wfdb")
def import_wfdb(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of .hea, .dat, .atr files.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="What to write.",
            show_default="ecg.npz, with --rr ecg-rr.npz",
        ),
    ] = None,
    lead: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Lead to take.", show_default="MLII if there, else the first"
        ),
    ] = None,
    records: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Records to take.", show_default="all"),
    ] = None,
    rr: Annotated[
        bool, typer.Option("--rr", help="Add three RR intervals to each beat, for task ecg-rr.")
    ] = False,
    force: Force = False,
) -> None:
    """Cut the annotated beats out of WFDB records, such as those of the MIT-BIH database.

    Says for each record what it took and what it left.
    A record that cannot be read is left out; the others are imported.
    Needs wfdb: install fedconsole with the extra `ecg`.
    """
    target = _target(to or Path("ecg-rr.npz" if rr else "ecg.npz"), force)

    from pi_daemon.ecg.records import RecordBeats, RecordError, joined, read_beats, record_names

    try:
        wanted = tuple(name.strip() for name in records.split(",")) if records else ()
        names = record_names(folder, wanted)
    except (RecordError, OSError) as error:
        refuse(_reason(error))
    taken: list[RecordBeats] = []
    with _Report("record", names) as report:
        for name in names:
            report.show_progress()
            try:
                beats = read_beats(folder, name, lead=lead, with_rr=rr)
            except (RecordError, OSError) as error:
                report.left_out(_reason(error))
            else:
                taken.append(beats)
                report.took(beats.y, beats.left)
        report.require_some()
        _write(target, joined(taken))
        report.finish(target)


@import_app.command("csv")
def import_csv(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="187 values and the class on each line.")
    ],
    to: Annotated[Path, typer.Option(metavar="FILE.npz", help="What to write.")] = Path("ecg.npz"),
    force: Force = False,
) -> None:
    """Turn heartbeat CSV files into a dataset.

    A beat a line: 187 values from 0 to 1, then the class from 0 (N) to 4 (Q).
    Says for each file what it took.
    A file with a line that is no beat is left out; the others are imported.
    """
    target = _target(to, force)

    import numpy as np

    from pi_daemon.ecg.heartbeat_csv import CsvError, read_csv

    taken = []
    with _Report("file", files) as report:
        for file in files:
            try:
                x, y = read_csv(file, report.show_progress)
            except (CsvError, OSError) as error:
                report.left_out(_reason(error))
            else:
                taken.append((x, y))
                report.took(y, Counter())
        report.require_some()
        x, y = (np.concatenate(arrays) for arrays in zip(*taken, strict=True))
        _write(target, {"x": x, "y": y})
        report.finish(target)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error)


class _Report:
    """Says on stdout what was taken of each thing; on a terminal, stderr shows how far it is."""

    def __init__(self, kind: str, things: Sequence[object]) -> None:
        from pi_daemon.ecg.beats import CLASSES

        self._kind = kind
        self._classes = CLASSES
        self._names = [clean(str(thing)) for thing in things]
        self._width = max(map(len, [kind, *self._names]))
        self._failures: dict[str, str] = {}
        self._without_beats: list[str] = []
        self._counts: Counter[int] = Counter()
        self._num_done = 0
        self._bar = ""
        columns = "".join(f"{name:>7}" for name in self._classes)
        print(f"{kind:<{self._width}}{'beats':>8}{columns}   left out")

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw("")

    def show_progress(self, share: float = 0.0) -> None:
        """`share` is that of the thing in work, which is done already."""
        if not sys.stderr.isatty():
            return
        num_filled = int(_BAR_WIDTH * (self._num_done + share) / len(self._names))
        filled = "#" * num_filled + "-" * (_BAR_WIDTH - num_filled)
        name = self._names[self._num_done]
        self._draw(f"[{filled}] {self._num_done}/{len(self._names)}  {name}")

    def took(self, y: NDArray[np.uint8], left: Counter[str]) -> None:
        counts = Counter(y.tolist())
        self._counts += counts
        if not counts:
            self._without_beats.append(self._names[self._num_done])
        columns = "".join(f"{counts[label]:>7}" for label in range(len(self._classes)))
        shown = clean(", ".join(f"{what}: {count}" for what, count in left.items())) or "nothing"
        self._say(f"{len(y):>8}{columns}   {shown}")

    def left_out(self, reason: str) -> None:
        name = self._names[self._num_done]
        self._failures[name] = reason
        columns = f"{'-':>7}" * len(self._classes)
        self._say(f"{'-':>8}{columns}   all: {clean(reason)}")

    def require_some(self) -> None:
        """End the command if there is not a single beat."""
        if self._counts:
            return
        reason = f"no {self._kind} holds an annotated beat that can be used"
        if self._failures:
            name, first = next(iter(self._failures.items()))
            reason = f"{self._kind} {name}: {first}"
        refuse(f"no beats were imported: {reason}")

    def finish(self, target: Path) -> None:
        counts = ", ".join(f"{name} {self._counts[i]}" for i, name in enumerate(self._classes))
        num_taken = len(self._names) - len(self._failures) - len(self._without_beats)
        print(
            f"{self._counts.total()} beats ({counts}) of {num_taken} {self._kind}"
            f"{'s' * (num_taken != 1)} are in {clean(str(target))}, {target.stat().st_size:,} bytes"
        )
        num_all = len(self._names)
        for what, names in (("left out", self._failures), ("without beats", self._without_beats)):
            if names:
                words = f"pi-daemon: {what} of {num_all} {self._kind}s: {', '.join(names)}"
                print(words, file=sys.stderr)

    def _say(self, text: str) -> None:
        self._draw("")
        print(f"{self._names[self._num_done]:<{self._width}}{text}", flush=True)
        self._num_done += 1

    def _draw(self, bar: str) -> None:
        if bar != self._bar:
            print(f"\r\x1b[K{bar}", end="", file=sys.stderr, flush=True)
            self._bar = bar


def _target(path: Path, force: bool) -> Path:
    """Where to write to, checked before the work begins."""
    if path.suffix != ".npz":
        refuse(f"--to {path}: expected a name that ends in .npz")
    if not path.parent.is_dir():
        refuse(f"--to {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        refuse(f"--to {path}: it is there and no regular file")
    if path.exists() and not force:
        refuse(f"--to {path}: it is there already: add --force to overwrite it")
    if not os.access(path.parent, os.W_OK):
        refuse(f"--to {path}: {path.parent} cannot be written to")
    return path


def _write(target: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write the whole file or none: what was there before stays until the new one is complete."""
    import numpy as np

    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        put_in_place(temporary, target)
    except OSError as error:
        refuse(f"{target} cannot be written: {error.strerror or error}; nothing was changed")
    finally:
        temporary.unlink(missing_ok=True)
