"""One engine on one target, in a process that may crash: `python -m tests.fuzz.engines ENGINE TARGET FOLDER`.

The last line on stdout is JSON with what was done. `__main__` starts this and reads it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.guard import limit_memory, measured, no_hang, resident_bytes, watch_time
from tests.fuzz.inputs import inputs, variants
from tests.fuzz.targets import CORPUS, MAX_INPUT_BYTES, TARGETS

EXAMPLES_AT_ONCE = 50
VARIANTS = 40
INSTRUMENTED = ["fedconsole", "pi_daemon", "tomllib", "zipfile", "wfdb"]
MAX_WORDS = 400


def with_hypothesis(name: str, folder: Path, seconds: float, first_seed: int) -> None:
    """Until the time is over, or something is found; the smallest such input is left in `latest`."""
    target = TARGETS[name](folder)
    seeds = target.seeds()
    target(seeds[0])
    watch_time()
    # What hypothesis makes at its first draw is no input's memory.
    _configured(200)(given(inputs(seeds))(_nothing))()
    limit_memory(target)
    latest = folder / "latest"
    before_bytes = resident_bytes()
    end_s = time.monotonic() + seconds
    num_executions = 0

    def run(content: bytes) -> None:
        nonlocal num_executions
        for variant in variants(content, VARIANTS):
            if time.monotonic() > end_s:
                return
            num_executions += 1
            latest.write_bytes(variant)
            with no_hang():
                target(variant)

    batch = first_seed
    while time.monotonic() < end_s:
        seed(batch)(_configured(EXAMPLES_AT_ONCE)(given(inputs(seeds))(run)))()
        batch += 1
    latest.unlink()
    grown_bytes = resident_bytes() - before_bytes
    print(json.dumps({"executions": num_executions, "resident_growth_bytes": grown_bytes}))


def _configured(max_examples: int) -> settings:
    return settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )


def _nothing(content: bytes) -> None:
    pass


def with_atheris(name: str, folder: Path, seconds: float, first_seed: int) -> None:
    """As long, guided by the lines of Python that an input reaches; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        target = TARGETS[name](folder)
    for content in target.seeds():
        target(content)
    words = folder / "words"
    words.write_text(_dictionary(target.seeds()))
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    limit = resident_bytes() + target.limit_bytes(MAX_INPUT_BYTES) + (256 << 20)
    options = {
        "max_total_time": int(seconds),
        "max_len": MAX_INPUT_BYTES,
        "timeout": 10,
        "rss_limit_mb": limit >> 20,
        "seed": first_seed,
        "dict": words,
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
        "verbosity": 1,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus), str(CORPUS / name)], target)
    atheris.Fuzz()


def _dictionary(seeds: list[bytes]) -> str:
    """Words of the seeds, as libFuzzer wants them."""
    found = dict.fromkeys(word for seed in seeds for word in re.findall(rb"[\w.\"-]{2,40}", seed))
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in [*found][:MAX_WORDS])
    return "".join(f'"{word}"\n' for word in escaped)


def measure(name: str, folder: Path, seconds: float, first_seed: int) -> None:
    """Each input that atheris kept, and each of the repository: how much memory does it take?"""
    target = TARGETS[name](folder)
    for content in target.seeds():
        target(content)
    paths = [*(folder / "corpus").glob("*"), *(CORPUS / name).iterdir()]
    peaks = [measured(target, path.read_bytes()) for path in paths]
    print(json.dumps({"inputs": len(paths), "peak_bytes": max(peaks)}))


ENGINES = {"hypothesis": with_hypothesis, "atheris": with_atheris, "measure": measure}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.chdir(options.folder)
    ENGINES[options.engine](options.target, options.folder, options.seconds, options.seed)


if __name__ == "__main__":
    main()
