"""The owner's configuration file: TOML -> what is set in it, checked key by key.

Pure: whoever calls it reads the file. A key is named as the option of `pi-daemon` that sets the
same; the tables `[limits]` and `[share]` also hold what has no option.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from pi_daemon.device.terms import Rule
from pi_daemon.protocol.limits import MAX_DATASETS, PORT
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.protocol.values import Name
from pi_daemon.toml import parse_toml

Size = Annotated[str, Meta(pattern=r"^0*[1-9][0-9]{0,14}[KMGkmg]?$(?!\n)")]
"""Bytes; K, M and G are powers of 1024."""
AtLeastOne = Annotated[int, Meta(ge=1)]
Given = Annotated[str, Meta(min_length=1)]


class ConfigError(Exception):
    """A file cannot be used. The message is one line: file, key, what was found, what is expected."""


class Limits(Struct, frozen=True, kw_only=True):
    """None: no bound, or what the option of that name takes then."""

    max_memory: Size | None = None
    max_model: Size | None = None
    max_batch_seconds: Annotated[float, Meta(ge=1, le=1e6)] = 600.0
    max_bytes: Size | None = None
    max_round_batches: AtLeastOne | None = None
    max_run_rounds: AtLeastOne | None = None
    max_run_seconds: Annotated[float, Meta(gt=0)] | None = None
    max_run_received: Size | None = None
    max_run_sent: Size | None = None


class Config(Struct, frozen=True, kw_only=True):
    """All that can be set, with the defaults of the options."""

    port: Annotated[int, Meta(ge=0, le=65_535)] = PORT
    host: Given | None = None
    id: Name | None = None
    shard: Given | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    state_dir: Given | None = None
    accept_data: Given | None = None
    share_labels: bool = False
    no_mdns: bool = False
    verbose: bool = False
    datasets: Annotated[dict[Name, Given], Meta(max_length=MAX_DATASETS)] = {}
    limits: Limits = Limits()
    share: Mapping[str, Rule] = {}


class _RuleTable(Struct, frozen=True):
    roles: tuple[ConsoleRole, ...] = (ConsoleRole.OPERATOR,)
    min_examples: AtLeastOne = 1


_SIZE: Final = 'a size in quotes, such as "512M"'
_SWITCH: Final = "true or false"
_FOLDER: Final = "a folder, in quotes"
EXPECTED: Final[Mapping[type[Struct], Mapping[str, str]]] = {
    Config: {
        "port": "a number from 0 to 65535",
        "host": 'an IP address in quotes, such as "127.0.0.1"',
        "id": "a name of 1 to 128 characters, in quotes",
        "shard": 'a shard in quotes, such as "1/3"',
        "device": '"cpu" or "cuda"',
        "state_dir": _FOLDER,
        "accept_data": _FOLDER,
        "share_labels": _SWITCH,
        "no_mdns": _SWITCH,
        "verbose": _SWITCH,
        "datasets": f'a table of at most {MAX_DATASETS} NAME = "SOURCE"',
        "limits": "a table",
        "share": "a table of DATASET = {roles = [...], min_examples = NUMBER}",
    },
    Limits: {
        "max_memory": _SIZE,
        "max_model": _SIZE,
        "max_batch_seconds": "a number of seconds, from 1 to 1000000",
        "max_bytes": _SIZE,
        "max_round_batches": "a whole number of batches, at least 1",
        "max_run_rounds": "a whole number of rounds, at least 1",
        "max_run_seconds": "a number of seconds above 0",
        "max_run_received": _SIZE,
        "max_run_sent": _SIZE,
    },
    _RuleTable: {
        "roles": 'a list of "operator" and "viewer"; an empty one is nobody',
        "min_examples": "a whole number of examples, at least 1",
    },
}
"""What a key takes, in words for people."""


def parse(text: str, file: str) -> Config:
    """Read a file's content; `file` names it in errors.

    Raises:
        ConfigError: no TOML, an unknown key, or a value of the wrong kind or out of its range.
    """
    try:
        values = parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{file}: this is no TOML: {error}") from error
    tables = {key: values.pop(key, {}) for key in ("limits", "share")}
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {key} is {_shown(table)}: expected {EXPECTED[Config][key]}")
    rules = {
        dataset: _checked(rule, _RuleTable, file, f"share.{dataset}.")
        for dataset, rule in tables["share"].items()
    }
    return Config(
        **_checked(values, Config, file, ""),
        limits=Limits(**_checked(tables["limits"], Limits, file, "limits.")),
        share={dataset: _rule(_RuleTable(**rule)) for dataset, rule in rules.items()},
    )


def _rule(table: _RuleTable) -> Rule:
    return Rule(frozenset(table.roles), table.min_examples)


def _checked(values: object, struct: type[Struct], file: str, where: str) -> dict[str, Any]:
    """The values of a table, each of its field's type; `where` begins the names of its keys."""
    if not isinstance(values, dict):
        expected = ", ".join(EXPECTED[struct])
        found = f"{where.removesuffix('.')} is {_shown(values)}"
        raise ConfigError(f"{file}: {found}: expected a table with {expected}")
    types = {field.name: field.type for field in msgspec.structs.fields(struct)}
    checked = {}
    for key, value in values.items():
        if key not in types:
            near = get_close_matches(key, types, n=1)
            hint = f"is {where}{near[0]} meant?" if near else f"there are {', '.join(types)}"
            raise ConfigError(f"{file}: {where}{key} is no key of this file: {hint}")
        try:
            checked[key] = msgspec.convert(value, types[key])
        except msgspec.ValidationError:
            expected = EXPECTED[struct][key]
            raise ConfigError(
                f"{file}: {where}{key} is {_shown(value)}: expected {expected}"
            ) from None
    return checked


def _shown(value: object) -> str:
    """Nearly as it stands in the file."""
    return msgspec.json.encode(value).decode()
