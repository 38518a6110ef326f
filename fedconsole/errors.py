"""What ends a command of fedconsole: one exit code and one exception for each reason.

FedconsoleError           carries its exit code; the command line prints the message and leaves
├── UsageError            the command itself is wrong
├── RefusedError          configuration or preflight says no; nothing was started
│   └── DamagedDeviceError     what is kept of one paired device cannot be used
├── NotPairedError        a device is not known here, or does not know this console
│   └── IdentityChangedError   a known device's address answers with another key
├── DeviceFullError       a device serves as many consoles as it can
├── NoQuorumError         too few workers to start
├── StorageError          the run's folder cannot be written or read
│   └── DamagedModelError      a model's file is gone, or does not hold what the journal says
├── RunFailedError        the run ended without success
└── EngineCrashedError    the engine process ended without a word
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Scripts rely on these numbers; docs/operating.md lists them for people."""

    COMPLETED = 0
    RUN_FAILED = 1
    USAGE = 2
    REFUSED = 3
    """By configuration or preflight, before anything was started."""
    NOT_PAIRED = 4
    """A device is not paired with this console, or is not the one that was."""
    NO_QUORUM = 5
    """Too few workers at the start."""
    ABORTED = 6
    """By the operator."""
    QUORUM_LOST = 7
    STORAGE = 8
    ENGINE_CRASHED = 9
    TIMEOUT = 124
    HANGUP = 129
    """A signal ended the front end before the run: 128 + its number."""
    INTERRUPT = 130
    TERMINATE = 143


class FedconsoleError(Exception):
    """A failure that the operator can act on: the message says what, why and how to mend it."""

    exit_code = ExitCode.RUN_FAILED


class UsageError(FedconsoleError):
    exit_code = ExitCode.USAGE


class RefusedError(FedconsoleError):
    exit_code = ExitCode.REFUSED


class DamagedDeviceError(RefusedError):
    """The others can be reached."""


class NotPairedError(FedconsoleError):
    exit_code = ExitCode.NOT_PAIRED


class IdentityChangedError(NotPairedError):
    """Nothing was sent to whoever answers there. `found_id`: empty if its certificate cannot be read."""

    def __init__(self, address: str, name: str, known_id: str, found_id: str) -> None:
        found = found_id or "one whose certificate cannot be read"
        super().__init__(
            f"IDENTITY CHANGED: {address} is known as {name} ({known_id}), but {found} answers there; "
            "somebody may be in between. Only if you know why, as after a new SD card: "
            f"fedconsole devices forget {known_id[:7]}, then pair it anew"
        )
        self.known_id = known_id
        self.found_id = found_id


class DeviceFullError(FedconsoleError):
    """It may be reached when another console has left it."""


class NoQuorumError(FedconsoleError):
    exit_code = ExitCode.NO_QUORUM


class StorageError(FedconsoleError):
    exit_code = ExitCode.STORAGE


class DamagedModelError(StorageError):
    """What cannot be read now may be whole: that is none."""


class RunFailedError(FedconsoleError):
    exit_code = ExitCode.RUN_FAILED


class EngineCrashedError(FedconsoleError):
    exit_code = ExitCode.ENGINE_CRASHED
