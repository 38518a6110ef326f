"""The built-in digits: 1797 images of 8x8 pixels with values from 0 to 16; needs no download."""

from __future__ import annotations

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
    # A second of imports, for this function only.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    is_test = np.arange(len(images)) % 5 == 0
    return DigitsSplit(images[~is_test], labels[~is_test], images[is_test], labels[is_test])
