"""WFDB records made for a test: two leads and a beat every 0.8 s."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

SYMBOLS = "NAVF/"
NUM_BEATS = 20
HZ = 250


def write_record(
    folder: Path, name: str, *, annotations_hz: int = HZ, nan_at: slice | None = None
) -> None:
    """20 beats, N S V F Q in turn, a rhythm mark before them and a beat after the end.

    Leads V1 and MLII; `nan_at` is what is invalid in MLII.
    """
    import wfdb

    num_samples = 17 * HZ
    t = np.arange(num_samples) / HZ
    mlii = np.sin(2 * np.pi * 1.25 * t) + 0.1 * t
    if nan_at is not None:
        mlii[nan_at] = np.nan
    peaks_s = (np.arange(NUM_BEATS) + 0.5) * 0.8
    annotated_s = np.concatenate([[0.004], peaks_s, [17.02]])
    # pandas speaks to wfdb's developers.
    with warnings.catch_warnings(action="ignore"):
        wfdb.wrsamp(
            name,
            fs=HZ,
            units=["mV", "mV"],
            sig_name=["V1", "MLII"],
            p_signal=np.stack([np.cos(9 * t), mlii], axis=1),
            fmt=["16", "16"],
            adc_gain=[1000, 1000],
            baseline=[0, 0],
            write_dir=str(folder),
        )
        wfdb.wrann(
            name,
            "atr",
            np.rint(annotated_s * annotations_hz).astype(int),
            symbol=["+", *(SYMBOLS[i % 5] for i in range(NUM_BEATS)), "N"],
            aux_note=["(N"] + [""] * (NUM_BEATS + 1),
            fs=annotations_hz,
            write_dir=str(folder),
        )
