"""`fedconsole runs ...` and `logs`: what finished and running runs left in their folders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedconsole.cli import options as o
from fedconsole.cli.output import Output, OutputOption, harmless, print_rows, require_consent, say
from fedconsole.errors import RefusedError, StorageError, UsageError

if TYPE_CHECKING:
    from fedconsole.history import RunSummary

app = typer.Typer(help="List, show, export and remove runs.")

_LIST_COLUMNS = (
    *("run", "state", "task", "started", "rounds", "seconds", "accuracy", "loss", "reason"),
)
_FEWEST_COMPARED = 2
_ROUND_COLUMNS = ("round", "seconds", "updates", "training_loss", "loss", "accuracy", "macro_f1")


def complete(incomplete: str) -> list[str]:
    from fedconsole.history import run_ids

    return [name for name in (*run_ids(), "latest", "all") if name.startswith(incomplete)]


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Beginning of its id, latest, or all.", autocompletion=complete
    ),
]


@app.command("list")
def list_runs(output: OutputOption = Output.TABLE) -> None:
    """All runs, the newest last."""
    from fedconsole import history

    print_rows([_list_row(run) for run in history.by_start()], _LIST_COLUMNS, output)


def _list_row(run: str) -> dict[str, Any]:
    from fedconsole import history

    unknown: dict[str, Any] = dict.fromkeys(field.name for field in fields(history.RunSummary))
    try:
        summary = history.summarize(run)
        if summary is None:
            return unknown | {"run": run, "state": "no journal", "reason": history.last_words(run)}
    except StorageError as error:
        return unknown | {"run": run, "state": "unreadable", "reason": str(error)}
    return _plain(asdict(summary))


@app.command("show")
def show(run: Run = "latest", output: OutputOption = Output.TABLE) -> None:
    """One run: how it ended, its plan, its rounds, and its last test class by class."""
    from fedconsole import history, report, run_names

    run = run_names.resolve_one(run)
    summary = history.summarize(run)
    if summary is None:
        _show_folder(run, output)
        return
    rows = [asdict(row) for row in history.rounds(run)]
    facts = _plain(asdict(summary))
    confusion = history.confusion(run)
    classes = report.class_rows(confusion)
    if output is Output.JSON:
        tables = {"round_table": rows, "class_table": classes, "confusion": confusion}
        print_rows([facts | tables], ("run",), output)
        return
    if output is Output.CSV:
        print_rows(rows, _ROUND_COLUMNS, output)
        return
    if output is Output.NAME:
        print(harmless(run))
        return
    plan = report.changed(facts.pop("plan"))
    shown_plan = ", ".join(f"{name}={value}" for name, value in plan.items())
    for name, value in (facts | {"plan": shown_plan}).items():
        if value not in (None, ""):
            print(harmless(f"{name.replace('_', ' '):10}  {value}"))
    if rows:
        print()
        print_rows(rows, _ROUND_COLUMNS, output)
    if classes:
        print()
        print_rows(classes, report.CLASS_COLUMNS, output)
        print()
        taken = [
            {"true class": c, **dict(zip(confusion, confusion[c], strict=True))} for c in confusion
        ]
        print_rows(taken, ("true class", *confusion), output)


def _show_folder(run: str, output: Output) -> None:
    from fedconsole import history

    folder = str(history.folder_of(run))
    row = {"run": run, "state": "no journal", "folder": folder, "reason": history.last_words(run)}
    if output is not Output.TABLE:
        print_rows([row], tuple(row), output)
        return
    for name, value in row.items():
        print(harmless(f"{name:10}  {value}"))


@app.command("export")
def export(
    run: Run = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="The journal, a line each.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The table of rounds.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="A report for people.")] = False,
    as_svg: Annotated[bool, typer.Option("--svg", help="The losses by round, drawn.")] = False,
    model: Annotated[Path | None, typer.Option(help="Copy the model here.")] = None,
) -> None:
    """Write a run's journal, rounds, report or picture to stdout, or its model to a file."""
    from fedconsole import history, report, run_names
    from fedconsole.headless import json_line

    if sum((as_json, as_csv, as_markdown, as_svg, model is not None)) != 1:
        raise UsageError(
            "export what? give one of --json, --csv, --markdown, --svg and --model FILE"
        )
    run = run_names.resolve_one(run)
    if model is not None:
        _copy_model(run, model)
    elif as_json:
        for line in history.lines(run):
            print(json_line(line))
    elif as_csv:
        print(report.csv_text(history.rounds(run)), end="")
    else:
        lines = history.lines(run, types=report.LINE_TYPES)
        record = report.make_record(summary_of(run), history.rounds(run), lines)
        print(report.markdown(record) if as_markdown else report.svg(record), end="")


def summary_of(run: str) -> RunSummary:
    from fedconsole.history import last_words, summarize

    summary = summarize(run)
    if summary is None:
        raise StorageError(f"run {run} has no journal: {last_words(run)}")
    return summary


def _copy_model(run: str, target: Path) -> None:
    import shutil

    from fedconsole.stored_models import find_whole
    from pi_daemon.durable import put_in_place

    source = find_whole(run)
    if target.exists():
        raise RefusedError(f"{target} exists; remove it or choose another name")
    temporary = target.with_name(f"{target.name}.partial")
    try:
        shutil.copyfile(source, temporary)
        put_in_place(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(f"cannot write {target}: {error.strerror}") from error
    say(f"model of run {run} copied to {target}")


def comparable(runs: list[str]) -> list[str]:
    """The runs that are meant. Raises UsageError when they cannot be compared."""
    from fedconsole import report, run_names

    names = [run_names.resolve_one(run) for run in runs]
    if len(set(names)) < len(names):
        raise UsageError(f"a run is named twice in {', '.join(names)}; name each once")
    if not _FEWEST_COMPARED <= len(names) <= report.MOST_COMPARED:
        raise UsageError(f"{len(names)} runs to compare; name 2 to {report.MOST_COMPARED}")
    return names


@app.command("compare")
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN [RUN RUN]", help="Two to four of them.", autocompletion=complete
        ),
    ],
    output: OutputOption = Output.TABLE,
) -> None:
    """How runs ended, and in what their plans differ."""
    from fedconsole import report

    names = comparable(runs)
    summaries = [summary_of(name) for name in names]
    rows = [report.outcome(summary) for summary in summaries]
    plans = report.differing([summary.plan for summary in summaries])
    if output is not Output.TABLE:
        own = [{key: values[i] for key, values in plans.items()} for i in range(len(names))]
        columns = [*report.OUTCOME_COLUMNS]
        if output is Output.CSV:
            # Apart: a plan and its outcome both have `rounds`.
            own = [{f"plan.{key}": value for key, value in plan.items()} for plan in own]
            columns += own[0]
        else:
            own = [{"plan": plan} for plan in own]
        print_rows([row | plan for row, plan in zip(rows, own, strict=True)], columns, output)
        return
    print_rows(rows, report.OUTCOME_COLUMNS, output)
    if plans:
        print()
        options = [
            {"option": key} | dict(zip(names, map(report.shown, values), strict=True))
            for key, values in plans.items()
        ]
        print_rows(options, ("option", *names), output)


@app.command("replay")
def replay(
    run: Run = "latest",
    speed: Annotated[float, typer.Option(help="How many times faster than the run; 1 to 60.")] = 10,
) -> int:
    """Show a run on the Live screen as if it went on now."""
    from fedconsole import run_names
    from fedconsole.cli.console import open_replay
    from fedconsole.cli.entry import has_full_screen

    run = run_names.resolve_one(run)
    summary_of(run)
    if not has_full_screen():
        raise UsageError(f"a replay needs a terminal; for the text: fedconsole logs {run}")
    return open_replay(run, speed)


@app.command("rm")
def remove(
    run: Run,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run's folder, its model included."""
    from fedconsole import history, run_names

    doomed = run_names.resolve(run)
    if not doomed:
        return
    if not yes:
        names = ", ".join(doomed)
        require_consent(f"deletes {names}", f"Delete {names} with models?")
    for name in doomed:
        history.remove(name)
        say(f"removed {name}")


def logs(
    run: Run = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with the run.")] = False,
    json: o.Json = False,
) -> None:
    """Print a run's log."""
    import asyncio

    from fedconsole import history, run_names
    from fedconsole.headless import json_line

    def show(line: dict[str, Any]) -> None:
        print(json_line(line) if json else _log_line(line), flush=True)

    run = run_names.resolve_one(run)
    if follow and history.is_running(run):
        asyncio.run(_follow_log(run, show))
        return
    seq = 0
    for line in history.lines(run):
        show(line)
        seq = line["seq"]
    if (stalled := history.stall(run, seq)) is not None:
        show(stalled)


async def _follow_log(run: str, show: Callable[[dict[str, Any]], None]) -> None:
    from fedconsole import history

    async for line in history.follow(run):
        show(line)


def _log_line(line: dict[str, Any]) -> str:
    from fedconsole.colours import painted, role_of_line
    from fedconsole.sentences import seed_line, sentence

    local = datetime.fromisoformat(line["time"]).astimezone()
    text = seed_line(line) if line["type"] == "worker.batches" else sentence(line)
    return f"{local:%H:%M:%S}  {painted(text, role_of_line(line), sys.stdout)}"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"started": row["started"].isoformat(timespec="seconds")}
