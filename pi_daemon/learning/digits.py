"""The built-in digits: 1797 images of 8x8 pixels with values from 0 to 16; needs no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class DigitsSplit(NamedTuple):
    x_train: NDArray[np.uint8]
    """(1437, 8, 8)"""
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    """(360, 8, 8)"""
    y_test: NDArray[np.int64]


def load_digits_split() -> DigitsSplit:
    """Every fifth image, from the first on, is a test image: here and everywhere, so that no device
    ever trains on one.
    """
    images, labels = _read()
    is_test = np.arange(len(images)) % 5 == 0
    return DigitsSplit(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def _read() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # Its file alone: scikit-learn's imports take a second of a desktop's processor, and a Pi's several.
    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        path = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
        if path.exists():
            table = np.loadtxt(path, np.uint8, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)
