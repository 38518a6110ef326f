"""The daemon's TOML: what may stand there, and what is said of the rest."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec
import pytest
import typer

from pi_daemon.cli.main import app
from pi_daemon.config import EXPECTED, Config, ConfigError, Limits, parse
from pi_daemon.device.terms import Rule
from pi_daemon.protocol.pairing import ConsoleRole

ALL = """
port = 10003
host = "0.0.0.0"
id = "kitchen"
shard = "1/3"
device = "cpu"
state_dir = "/var/lib/pi-daemon"
accept_data = "/srv/dealt"
share_labels = true
no_mdns = true
verbose = true

[datasets]
motion = "/srv/motion.npz"
digits = "sample"

[limits]
max_memory = "512M"
max_model = "100M"
max_batch_seconds = 60
max_bytes = "1G"
max_round_batches = 500
max_run_rounds = 100
max_run_seconds = 3600
max_run_received = "1G"
max_run_sent = "1G"

[share]
motion = {roles = ["operator"], min_examples = 50}
digits = {roles = []}
"*" = {}
"""


def test_everything_that_can_be_set_is_read() -> None:
    config = parse(ALL, "config.toml")
    assert config == Config(
        port=10003,
        host="0.0.0.0",
        id="kitchen",
        shard="1/3",
        device="cpu",
        state_dir="/var/lib/pi-daemon",
        accept_data="/srv/dealt",
        share_labels=True,
        no_mdns=True,
        verbose=True,
        datasets={"motion": "/srv/motion.npz", "digits": "sample"},
        limits=Limits(
            max_memory="512M",
            max_model="100M",
            max_batch_seconds=60.0,
            max_bytes="1G",
            max_round_batches=500,
            max_run_rounds=100,
            max_run_seconds=3600.0,
            max_run_received="1G",
            max_run_sent="1G",
        ),
        share={
            "motion": Rule(frozenset({ConsoleRole.OPERATOR}), 50),
            "digits": Rule(frozenset()),
            "*": Rule(),
        },
    )


def test_an_empty_file_changes_nothing() -> None:
    assert parse("", "config.toml") == Config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = ", "this is no TOML: Invalid value (at end of document)"),
        ("prot = 1", "prot is no key of this file: is port meant?"),
        ("port = '1'", 'port is "1": expected a number from 0 to 65535'),
        ("port = 65536", "port is 65536: expected a number from 0 to 65535"),
        ("verbose = 1", "verbose is 1: expected true or false"),
        ("device = 'gpu'", 'device is "gpu": expected "cpu" or "cuda"'),
        ("id = ''", 'id is "": expected a name of 1 to 128 characters, in quotes'),
        ("datasets = 'x'", 'datasets is "x": expected a table of at most 64 NAME = "SOURCE"'),
        (
            "[datasets]\nx = 1",
            'datasets is {"x":1}: expected a table of at most 64 NAME = "SOURCE"',
        ),
        ("limits = 5", "limits is 5: expected a table"),
        (
            "[limits]\nmax_run_round = 5",
            "limits.max_run_round is no key of this file: is limits.max_run_rounds meant?",
        ),
        (
            "[limits]\nmax_model = '1T'",
            'limits.max_model is "1T": expected a size in quotes, such as "512M"',
        ),
        (
            "[limits]\nmax_model = '0'",
            'limits.max_model is "0": expected a size in quotes, such as "512M"',
        ),
        (
            "[limits]\nmax_batch_seconds = 1e300",
            "limits.max_batch_seconds is 1e300: expected a number of seconds, from 1 to 1000000",
        ),
        (
            "[limits]\nmax_run_rounds = 0",
            "limits.max_run_rounds is 0: expected a whole number of rounds, at least 1",
        ),
        (
            "[limits]\nmax_run_seconds = true",
            "limits.max_run_seconds is true: expected a number of seconds above 0",
        ),
        ("[share]\nx = 5", "share.x is 5: expected a table with roles, min_examples"),
        (
            "[share]\nx = {role = []}",
            "share.x.role is no key of this file: is share.x.roles meant?",
        ),
        (
            "[share]\nx = {roles = ['owner']}",
            'share.x.roles is ["owner"]: expected a list of "operator" and "viewer"; an empty one is '
            "nobody",
        ),
        (
            "[share]\nx = {min_examples = 0}",
            "share.x.min_examples is 0: expected a whole number of examples, at least 1",
        ),
    ],
    ids=range(20),
)
def test_what_cannot_be_is_said_in_one_line_with_file_and_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text, "config.toml")
    assert str(refused.value) == f"config.toml: {said}"


def test_every_key_has_words_for_what_it_takes() -> None:
    for struct, words in EXPECTED.items():
        assert [*words] == [field.name for field in msgspec.structs.fields(struct)]


def test_every_option_that_is_a_setting_is_a_key() -> None:
    options = {
        parameter.opts[0].removeprefix("--").replace("-", "_")
        for parameter in typer.main.get_command(app).params
    }
    # `--pair` and these are said once, and not for good.
    options -= {"config", "pair", "version", "help"}
    keys = {*Config.__struct_fields__, *Limits.__struct_fields__} - {"limits", "share"}
    own = {"max_round_batches", "max_run_rounds", "max_run_seconds", "max_run_received"}
    assert keys - own - {"max_run_sent"} == options - {"dataset"} | {"datasets"}


DOCUMENT = (Path(__file__).parents[2] / "docs" / "device.md").read_text()


def first_column(heading: str) -> list[str]:
    """What the rows of a table in device.md are about."""
    section = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


def test_the_document_has_every_key_and_its_example_is_right() -> None:
    assert set(first_column("The settings")) == {*Config.__struct_fields__}
    assert first_column("What a run may use") == [*Limits.__struct_fields__]
    assert first_column("Who learns from which data") == ["roles", "min_examples"]
    [example] = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    assert parse(example, "device.md").limits.max_run_rounds == 200


def test_the_document_has_every_kind_of_line_of_the_audit_log() -> None:
    recorder = Path(__file__).parents[2] / "pi_daemon" / "audit" / "recorder.py"
    written = {
        str(node.args[0].value)
        for node in ast.walk(ast.parse(recorder.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "_entry"
        and isinstance(node.args[0], ast.Constant)
    }
    _what, *listed = first_column("What left the device")
    assert set(listed) == written | {"left out", "sums of before"}
