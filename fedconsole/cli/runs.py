"""`fedconsole runs ...` and `logs`: what finished and running runs left in their folders."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fedconsole.cli.output import Output, OutputOption, print_rows, say
from fedconsole.errors import ExitCode, RefusedError, StorageError, UsageError

app = typer.Typer(help="List, show, export and remove runs.")

_LIST_COLUMNS = ("run", "state", "task", "started", "rounds", "seconds", "accuracy", "loss")
_ROUND_COLUMNS = ("round", "seconds", "updates", "training_loss", "loss", "accuracy", "macro_f1")
_CLASS_COLUMNS = ("class", "examples", "recall", "precision", "f1")


def _complete(incomplete: str) -> list[str]:
    from fedconsole.history import run_ids

    return [name for name in (*run_ids(), "latest", "all") if name.startswith(incomplete)]


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Beginning of its id, latest, or all.", autocompletion=_complete
    ),
]


@app.command("list")
def list_runs(output: OutputOption = Output.TABLE) -> None:
    """All runs, the newest last."""
    from fedconsole import history

    summaries = [history.summarize(run) for run in history.by_start()]
    rows = [_plain(asdict(s)) for s in summaries if s is not None]
    print_rows(rows, _LIST_COLUMNS, output)


@app.command("show")
def show(run: Run = "latest", output: OutputOption = Output.TABLE) -> None:
    """One run: how it ended, its plan, its rounds, and its last test class by class."""
    from fedconsole import history

    run = history.resolve_one(run)
    summary = history.summarize(run)
    if summary is None:
        raise StorageError(f"run {run} has no journal; its engine wrote only its engine.log")
    rows = [asdict(row) for row in history.rounds(run)]
    facts = _plain(asdict(summary))
    confusion = history.confusion(run)
    classes = _class_rows(confusion)
    if output is Output.JSON:
        tables = {"round_table": rows, "class_table": classes, "confusion": confusion}
        print_rows([facts | tables], ("run",), output)
        return
    if output is Output.NAME:
        print(run)
        return
    plan = facts.pop("plan")
    for name, value in (facts | {"plan": _changed(plan)}).items():
        if value not in (None, ""):
            print(f"{name.replace('_', ' '):10}  {value}")
    if rows:
        print()
        print_rows(rows, _ROUND_COLUMNS, output)
    if classes:
        print()
        print_rows(classes, _CLASS_COLUMNS, output)
        print()
        taken = [
            {"true class": c, **dict(zip(confusion, confusion[c], strict=True))} for c in confusion
        ]
        print_rows(taken, ("true class", *confusion), output)


def _class_rows(confusion: dict[str, list[int]]) -> list[dict[str, Any]]:
    from fedconsole.learning.metrics import class_metrics

    metrics = class_metrics(list(confusion.values()))
    if metrics is None:
        return []
    numbers = zip(metrics.recall, metrics.precision, metrics.f1, strict=True)
    return [
        dict(zip(_CLASS_COLUMNS, (name, sum(row), *values), strict=True))
        for (name, row), values in zip(confusion.items(), numbers, strict=True)
    ]


@app.command("export")
def export(
    run: Run = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="The journal, a line each.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The table of rounds.")] = False,
    model: Annotated[Path | None, typer.Option(help="Copy the model here.")] = None,
) -> None:
    """Write a run's journal or rounds to stdout, or its model to a file."""
    import csv

    from fedconsole import history
    from fedconsole.headless import json_line

    if as_json + as_csv + (model is not None) != 1:
        raise UsageError("export what? give one of --json, --csv and --model FILE")
    run = history.resolve_one(run)
    if model is not None:
        _copy_model(run, model)
    elif as_json:
        for line in history.lines(run):
            print(json_line(line))
    else:
        rounds = [asdict(row) for row in history.rounds(run)]
        columns = list(history.RoundSummary.__dataclass_fields__)
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"updates": " ".join(row["updates"])} for row in rounds)


def _copy_model(run: str, target: Path) -> None:
    import shutil

    from fedconsole import history

    source = history.folder_of(run) / "model.safetensors"
    if not source.exists():
        raise RefusedError(f"run {run} has no model; only a run with a finished round has one")
    if target.exists():
        raise RefusedError(f"{target} exists; remove it or choose another name")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}") from error
    say(f"model of run {run} copied to {target}")


@app.command("rm")
def remove(
    run: Run,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run's folder, its model included."""
    from fedconsole import history

    doomed = history.resolve(run)
    if not doomed:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"this deletes {', '.join(doomed)}; add --yes, as nobody can be asked")
        if not typer.confirm(f"Delete {', '.join(doomed)} with models?", err=True):
            raise typer.Exit(ExitCode.ABORTED)
    for name in doomed:
        history.remove(name)
        say(f"removed {name}")


def logs(
    run: Run = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with the run.")] = False,
) -> None:
    """Print a run's log."""
    import asyncio

    from fedconsole import history

    run = history.resolve_one(run)
    if follow and history.is_running(run):
        asyncio.run(_follow_log(run))
        return
    for line in history.lines(run):
        _print_log_line(line)


async def _follow_log(run: str) -> None:
    from fedconsole.engine.control import ControlLink

    async with ControlLink.connect(run) as link:
        async for line in link.events():
            _print_log_line(line)


def _print_log_line(line: dict[str, Any]) -> None:
    from fedconsole.headless import seed_line, sentence

    local = datetime.fromisoformat(line["time"]).astimezone()
    text = seed_line(line) if line["type"] == "worker.batches" else sentence(line)
    print(f"{local:%H:%M:%S}  {text}", flush=True)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"started": row["started"].isoformat(timespec="seconds")}


def _changed(plan: dict[str, Any]) -> str:
    """The part of a plan that is not the default."""
    import msgspec

    from fedconsole.coordinator.plan import Plan

    defaults = {field.name: field.default for field in msgspec.structs.fields(Plan)}
    return ", ".join(f"{k}={v}" for k, v in plan.items() if v != defaults.get(k) and v != [])
