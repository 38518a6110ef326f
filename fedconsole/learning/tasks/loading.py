"""Finds the task that `--task` names: a built-in one, or a file of the operator's own."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import linecache
import sys
import traceback
from pathlib import Path

from fedconsole.learning.tasks.task import Task, TaskError

BUILT_IN = {
    "digits": ("digits", "task"),
    "mnist": ("mnist", "task"),
    "ecg": ("ecg", "task"),
    "ecg-rr": ("ecg", "task_with_intervals"),
}
"""Each with its module in this package, and its name there."""


def load_task(name: str) -> Task:
    """The task of this name, or in this file: whatever ends in `.py` or has a slash is a file.

    A file runs as ordinary Python, with the rights of whoever started the run.

    Raises:
        TaskError: there is no such task, or its file does not define one.
    """
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name]
        task: Task = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
        return task
    if name.endswith(".py") or "/" in name:
        return _load_file(Path(name))
    close = difflib.get_close_matches(name, BUILT_IN, n=1)
    hint = f"did you mean {close[0]}?" if close else f"built in are {', '.join(BUILT_IN)};"
    raise TaskError(f"there is no task {name!r}: {hint} a task of your own is a path to FILE.py")


def _load_file(path: Path) -> Task:
    if not path.is_file():
        raise TaskError(f"{path} is not there: expected a Python file that defines `task`")
    module_name = f"fedconsole_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses in the file look themselves up here.
    sys.modules[module_name] = module
    # A helper beside the file can be imported, and shadows nothing.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TaskError(f"{path} failed: {_describe(error, path)}") from error
    task = getattr(module, "task", None)
    if not isinstance(task, Task):
        found = "nothing" if task is None else f"a {type(task).__name__}"
        raise TaskError(
            f"{path} defines {found} called `task`, expected `task = Task(...)` at its end"
        )
    return task


def _describe(error: BaseException, path: Path) -> str:
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        file, line = error.filename, error.lineno
        reason = f"SyntaxError: {error.msg}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        file, line = (own[-1].filename, own[-1].lineno) if own else (str(path), None)
    if not file or not line:
        return reason
    return f"{reason}; {file}:{line}: {linecache.getline(file, line).strip()}"
