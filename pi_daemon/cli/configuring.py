"""What the owner decided: the configuration file, with the command line's options over it."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pi_daemon.cli.refusal import parse_size, refuse
from pi_daemon.protocol.limits import MAX_NAME

if TYPE_CHECKING:
    from pi_daemon.config import Config
    from pi_daemon.device.terms import Terms
    from pi_daemon.settings import Settings

SYSTEM_CONFIG: Final = Path("/etc/pi-daemon/config.toml")
DEFAULT_MAX_BYTES: Final = 1 << 30
"""Of dealt data: room for any of the usual sets, on a card that holds the system as well."""
MEMORY_SHARE: Final = 0.8
"""Of the device's memory, what the trainer gets unless the owner says otherwise."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """All that the owner decided, and the file that some of it is from."""

    config: Config
    file: Path | None

    @property
    def worker_name(self) -> str:
        return full_name(self.config.id or "")

    @property
    def state_dir(self) -> Path:
        from pi_daemon.paths import default_state_dir

        own = self.config.state_dir
        return Path(own) if own else default_state_dir(self.worker_name)


def full_name(worker_name: str) -> str:
    """The worker's name, if its owner has given none."""
    name = worker_name or platform.node() or "worker"
    if len(name) > MAX_NAME:
        refuse(f"--id has {len(name)} characters, at most {MAX_NAME} are allowed")
    return name


def chosen(config_file: Path | None, options: Mapping[str, Any] | None = None) -> Chosen:
    """Read the file, or the default one that is there, and lay the options that are given over it.

    Ends the command when the file, or a size among the options, is not as it should be.

    Args:
        options: by their keys in the file; those that are None or False were not given.
    """
    from msgspec.structs import replace

    from pi_daemon.config import Config, Limits

    file = config_file or next(filter(Path.is_file, (SYSTEM_CONFIG, _user_config())), None)
    config = read(file) if file else Config()
    # By identity: 0 is a port.
    given = {k: v for k, v in (options or {}).items() if v is not None and v is not False}
    limits = {key: given.pop(key) for key in Limits.__struct_fields__ if key in given}
    for key, value in limits.items():
        if isinstance(value, str):
            parse_size(f"--{key.replace('_', '-')}", value)
    decided = replace(config, **given, limits=replace(config.limits, **limits))
    if decided.accept_data is None:
        _require_known(decided.share, {**config.datasets, **decided.datasets}, file)
    return Chosen(decided, file)


def settings_of(chosen: Chosen, host: str) -> Settings:
    """Ends the command when settings do not go together; `host` is where to listen."""
    import psutil

    from pi_daemon.settings import Settings

    config, limits = chosen.config, chosen.config.limits
    max_data_bytes = 0
    if config.accept_data is not None:
        max_data_bytes = parse_size("--max-bytes", limits.max_bytes) or DEFAULT_MAX_BYTES
    elif limits.max_bytes is not None:
        refuse("--max-bytes is the limit of what is dealt: it needs --accept-data DIR")
    total_bytes = psutil.virtual_memory().total
    max_memory_bytes = parse_size("--max-memory", limits.max_memory)
    return Settings(
        worker_name=chosen.worker_name,
        host=host,
        port=config.port,
        sources=config.datasets,
        shard=config.shard,
        shares_labels=config.share_labels,
        accept_dir=config.accept_data,
        device=config.device,
        max_memory_bytes=max_memory_bytes or int(total_bytes * MEMORY_SHARE),
        max_model_bytes=parse_size("--max-model", limits.max_model),
        max_data_bytes=max_data_bytes,
        max_batch_s=limits.max_batch_seconds,
        announces=not config.no_mdns,
        terms=_terms(config),
    )


def _terms(config: Config) -> Terms:
    from pi_daemon.device.terms import Bounds, Terms

    limits = config.limits
    bounds = Bounds(
        max_round_batches=limits.max_round_batches,
        max_run_rounds=limits.max_run_rounds,
        max_run_seconds=limits.max_run_seconds,
        max_run_received=parse_size("max_run_received", limits.max_run_received),
        max_run_sent=parse_size("max_run_sent", limits.max_run_sent),
    )
    return Terms(bounds, config.share)


def _require_known(rules: Iterable[str], datasets: Collection[str], file: Path | None) -> None:
    """A name that is mistyped would leave the dataset that was meant without its rule."""
    from pi_daemon.device.terms import EVERY_DATASET

    for name in rules:
        if name not in datasets and name != EVERY_DATASET:
            held = ", ".join(datasets) or "no dataset"
            refuse(
                f"{file}: share.{name} is a rule for a dataset that is not here: there is {held}"
            )


def _user_config() -> Path:
    import platformdirs

    return platformdirs.user_config_path("pi-daemon") / "config.toml"


def read(file: Path, folder: Path | None = None) -> Config:
    """What a file says; paths in it begin at `folder`, by default at its own.

    Ends the command when it is not as it should be.
    """
    from pi_daemon.config import ConfigError, parse

    folder = folder or file.absolute().parent
    try:
        return _rooted(parse(file.read_text(encoding="utf-8"), str(file)), folder)
    except (ConfigError, UnicodeDecodeError) as error:
        refuse(str(error) if isinstance(error, ConfigError) else f"{file}: this is no text")
    except OSError as error:
        refuse(f"{file} cannot be read ({error.strerror}): see --config")


def _rooted(config: Config, folder: Path) -> Config:
    from msgspec.structs import replace

    def rooted(path: str | None) -> str | None:
        return path if path is None else str(folder / path)

    sources = {
        name: source if source == "sample" else str(folder / source)
        for name, source in config.datasets.items()
    }
    return replace(
        config,
        datasets=sources,
        state_dir=rooted(config.state_dir),
        accept_data=rooted(config.accept_data),
    )
