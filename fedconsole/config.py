"""Options, environment and TOML files, strongest first -> one validated plan."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from fedconsole import paths
from fedconsole.coordinator.plan import Plan
from fedconsole.errors import FedconsoleError, RefusedError, UsageError
from fedconsole.fleet.device import Device, Source, parse_address
from pi_daemon.protocol.limits import PORT
from pi_daemon.protocol.text import clean
from pi_daemon.toml import parse_toml

Theme = Literal[
    "ansi",
    "fed-dark",
    "fed-light",
    "fed-high-contrast",
    "textual-dark",
    "textual-light",
    "nord",
    "gruvbox",
    "catppuccin-mocha",
    "dracula",
    "tokyo-night",
    "monokai",
    "flexoki",
    "catppuccin-latte",
    "catppuccin-frappe",
    "catppuccin-macchiato",
    "solarized-light",
    "solarized-dark",
    "rose-pine",
    "rose-pine-moon",
    "rose-pine-dawn",
    "atom-one-dark",
    "atom-one-light",
]
"""Ours, and those of Textual."""


class FrontEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What a person may set once and for all about the program in their terminal."""

    plain: bool = False
    """One sentence per event, for screen readers."""
    timeout: float | None = None
    """Seconds after which `run` aborts."""
    search_seconds: float = 1.5
    """How long to listen for devices' announcements; 0: no multicast at all."""
    lang: Literal["en", "ko"] | None = None
    """Of the full screen; None: that of the locale."""
    theme: Theme = "fed-dark"
    glyphs: Literal["unicode", "ascii"] = "unicode"
    """ascii: for terminals that draw signs two cells wide."""
    mouse: bool = True
    """False: the terminal's own selection works."""
    bell: bool = True

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise UsageError(f"timeout is {self.timeout}: expected seconds above 0")
        if not 0 <= self.search_seconds < math.inf:
            raise UsageError(f"search_seconds is {self.search_seconds}: expected 0 or more")


class _DeviceTable(msgspec.Struct, frozen=True):
    host: str
    port: int = PORT
    name: str | None = None
    id: str | None = None


def _fields(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    # A key is the option's name; the unit is part of the plan's field only.
    return {field.name.removesuffix("_s"): field for field in msgspec.structs.fields(struct)}


_TABLES = {"run": _fields(Plan), "console": _fields(FrontEnd)}
KEYS = _TABLES["run"] | _TABLES["console"]
RIVALS = {
    "rounds": "epochs",
    "epochs": "rounds",
    "federate_after_n_batches": "local_epochs",
    "local_epochs": "federate_after_n_batches",
    "workers": "virtual",
    "virtual": "workers",
}
"""Setting one of a pair overrides the other wherever that was set more weakly."""
_FORMS = {
    "stop_at": "expected METRIC=VALUE, such as accuracy=0.95",
    "eval_every": "expected round, epoch or a number of rounds",
}
"""What to say of keys whose types say little to a person."""
_TASK_DEFAULTS: dict[str, dict[str, object]] = {
    name: {"optimizer": "adam", "lr": 0.001} for name in ("ecg", "ecg-rr")
}
"""What a built-in task needs other than the plan's defaults."""
_OF_TASK = "task "
"""How the origin of what a task sets itself begins."""
_PREFIX = "FEDCONSOLE_"


@dataclass(frozen=True, slots=True)
class Setting:
    """An effective value and where it came from."""

    key: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Config:
    """What was set anywhere, or by the task; all else has its default."""

    set: Mapping[str, Setting]
    devices: tuple[Device, ...]
    files: tuple[Path, ...]
    """The files that were read."""

    @property
    def workers(self) -> tuple[str, ...]:
        workers: tuple[str, ...] = self._values("run").get("workers", ())
        return workers

    @property
    def virtual(self) -> int:
        number: int = self._values("run").get("virtual", 0)
        return number

    def plan(self) -> Plan:
        """Raises PlanError, naming every wrong value."""
        return Plan(**self._values("run"))

    def front_end(self) -> FrontEnd:
        return FrontEnd(**self._values("console"))

    def run_values(self) -> Mapping[str, Any]:
        """What files, the environment and options set of a run, by the plan's field."""
        own = {name for name, s in self.set.items() if s.origin.startswith(_OF_TASK)}
        fields = {field.name for key, field in _TABLES["run"].items() if key in own}
        return {name: value for name, value in self._values("run").items() if name not in fields}

    def check(self) -> Plan:
        """The plan, or PlanError, whoever the workers will be: unless set, virtual ones stand in."""
        values = self._values("run")
        if not self.workers and not self.virtual:
            sizes = values.get("cohort_size"), values.get("min_updates"), 1
            values["virtual"] = max(size for size in sizes if size is not None)
        return Plan(**values)

    def settings(self) -> list[Setting]:
        """All keys with their effective values, in the order of the plan."""
        plan, front_end = self.check(), self.front_end()
        effective = {key: getattr(plan, field.name) for key, field in _TABLES["run"].items()}
        effective |= {key: getattr(front_end, key) for key in _TABLES["console"]}
        effective["virtual"] = self.virtual
        return [self.set.get(key) or Setting(key, effective[key], "default") for key in KEYS]

    def _values(self, table: str) -> dict[str, Any]:
        fields = _TABLES[table]
        return {fields[k].name: setting.value for k, setting in self.set.items() if k in fields}


def load(options: Mapping[str, object], config_file: Path | None = None) -> Config:
    """Read every source.

    Args:
        options: the command line's, by key; None means not given.
        config_file: of `--config`; must exist.

    Raises:
        UsageError: an option or an environment variable has a wrong value.
        RefusedError: a file cannot be read, has an unknown key or a wrong value.
    """
    layers = [
        _layer(((k, v, f"--{k.replace('_', '-')}") for k, v in options.items()), UsageError),
        _layer(_environment(), UsageError),
    ]
    devices: list[Device] = []
    files = tuple(_files(config_file))
    for path in files:
        document = _read(path)
        layers.append(_layer(_file_values(path, document), RefusedError))
        devices += _devices(path, document.get("devices", []))
    chosen: dict[str, Setting] = {}
    for layer in layers:
        taken = chosen.keys() | {RIVALS[key] for key in chosen if key in RIVALS}
        chosen |= {key: setting for key, setting in layer.items() if key not in taken}
    # A learning rate belongs to its optimizer: whoever chose another has no use for the task's.
    if "task" in chosen and "optimizer" not in chosen:
        task = str(chosen["task"].value)
        own = task_defaults(task).items()
        layer = _layer(((k, v, f"{_OF_TASK}{task}") for k, v in own), UsageError)
        chosen = layer | chosen
    return Config(chosen, tuple(devices), files)


def template() -> str:
    """A file that sets nothing: every key with its default, commented out."""
    defaults = {setting.key: setting.value for setting in Config({}, (), ()).settings()}
    lines = ["# Shown are the defaults: take a # away and change what stands behind it."]
    for table, fields in _TABLES.items():
        lines += ["", f"[{table}]"]
        for key in fields:
            value = defaults[key]
            lines.append(f"# {key} = {'' if value is None else json.dumps(value)}".rstrip())
    return "\n".join([*lines, "", "# [[devices]]", '# host = "192.168.0.52"', ""])


def _files(config_file: Path | None) -> Iterator[Path]:
    if config_file is not None:
        yield config_file
    yield from (path for path in paths.config_files() if path.is_file())


def _read(path: Path) -> dict[str, Any]:
    try:
        document = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RefusedError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RefusedError(f"{path} is no TOML: {error}; mend that line") from error
    _require_known(document, [*_TABLES, "devices"], str(path))
    return document


def _file_values(path: Path, document: dict[str, Any]) -> Iterator[tuple[str, object, str]]:
    for table, fields in _TABLES.items():
        values = document.get(table, {})
        if not isinstance(values, dict):
            raise RefusedError(f"{path}: {table} must be a table, written [{table}]")
        spellings: dict[str, str] = {}
        for spelling in values:
            first = spellings.setdefault(spelling.replace("-", "_"), spelling)
            if first != spelling:
                raise RefusedError(
                    f"{path}, [{table}]: {first!r} and {spelling!r} are one key; keep one"
                )
        _require_known(spellings, fields, f"{path}, [{table}]")
        yield from ((key, values[spelling], str(path)) for key, spelling in spellings.items())


def _devices(path: Path, tables: object) -> Iterator[Device]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RefusedError(f"{path}: devices must be tables, each written [[devices]]")
    for number, table in enumerate(tables, start=1):
        where = f"{path}, [[devices]] number {number}"
        _require_known(table, [f.name for f in msgspec.structs.fields(_DeviceTable)], where)
        try:
            found = msgspec.convert(table, _DeviceTable)
            address = parse_address(f"[{found.host}]:{found.port}")
        except (msgspec.ValidationError, UsageError) as error:
            raise RefusedError(f"{where}: {error}") from error
        yield Device(clean(found.name or found.host, 64), address, Source.CONFIG, found.id)


def read_value(key: str, text: str) -> object:
    """What a person typed for a key, as the plan wants it. Raises UsageError."""
    try:
        return _convert(key, text)
    except (msgspec.ValidationError, ValueError, UsageError) as reason:
        raise UsageError(f"{key} is {text!r}: {_form_of(key, reason)}") from reason


def task_defaults(task: str) -> Mapping[str, object]:
    """What a task sets itself, by the plan's field, unless an optimizer is chosen."""
    return _TASK_DEFAULTS.get(task, {})


def foreign_variables() -> list[str]:
    """Variables that look like settings and are none; somebody else may need them."""
    return sorted(
        name
        for name in os.environ
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX).lower() not in KEYS
    )


def _environment() -> Iterator[tuple[str, object, str]]:
    for name, value in os.environ.items():
        if not name.startswith(_PREFIX):
            continue
        key = name.removeprefix(_PREFIX).lower()
        if key in KEYS:
            yield key, value.split(",") if key == "workers" else value, name
        # Other FEDCONSOLE_ variables may be somebody else's; only a near miss is a mistake.
        elif close := get_close_matches(key, KEYS, n=1, cutoff=0.8):
            raise UsageError(f"{name} is unknown; did you mean {_PREFIX}{close[0].upper()}?")


def _layer(
    values: Iterable[tuple[str, object, str]], error: type[FedconsoleError]
) -> dict[str, Setting]:
    layer = {}
    for key, value, origin in values:
        if value is None:
            continue
        try:
            layer[key] = Setting(key, _convert(key, value), origin)
        except (msgspec.ValidationError, ValueError, UsageError) as reason:
            form = _form_of(key, reason)
            raise error(f"{key} is {value!r} ({origin}): {form}") from reason
    return layer


def _convert(key: str, value: object) -> object:
    match key, value:
        case "stop_at", str(text):
            metric, _, limit = text.partition("=")
            if not metric:
                raise ValueError("no metric")
            value = metric, limit
        case "eval_every", str(text) if text.isdecimal():
            value = int(text)
    converted = msgspec.convert(value, KEYS[key].type, strict=False)
    return tuple(map(parse_address, converted)) if key == "workers" else converted


def _form_of(key: str, reason: Exception) -> object:
    """What a value should look like, for a person."""
    types = str(KEYS[key].type)
    if key not in _FORMS and (choices := _choices(KEYS[key].type)):
        return f"expected {' or '.join(choices)}"
    if "out of range" in str(reason):
        return "expected a number nearer to 0"
    if isinstance(reason, msgspec.ValidationError) and key not in _FORMS:
        for name, words in (("float", "expected a number"), ("int", "expected a whole number")):
            if name in types:
                return words
    return _FORMS.get(key, reason)


def _choices(kind: Any) -> list[str]:
    """The texts that a type takes; none: any."""
    return [
        choice
        for one in (kind, *get_args(kind))
        if get_origin(one) is Literal
        for choice in get_args(one)
    ]


def _require_known(found: Iterable[str], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in found:
        if key not in known:
            close = get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise RefusedError(f"{where}: unknown key {clean(key, 64)!r}; {hint}")
