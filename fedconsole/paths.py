"""Where fedconsole keeps things. Every place follows the XDG variables, read at each call."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_config_path, user_data_path, user_state_path

from fedconsole.errors import StorageError
from pi_daemon import paths as device_paths

SYSTEM_CONFIG = Path("/etc/fedconsole/config.toml")
PROJECT_CONFIG = Path("fedconsole.toml")
"""In the current folder."""


def require_regular(path: Path) -> None:
    """Call before a file of a run is opened. One that is not there passes.

    Raises:
        OSError: it is a FIFO, a folder or a device, which might never end, or never begin, when it is read.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is no regular file")


def state_dir() -> Path:
    return user_state_path("fedconsole")


def runs_dir() -> Path:
    """One folder for each run, named by its id. May not exist yet."""
    return state_dir() / "runs"


def runtime_dir() -> Path:
    """Private folder for sockets and the registry of local daemons; made if missing.

    Raises:
        StorageError: it cannot be made, or others can get at it.
    """
    try:
        return device_paths.runtime_dir()
    except (OSError, device_paths.UnsafePathError) as error:
        raise StorageError(f"no private folder for sockets: {error}") from error


def user_config() -> Path:
    return user_config_path("fedconsole") / "config.toml"


def config_files() -> tuple[Path, ...]:
    """Configuration files, the strongest first; none of them has to exist."""
    return PROJECT_CONFIG, user_config(), SYSTEM_CONFIG


def identity_dir() -> Path:
    """Of this console's own key; may not exist yet."""
    return user_data_path("fedconsole") / "identity"


def known_devices_dir() -> Path:
    """A file for each device that is paired; may not exist yet."""
    return user_data_path("fedconsole") / "devices"


def data_dir(given: str | None) -> Path:
    """The folder of datasets on this desktop: that of `--data-dir`, else the user's own."""
    return Path(given).expanduser() if given else user_data_path("fedconsole") / "datasets"
