from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from fedconsole import paths
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.launch import new_run_id, start_engine
from fedconsole.engine.work import _keep_graphs
from fedconsole.errors import StorageError
from tests.support.places import redirect


def test_a_new_run_takes_the_name_of_no_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    drawn = iter(["a3ea", "a3ea", "a3eb"])
    monkeypatch.setattr(secrets, "token_hex", lambda _num_bytes: next(drawn))
    first = new_run_id()
    (paths.runs_dir() / first).mkdir(parents=True)
    assert new_run_id() == first[:-1] + "b"


@pytest.mark.timeout(60)
def test_what_is_no_file_in_the_place_of_a_log_or_of_graphs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    folder = paths.runs_dir() / "20261122-aaaa"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "engine.log")
    with pytest.raises(StorageError, match=r"^cannot begin in .*: engine.log is no regular file$"):
        start_engine("20261122-aaaa", Plan(virtual=1), goes_on_in=".")
    (folder / "graphs.json").mkdir()
    with pytest.raises(StorageError, match=r"graphs.json: graphs.json is no regular file$"):
        _keep_graphs(folder / "graphs.json", b"", "digits")
