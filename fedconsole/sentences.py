"""What a line of a run (docs/operating.md, "JSON lines") says in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fedconsole.coordinator.facts import metric
from pi_daemon.protocol.text import clean

Line = Mapping[str, Any]

LINE_LIMIT: Final = 1_000
"""Characters."""
_AT_TIMEOUT = {
    "wait": ", then longer",
    "fewer": ", then going on without them",
    "fail": ", then the run fails",
}


def _quorum(line: Line) -> str:
    what = "needed update" if line.get("of") == "updates" else "needed worker"
    here = f"{line['have']} of {count(line['need'], what)} here"
    if line.get("preparing"):
        here += f", {_names(line['preparing'])} getting ready"
    left = f"{line['seconds_left']:.0f} s"
    if line["have"] >= line["need"]:
        return f"{here} again; the round has {left}."
    return f"{here}; waiting {left} for the others{_AT_TIMEOUT.get(line.get('then', ''), '')}."


def seed_line(line: Line) -> str:
    """The line that the system of 2020 wrote, for the last batch of a `worker.batches`."""
    done, total = line["first"] + len(line["losses"]), line["batches"]
    loss = line["losses"][-1]
    shown = "nan" if loss is None else f"{loss:.6f}"
    # The tab is the seed's; clean() would turn it into a space.
    head = clean(f"Train Worker {line['worker']}: [{done}/{total} ({100 * done / total:.0f}%)]")
    return f"{head}\tLoss: {shown}"


def sentence(line: Line) -> str:
    """What a line says, as one line of harmless text."""
    return clean(_sentence(line).replace("?.", "?"), LINE_LIMIT)


def _sentence(line: Line) -> str:
    kind, _, what = line["type"].partition(".")
    match kind:
        case "run":
            return _run_sentence(what, line)
        case "worker" if "worker" in line:
            return _worker_sentence(what, line)
        case "round" if what == "started":
            epoch = f" (epoch {line['epoch']})" if "epoch" in line else ""
            return f"Round {line['round']} starts with {_names(line['cohort'])}{epoch}."
        case "round" if what == "finished":
            return (
                f"Round {line['round']}: {count(len(line['updates']), 'update')}, "
                f"training loss {number_in_words(line['loss'])}, {line['seconds']:.1f} s."
            )
        case "eval":
            where = f" on {line['worker']}" if line.get("worker") else ""
            return f"Test{where} after round {line['round']}: {metrics_in_words(line)}."
        case "preflight":
            verdict = "ready" if line["ok"] else f"not ready: {line['reason']}"
            return f"{line['worker']} at {line['address']} is {verdict}."
        case "heartbeat":
            return "The engine is alive."
        case _:
            who = f" from {line['worker']}" if line.get("worker") else ""
            return f"{kind.capitalize()}{who}: {line.get('text', '')}"


def _run_sentence(what: str, line: Line) -> str:
    match what:
        case "created":
            return f"Run {line['run']} of task {line['task']}: making the workers ready."
        case "restarted":
            where = f" at round {line['round']}" if line["round"] else ""
            return f"A new engine goes on with the run{where}."
        case "stopping":
            return f"The run ends after round {line['round']}."
        case "quorum":
            return _quorum(line)
        case "stalled":
            return f"The run stands still: {line['reason']}."
        case "fewer":
            return f"Round {line['round']} goes on with {line['have']} of {line['need']} needed."
        case "finished":
            reason = f": {line['reason']}" if line.get("reason") else ""
            return f"Run {line['run']} {line['outcome']}{reason}."
        case _:
            waiting = line.get("waiting_for")
            return f"Run {what}{f', waiting for {_names(waiting)}' if waiting else ''}."


def _worker_sentence(what: str, line: Line) -> str:
    worker = line["worker"]
    reason = f": {line['reason']}" if line.get("reason") else ""
    match what:
        case "phase":
            where = f" in round {line['round']}" if line["round"] else ""
            return f"{worker} is {line['phase']}{where}."
        case "batches":
            return seed_line(line)
        case "telemetry":
            celsius = line.get("celsius")
            heat = "" if celsius is None else f", {celsius:.0f} °C"
            return f"{worker}: {line['memory_bytes'] / 2**20:.0f} MiB in use{heat}."
        case "straggler":
            return f"{worker} is a straggler: round {line['round']} has reached its deadline."
        case "update":
            return (
                f"{worker} delivered round {line['round']}: "
                f"{count(line['num_examples'], 'example')}, loss {number_in_words(line['loss'])}."
            )
        case "rejected":
            return f"The update of {worker} in round {line['round']} was discarded{reason}."
        case _:
            is_named = line.get("address") not in (None, worker)
            address = f" ({line['address']})" if is_named else ""
            return f"{worker}{address} {what}{reason}."


def metrics_in_words(line: Line) -> str:
    accuracy = metric(line, "accuracy")
    share = "" if accuracy is None else f"accuracy {100 * accuracy:.1f} %, "
    return f"{share}test loss {number_in_words(metric(line, 'loss'))}"


def number_in_words(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}"


def _names(names: list[str]) -> str:
    return ", ".join(names) or "nobody"


def count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
