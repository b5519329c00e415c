"""Stored results: complete or absent, and distinguished by all settings."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from ntps_utils.evidence.store import Store, StoreError


def test_results_are_distinguished_by_their_settings(tmp_path):
    store = Store(tmp_path / "new")
    assert store.get({"a": 1}) is None
    assert len(store) == 0
    store.put({"a": 1, "b": [1.5, None]}, {"x": 0.1})
    assert store.get({"b": [1.5, None], "a": 1}) == {"x": 0.1}
    assert store.get({"a": 1, "b": [1.5]}) is None
    store.put({"a": 1, "b": [1.5, None]}, {"x": 0.2})
    store.put({"a": 2}, {"x": 0.3})
    assert sorted(result["x"] for _, result in store) == [0.2, 0.3]
    assert len(store) == 2
    assert Store(tmp_path / "new").get({"a": 2}) == {"x": 0.3}


def test_a_failed_write_leaves_no_file(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put({"a": 1}, {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="must be plain JSON values"):
        store.put({"a": object()}, {})


def test_files_that_are_not_results_are_refused(tmp_path):
    store = Store(tmp_path)
    store.put({"a": 1}, {"x": 1})
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:30])
    with pytest.raises(StoreError, match="is not a result of this library"):
        store.get({"a": 1})
    file.write_text(json.dumps({"version": 99, "settings": {}, "result": {}}))
    with pytest.raises(StoreError, match="version 99"):
        list(store)


def _write(folder: Path, me: int, times: int) -> None:
    store = Store(folder)
    for i in range(times):
        store.put({"cell": i % 7}, {"writer": me, "values": [me] * 4000})
        if i % 5 == me:
            store.discard({"cell": (i + 3) % 7})
        result = store.get({"cell": (i + 1) % 7})
        assert result is None or set(result["values"]) == {result["writer"]}


@pytest.mark.slow
def test_concurrent_writers_leave_complete_results(tmp_path):
    """Four processes write, replace, discard and read the same seven results, while this process iterates."""
    store, context = Store(tmp_path), multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, me, 200)) for me in range(4)]
    for writer in writers:
        writer.start()
    n_read = 0
    while any(writer.is_alive() for writer in writers):
        for settings, result in store:
            assert settings["cell"] in range(7)
            assert result["values"] == [result["writer"]] * 4000
            n_read += 1
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert n_read > 0
    assert all(len(result["values"]) == 4000 for _, result in store)
    assert len(list(tmp_path.iterdir())) == len(store) <= 7  # no temporary files


def test_results_do_not_depend_on_modification_times(tmp_path):
    store = Store(tmp_path)
    for when in (0.0, 4e9):
        store.put({"a": 1}, {"when": when})
        (file,) = tmp_path.iterdir()
        os.utime(file, (when, when))
        assert store.get({"a": 1}) == {"when": when}
