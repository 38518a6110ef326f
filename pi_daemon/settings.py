"""What the device's owner decided, checked and complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pi_daemon.device.terms import Terms


@dataclass(frozen=True, slots=True)
class Settings:
    worker_name: str
    host: str
    port: int
    """0: any free one."""
    sources: Mapping[str, str]
    """As in `--dataset NAME=SOURCE`."""
    shard: str | None
    shares_labels: bool
    """Tell how many examples each class has."""
    accept_dir: str | None
    """Where consoles may deal data into."""
    device: str
    """"cpu" or "cuda"."""
    max_memory_bytes: int
    max_model_bytes: int | None
    """None: a share of the device's memory."""
    max_data_bytes: int
    """Of all that is dealt; 0: nothing may be."""
    max_batch_s: float
    announces: bool
    """On mDNS."""
    terms: Terms
