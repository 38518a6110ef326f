"""The command line and the file that mean the same as a plan. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from msgspec.structs import fields

from fedconsole.config import RIVALS, task_defaults
from fedconsole.coordinator.plan import Plan

_NAMES: Final = tuple(field.name for field in fields(Plan))


def command_line(plan: Plan, configured: Mapping[str, object] | None = None) -> str:
    """`fedconsole run ...` with what differs from the defaults.

    It makes the same plan here and where nothing is configured.

    Args:
        configured: what files and the environment set here, by the plan's field.
    """
    words = ["fedconsole", "run"]
    for name, value in _differing(plan, configured or {}):
        option = f"--{_key(name).replace('_', '-')}"
        if name == "workers":
            for address in plan.workers:
                words += ["--worker", address]
        elif value is True:
            words.append(option)
        elif value is not False:
            words += [option, _text(value)]
    return shlex.join(words)


def to_toml(plan: Plan, configured: Mapping[str, object] | None = None) -> str:
    """A file for `fedconsole run --config`, which makes the same plan of it, as of `command_line`."""
    lines = ["[run]"]
    for name, value in _differing(plan, configured or {}):
        lines.append(f"{_key(name).replace('_', '-')} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _differing(plan: Plan, configured: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
    """Name and value of what has to be said, in the plan's order."""
    defaults = _defaults(plan)
    changed = {
        name
        for name in _NAMES
        if (value := getattr(plan, name)) is not None
        and (value != defaults[name] or value != configured.get(name, value))
    }
    for name in _NAMES:
        value = getattr(plan, name)
        if value is None:
            continue
        # A rival that is set elsewhere would win over a default; one that is said, over what is set.
        rival = RIVALS.get(name)
        is_unset = rival in configured and name not in configured
        is_said = name in changed or rival in changed or is_unset
        # A task with an optimizer of its own takes it unless one is named.
        is_said |= name == "optimizer" and bool(task_defaults(plan.task))
        is_empty = name in ("workers", "virtual") and not value
        if is_said and not is_empty:
            yield name, value


def _defaults(plan: Plan) -> Mapping[str, object]:
    plain = Plan(virtual=1)
    return {name: getattr(plain, name) for name in _NAMES} | {"virtual": 0}


def _key(name: str) -> str:
    return name.removesuffix("_s")


def _text(value: object) -> str:
    match value:
        case (str(metric), limit):
            return f"{metric}={limit}"
        case Enum():
            return str(value.value)
        case _:
            return str(value)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case (str(metric), float() | int() as limit):
            return json.dumps(f"{metric}={limit}")
        case tuple():
            return json.dumps(list(value), ensure_ascii=False)
        case _:
            # A JSON string is a basic string of TOML, but for DEL.
            return json.dumps(_text(value), ensure_ascii=False).replace("\x7f", "\\u007f")
