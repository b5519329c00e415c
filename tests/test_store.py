"""Results: whole or absent, found again, told apart by every setting."""

from __future__ import annotations

import json

import pytest

from ntps_utils.store import Store, StoreError


def test_what_is_put_is_got_and_settings_tell_results_apart(tmp_path):
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


def test_a_failed_write_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put({"a": 1}, {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="plain JSON values"):
        store.put({"a": object()}, {})


def test_files_that_are_not_results_are_named(tmp_path):
    store = Store(tmp_path)
    store.put({"a": 1}, {"x": 1})
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:30])
    with pytest.raises(StoreError, match="is not a result of this library"):
        store.get({"a": 1})
    file.write_text(json.dumps({"version": 99, "settings": {}, "result": {}}))
    with pytest.raises(StoreError, match="version 99"):
        list(store)
