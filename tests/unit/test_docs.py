"""The documents for people say what the program does: options, codes, lines, phases, examples."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from msgspec.structs import fields

from fedconsole import line_schema
from fedconsole.cli.main import app
from fedconsole.coordinator import facts
from fedconsole.coordinator.phases import phase_diagram
from fedconsole.coordinator.plan import (
    DEFAULT_EPOCHS,
    DEFAULT_FEDERATE_AFTER_N_BATCHES,
    Plan,
)
from fedconsole.errors import ExitCode
from pi_daemon.cli.main import app as daemon_app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPERATING = ROOT / "docs" / "operating.md"
RECORDINGS = sorted((ROOT / "screenshots").glob("*.jsonl"))
EXAMPLE = ROOT / "examples" / "tasks" / "motion.py"


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of operating.md, without its head."""
    _, found, below = OPERATING.read_text().partition(f"\n{heading}\n")
    assert found, f"operating.md has no heading {heading!r}"
    rows = re.search(r"(?:^\|.*\n)+", below, flags=re.MULTILINE)
    assert rows is not None
    split = [re.split(r"(?<!\\)\|", line)[1:-1] for line in rows[0].splitlines()]
    return [[cell.strip() for cell in cells] for cells in split[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def code_block(document: Path, language: str, number: int = 0) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.M)
    block: str = blocks[number]
    return block


def documented_lines() -> dict[str, set[str]]:
    """Type of a JSON line -> its fields, as operating.md tells them."""
    return {quoted(row[0])[0]: set(quoted(row[1])) for row in table("## JSON lines")}


def shown_options(command: Any) -> list[Any]:
    return [p for p in command.params if not p.hidden and p.name not in ("help", "show_version")]


def default_of(parameter: Any) -> str:
    """The default of an option of `run`, as its row should have it."""
    defaults = {field.name.removesuffix("_s"): field.default for field in fields(Plan)}
    defaults |= {
        "epochs": DEFAULT_EPOCHS,
        "federate_after_n_batches": DEFAULT_FEDERATE_AFTER_N_BATCHES,
    }
    default = defaults.get(parameter.name)
    if parameter.is_flag or parameter.count:
        return "off"
    return f"`{default}`" if default not in (None, ()) else "-"


def test_the_table_of_runs_options_is_that_of_the_command_line() -> None:
    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    real = [(option.opts, default_of(option)) for option in shown_options(run)]
    assert [(quoted(row[0]), row[1]) for row in table("## `fedconsole run`")] == real


def test_the_table_of_the_daemons_options_is_that_of_the_command_line() -> None:
    real = [option.opts for option in shown_options(typer.main.get_command(daemon_app))]
    assert [quoted(row[0]) for row in table("## The daemon on a device")] == real


def test_the_exit_codes_are_those_of_the_program() -> None:
    listed = {int(row[0]): row[1] for row in table("## Exit codes")}
    assert listed == {code.value: code.name.lower().replace("_", " ") for code in ExitCode}


def lines_of_the_engine() -> dict[str, set[str]]:
    """Types of lines that the engine writes without the machine, and the fields that its calls name."""
    found: dict[str, set[str]] = {}
    for module in (ROOT / "fedconsole" / "engine").glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id=name) | ast.Attribute(attr=name),
                    args=[ast.Constant(value=str(line_type)), *others],
                    keywords=keywords,
                ) if name in ("Row", "_note"):
                    named = found.setdefault(line_type, set())
                    named |= {"worker"} if name == "_note" else set()
                    named |= {keyword.arg for keyword in keywords if keyword.arg}
                    for other in others:
                        keys = other.keys if isinstance(other, ast.Dict) else []
                        named |= {str(k.value) for k in keys if isinstance(k, ast.Constant)}
    return found


def test_the_json_lines_are_those_that_machine_and_engine_write() -> None:
    kinds = facts.Fact.__args__
    told = {kind.__struct_config__.tag: {f.name for f in fields(kind)} for kind in kinds}
    told["eval"] = told["eval"] - {"metrics"} | {"loss"}
    told["run.created"] |= {"folder"}
    told["run.quorum"] |= {"seconds_left"}
    told["run.finished"] |= {"seconds"}
    told["worker.update"] |= {"bytes_sent", "bytes_received"}
    told["round.finished"] |= {"seconds", "bytes_sent", "bytes_received"}
    documented = documented_lines()
    engine = lines_of_the_engine()
    assert documented.keys() == told.keys() | engine.keys()
    assert {line: documented[line] for line in told} == told
    # A dry run's fields are gathered in several places; the other lines are written in one.
    noted = engine.keys() - told.keys() - {"preflight"}
    assert {line: documented[line] for line in noted} == {line: engine[line] for line in noted}


def test_the_schema_of_the_json_lines_is_up_to_date_and_has_the_documented_fields() -> None:
    path = ROOT / "docs" / "journal.schema.json"
    assert path.read_text(encoding="utf-8") == line_schema.text()
    parts = line_schema.schema()["$defs"]
    described = {
        line.__struct_config__.tag: parts[line.__name__]["properties"].keys() - {"type"}
        for line in line_schema.LINES
    }
    assert described == documented_lines()


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_run_keeps_to_the_schema(path: Path) -> None:
    schema = line_schema.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [error.message for line in lines for error in validator.iter_errors(line)] == []
    assert {line["type"] for line in lines} <= documented_lines().keys()
    ends = [validator.is_valid(line | {"type": "run.finished"}) for line in lines]
    assert ends == [line["type"] == "run.finished" for line in lines]


def test_the_diagram_of_the_phases_is_the_table_of_transitions() -> None:
    assert code_block(ROOT / "docs" / "architecture.md", "mermaid") == phase_diagram()


def test_the_example_task_in_the_document_is_the_one_that_is_trained_in_the_tests() -> None:
    assert code_block(ROOT / "docs" / "tasks.md", "python") == EXAMPLE.read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_and_headings_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), f"{document.name} links to {target}, which is not there"
        if heading:
            assert heading in anchors(path), f"{document.name} links to {target}: no such heading"


def anchors(document: Path) -> set[str]:
    """What headings are called in links."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tests_that_the_table_of_cases_names_are_there() -> None:
    """A test's file, or `...` for the one named before it; a parameter in brackets is not looked at."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| (\d+) \|[^|]*\|[^|]*\|([^|]*)\|", text, flags=re.MULTILINE)
    assert [int(number) for number, _tests in rows] == [*range(1, 35), *range(36, 65)]
    for number, tests in rows:
        path = ROOT
        for name in quoted(tests):
            file, _, test = name.partition("::")
            path = path if file == "..." else ROOT / "tests" / file
            assert path.is_file(), f"case {number}: there is no {path}"
            function = test.partition("[")[0]
            assert not test or f"def {function}(" in path.read_text(), f"case {number}: {name}"
