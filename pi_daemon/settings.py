"""What the device's owner decided, checked and complete."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    worker_name: str
    host: str
    port: int
    """0: any free one."""
    sources: dict[str, str]
    """As in `--dataset NAME=SOURCE`."""
    shard: str | None
    shares_labels: bool
    """Tell how many examples each class has."""
    accept_dir: str | None
    """Where consoles may deal data into."""
    device: str
    """"cpu" or "cuda"."""
    max_memory_bytes: int
    max_batch_s: float
    announces: bool
    """On mDNS."""
