from __future__ import annotations

from pathlib import Path

import pytest

from fedconsole import paths
from fedconsole.config import FrontEnd, Setting, load, read_value
from fedconsole.coordinator.plan import Optimizer, Plan, PlanError
from fedconsole.errors import RefusedError, UsageError
from fedconsole.fleet.device import Device, Source
from tests.support.places import redirect


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", tmp_path / "etc.toml")
    folder = redirect(tmp_path, monkeypatch)
    monkeypatch.delenv("FEDCONSOLE_SEARCH_SECONDS")
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_any_source_all_is_default() -> None:
    config = load({"virtual": 3})
    assert config.plan() == Plan(virtual=3)
    assert config.front_end() == FrontEnd()


def test_a_stronger_source_wins_for_each_key_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("batch_size", "test_batch_size", "seed", "momentum", "lr", "holdout")
    for number, path in enumerate(
        (paths.SYSTEM_CONFIG, paths.user_config(), Path("fedconsole.toml"), place / "given.toml")
    ):
        values = "".join(f"{key} = 0.{number + 1}\n" for key in keys[3 + number // 2 :])
        write(path, f"[run]\nvirtual = {number + 1}\nseed = {number + 1}\n{values}")
    monkeypatch.setenv("FEDCONSOLE_SEED", "77")
    monkeypatch.setenv("FEDCONSOLE_BATCH_SIZE", "8")
    config = load({"batch_size": 9, "lr": None}, place / "given.toml")
    given, project = str(place / "given.toml"), "fedconsole.toml"
    assert config.set == {
        "batch_size": Setting("batch_size", 9, "--batch-size"),
        "seed": Setting("seed", 77, "FEDCONSOLE_SEED"),
        "virtual": Setting("virtual", 4, given),
        "lr": Setting("lr", 0.4, given),
        "holdout": Setting("holdout", 0.4, given),
        "momentum": Setting("momentum", 0.2, str(paths.user_config())),
    }
    assert config.files == (
        place / "given.toml",
        Path(project),
        paths.user_config(),
        paths.SYSTEM_CONFIG,
    )


def test_a_task_has_defaults_of_its_own_which_any_source_overrides() -> None:
    config = load({"task": "ecg", "virtual": 1})
    assert config.plan() == Plan(task="ecg", virtual=1, optimizer=Optimizer.ADAM, lr=0.001)
    shown = [setting for setting in config.settings() if setting.key in {"optimizer", "lr"}]
    assert shown == [
        Setting("lr", 0.001, "task ecg"),
        Setting("optimizer", Optimizer.ADAM, "task ecg"),
    ]
    write(Path("fedconsole.toml"), "[run]\ntask = 'ecg-rr'\nlr = 0.5\n")
    plan = load({"virtual": 1}).plan()
    assert plan == Plan(task="ecg-rr", virtual=1, optimizer=Optimizer.ADAM, lr=0.5)


def test_the_learning_rate_of_a_task_goes_with_its_optimizer() -> None:
    plan = load({"task": "ecg", "virtual": 1, "optimizer": "sgd", "momentum": 0.9}).plan()
    assert plan == Plan(task="ecg", virtual=1, momentum=0.9)


def test_choosing_one_of_two_rivals_overrides_the_other_from_a_weaker_source() -> None:
    write(Path("fedconsole.toml"), "[run]\nepochs = 5\nlocal-epochs = 1\nworkers = ['pi']\n")
    plan = load({"rounds": 3, "federate_after_n_batches": 10, "virtual": 2}).plan()
    assert plan == Plan(rounds=3, federate_after_n_batches=10, virtual=2)


def test_both_rivals_from_one_source_are_refused() -> None:
    with pytest.raises(PlanError, match="rounds is 3 and epochs is 2: give one of them"):
        load({"rounds": 3, "epochs": 2, "virtual": 1}).plan()


def test_text_from_the_environment_becomes_typed_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {
        "WORKERS": "10.0.0.2,[fe80::1]:9",
        "STOP_AT": "accuracy=0.95",
        "EVAL_EVERY": "3",
        "NESTEROV": "true",
        "MOMENTUM": "0.5",
        "ROUND_TIMEOUT": "30",
        "OPTIMIZER": "sgd",
        "PLAIN": "1",
        "TIMEOUT": "2.5",
    }.items():
        monkeypatch.setenv(f"FEDCONSOLE_{key}", value)
    config = load({})
    assert config.plan() == Plan(
        workers=("10.0.0.2:10002", "[fe80::1]:9"),
        stop_at=("accuracy", 0.95),
        eval_every=3,
        nesterov=True,
        momentum=0.5,
        round_timeout_s=30.0,
        optimizer=Optimizer.SGD,
    )
    assert config.front_end() == FrontEnd(plain=True, timeout=2.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nlerning_rate = 1", "unknown key 'lerning_rate'"),
        ("[run]\nbatchsize = 1", "unknown key 'batchsize'; did you mean 'batch_size'?"),
        ("[runs]\nlr = 1", "unknown key 'runs'; did you mean 'run'?"),
        ("run = 3", "run must be a table, written"),
        ("[run]\nlr = 'fast'", "lr is 'fast' \\(fedconsole.toml\\): expected a number"),
        ("[run]\noptimizer = 'sdg'", "optimizer is 'sdg'"),
        ("[run]\nstop_at = 'accuracy'", "expected METRIC=VALUE"),
        ("[run]\neval_every = 1.5", "eval_every is 1.5 .*: expected round, epoch or a number"),
        (
            "[run]\nbatch-size = 8\nbatch_size = 9",
            r"\[run\]: 'batch-size' and 'batch_size' are one key; keep one",
        ),
        ("[run", "fedconsole.toml is no TOML"),
        ("devices = 3", "devices must be tables"),
        ("[[devices]]\nname = 'a'", "number 1: Object missing required field `host`"),
        ("[[devices]]\nhost = 'a'\nprot = 1", "unknown key 'prot'; did you mean 'port'?"),
        ("[[devices]]\nhost = 'a b'", "is no address"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_reason(text: str, message: str) -> None:
    write(Path("fedconsole.toml"), text)
    with pytest.raises(RefusedError, match=message):
        load({})


def test_a_given_file_must_exist(place: Path) -> None:
    with pytest.raises(RefusedError, match=r"cannot read .*none\.toml: No such file"):
        load({}, place / "none.toml")


def test_a_mistyped_variable_is_an_error_and_a_foreign_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEDCONSOLE_DATA", "/somewhere")
    load({})
    monkeypatch.setenv("FEDCONSOLE_BATCH_SZE", "3")
    with pytest.raises(UsageError, match=r"did you mean FEDCONSOLE_BATCH_SIZE\?"):
        load({})


@pytest.mark.parametrize(
    ("key", "text", "reason"),
    [
        ("eval_every", "foo", "expected round, epoch or a number of rounds"),
        ("stop_at", "accuracy=abc", "expected METRIC=VALUE, such as accuracy=0.95"),
        ("stop_at", "=0.5", "expected METRIC=VALUE, such as accuracy=0.95"),
    ],
)
def test_a_wrong_option_is_refused_in_words_that_help(key: str, text: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        load({key: text})
    option = f"--{key.replace('_', '-')}"
    assert str(refused.value) == f"{key} is {text!r} ({option}): {reason}"


def test_devices_of_all_files_are_known() -> None:
    write(Path("fedconsole.toml"), "[[devices]]\nhost = 'kitchen.local'\nname = 'kitchen'\n")
    write(paths.user_config(), "[[devices]]\nhost = 'fe80::1'\nport = 9\nid = 'LOEW'\n")
    assert load({}).devices == (
        Device("kitchen", "kitchen.local:10002", Source.CONFIG),
        Device("fe80::1", "[fe80::1]:9", Source.CONFIG, "LOEW"),
    )


def test_a_configuration_is_checked_without_knowing_the_workers() -> None:
    write(Path("fedconsole.toml"), "[run]\ncohort_size = 5\nmin_updates = 4\n")
    load({}).check()
    with pytest.raises(PlanError, match="lr is 0"):
        load({"lr": 0.0}).check()


def test_the_effective_settings_name_their_origin() -> None:
    settings = {setting.key: setting for setting in load({"lr": 0.5}).settings()}
    assert settings["lr"] == Setting("lr", 0.5, "--lr")
    assert settings["epochs"] == Setting("epochs", 2, "default")
    assert settings["virtual"] == Setting("virtual", 0, "default")
    assert settings["timeout"] == Setting("timeout", None, "default")


def test_a_number_with_more_digits_than_can_be_read_is_called_too_far_from_0() -> None:
    digits = "9" * 5_000
    with pytest.raises(UsageError, match=f"^epochs is '{digits}': expected a number nearer to 0$"):
        read_value("epochs", digits)
