"""Which language the operator is spoken to in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum


class Language(StrEnum):
    EN = "en"
    KO = "ko"


def preferred(environment: Mapping[str, str] = os.environ) -> Language:
    """The language of the locale; English where there is none for it."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(name):
            return Language.KO if re.match("ko(?![a-z])", value) else Language.EN
    return Language.EN
