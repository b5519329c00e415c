"""Tables of results, and numbers cited from the paper."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from ntps_utils.evidence.experiment import (
    PLACES,
    ExperimentConfig,
    ExperimentResult,
    FinetuneComparison,
    ProbeResult,
    ScoreSetting,
    TransferabilityValue,
)
from ntps_utils.evidence.statistics import spearman
from ntps_utils.evidence.store import Store
from ntps_utils.evidence.tables import (
    PRIMARY,
    PRIMARY_CENTERED,
    RECORDED,
    TARGETS,
    as_plotted,
    cell_table,
    compare,
    export,
    load_paper_cells,
    load_paper_coefficients,
    load_recorded,
    record,
    recorded_provenance,
    score_table,
    stored_cells,
    tie_orders,
)
from tests.conftest import SHARED


def make_result(dataset: str, seed: int = 0) -> ExperimentResult:
    """A result with random values, without an experiment."""
    rng = np.random.default_rng(seed)

    def scores() -> tuple[ScoreSetting, ...]:
        return tuple(
            ScoreSetting(layer, centered, rule, 16, *rng.uniform(size=6).tolist())
            for layer in (2, 3)
            for centered in (False, True)
            for rule in ("half", "spectrum")
        )

    return ExperimentResult(
        model="lab/XS",
        dataset=dataset,
        weights="w",
        texts="t",
        n_train=150,
        n_test=80,
        n_classes=2,
        n_features=32,
        n_parameters=51424,
        majority=0.5,
        probes={place: ProbeResult(*rng.uniform(size=5).tolist()) for place in PLACES},
        scores=scores(),
        transferability={"headroom": TransferabilityValue(*rng.uniform(size=2).tolist())},
        score_seconds=1.0,
        seconds=2.0,
        finetuning=FinetuneComparison(*rng.uniform(size=3).tolist(), 0.01, 5, 1.0, 1.0),
        scores_after=scores(),
        warnings=("a warning",),
    )


@pytest.fixture
def store(tmp_path) -> Store:
    """A store of two cells and one result of another kind."""
    store = Store(tmp_path / "store")
    for i, name in enumerate(("lab/tense", "lab/code")):
        store.put({"dataset": name}, make_result(name, seed=i).to_dict())
    store.put({"learn": "tense"}, {"accuracy": 0.9})
    return store


def test_tables_contain_the_primary_setting_and_all_settings():
    result = make_result("lab/tense")
    table, scores = cell_table([result]), score_table([result])
    assert len(scores) == 16
    at = [s for s in result.scores if s.layer == 3 and s.rule == "half"]
    (raw,), (centered,) = ([s for s in at if s.centered is c] for c in (False, True))
    assert table["ntps"].item() == raw.ntps
    assert table["explained"].item() == centered.explained
    at = [s for s in result.scores_after if s.layer == 3 and s.rule == "half"]
    (after,), (centered_after,) = ([s for s in at if s.centered is c] for c in (False, True))
    assert table["ntps_metric"].item() == centered.ntps_metric
    assert table["ntps_after"].item() == after.ntps
    assert table["ntps_task_after"].item() == centered_after.ntps_task
    assert scores.query(PRIMARY)["ntps"].tolist() == [raw.ntps, after.ntps]
    assert scores.query(PRIMARY_CENTERED)["ntps"].iloc[0] == centered.ntps


def test_tables_contain_controls_and_scores_of_test_texts():
    result = make_result("lab/tense")
    (raw,) = (s for s in result.scores if s.layer == 3 and s.rule == "half" and not s.centered)
    random = replace(raw, subspace="random", ntps=0.25)
    on_test = replace(raw, split="test", ntps=0.125)
    table = cell_table([replace(result, scores=(*result.scores, random, on_test))])
    assert table["ntps"].item() == raw.ntps
    assert table["ntps_random"].item() == 0.25
    assert table["ntps_test"].item() == 0.125
    assert not table["ntps_metric"].isna().any()


def test_tables_without_lora_have_no_scores_after():
    results = [make_result("lab/tense"), replace(make_result("lab/code"), finetuning=None, scores_after=())]
    assert "ntps_after" not in cell_table(results)
    assert set(score_table(results)["when"]) == {"before"}


def test_recorded_tables_can_be_read_back(tmp_path):
    result, settings = make_result("lab/tense"), ExperimentConfig(n_train=150)
    record([result], tmp_path / "mine", settings, "ntps benchmark", weights={"lab/XS": "w"})
    cells = pd.read_csv(tmp_path / "mine_cells.csv")
    assert cells["gain"].item() == pytest.approx(result.finetuning.gain, abs=1e-6)
    assert len(pd.read_csv(tmp_path / "mine_scores.csv")) == 16
    facts = json.loads((tmp_path / "mine_cells.json").read_text())
    assert facts["settings"] == json.loads(json.dumps(asdict(settings)))
    assert facts["weights"] == {"lab/XS": "w"}
    assert facts["versions"]["torch"]


@pytest.mark.parametrize("name", RECORDED)
def test_shipped_tables_are_complete(name):
    cells, scores = load_recorded(name), load_recorded(name, "scores")
    assert not cells.duplicated(["model", "dataset"]).any()
    assert len(cells) == cells["model"].nunique() * cells["dataset"].nunique()
    assert np.allclose(cells["gain"], cells["lora"] - cells["frozen"], atol=2e-6)
    assert len(scores) == 16 * len(cells)
    fractions = cells[["ntps", "ntps_metric", "ntps_task", "probe_last", "lora"]]
    assert fractions.min().min() >= 0
    assert fractions.max().max() <= 1


def test_unknown_tables_are_refused():
    with pytest.raises(ValueError, match="must be 'lab', 'lab_seed1', 'real', 'control' or 'rehearsal', got 'mars'"):
        load_recorded("mars")
    with pytest.raises(ValueError, match="recorded table must be"):
        recorded_provenance("mars")
    with pytest.raises(ValueError, match="what must be 'cells' or 'scores', got 'rows'"):
        load_recorded("lab", "rows")


def test_stored_cells_are_one_row_each(store):
    cells = stored_cells(store)
    assert sorted(cells["dataset"]) == ["lab/code", "lab/tense"]
    assert cells["key"].tolist() == sorted(store.key({"dataset": name}) for name in ("lab/tense", "lab/code"))


def test_compare_finds_missing_cells_and_different_values(store):
    cells = stored_cells(store).sort_values("dataset", ignore_index=True)
    assert len(compare(cells, cells)) == 0
    other = cells.assign(gain=cells["gain"] + [0.01, 1e-12], weights=["v", "w"], seconds=0.0, key="")
    differences = compare(cells, other)
    assert differences[["dataset", "column"]].to_numpy().tolist() == [["lab/code", "weights"], ["lab/code", "gain"]]
    assert differences[["one", "two"]].iloc[0].tolist() == ["w", "v"]
    assert compare(cells, other, tolerance=0.1)["column"].tolist() == ["weights"]
    missing = compare(cells, other.iloc[:1].assign(weights="w"), tolerance=0.1)
    assert missing.to_numpy().tolist() == [["lab/XS", "lab/tense", "(row)", True, False]]
    assert compare(cells.iloc[:1], cells)["two"].tolist() == [True]


def test_compare_treats_missing_values_as_equal():
    one = pd.DataFrame({"model": ["m", "m"], "dataset": ["a", "b"], "gain": [np.nan, 0.1], "note": [None, "x"]})
    assert len(compare(one, one)) == 0
    differences = compare(one, one.assign(gain=[0.2, np.nan], note=["y", None]))
    assert differences["column"].tolist() == ["gain", "note", "gain", "note"]


def test_compare_refuses_repeated_cells_and_other_tables(store):
    cells = stored_cells(store)
    with pytest.raises(ValueError, match="Table two has several rows for lab/XS on lab/"):
        compare(cells, pd.concat([cells, cells]))
    with pytest.raises(ValueError, match="Table one has no column 'model'"):
        compare(pd.DataFrame(), cells)


def test_export_writes_parquet_with_nested_scores(store, tmp_path):
    assert export(store, tmp_path / "all.parquet") == 2
    table = pd.read_parquet(tmp_path / "all.parquet").set_index("dataset")
    assert set(table.index) == {"lab/tense", "lab/code"}
    result = make_result("lab/tense")
    row = table.loc["lab/tense"]
    assert row["gain"] == result.finetuning.gain
    assert [dict(score) for score in row["scores"]] == [asdict(score) for score in result.scores]
    assert list(row["warnings"]) == ["a warning"]
    assert json.loads(row["settings"]) == {"dataset": "lab/tense"}
    with pytest.raises(ValueError, match="contains no results"):
        export(Store(tmp_path / "none"), tmp_path / "x.parquet")


# -- numbers cited from the paper ----------------------------------------------------


def test_reported_table_has_96_cells():
    cells = load_paper_cells()
    assert len(cells) == 96
    assert cells.groupby("model")["dataset"].nunique().eq(12).all()
    assert cells["model"].nunique() == 8
    assert not cells.isna().any().any()
    fractions = cells.filter(regex="accuracy|ntps_vs")
    assert fractions.min().min() >= 0
    assert fractions.max().max() <= 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", load_paper_coefficients().index)
def test_printed_coefficients_are_reproduced(model, target):
    """To two decimals; one coefficient depends on the order of two equal MSEs."""
    x, y = as_plotted(load_paper_cells().query("model == @model"), target)
    printed = load_paper_coefficients().loc[model, target]
    if y.is_unique:
        assert round(spearman(x, y), 2) == printed
    else:
        assert (model, target) == ("meta-llama/Meta-Llama-3-8B", "mse")
        assert y[y.duplicated(keep=False)].eq(0).all()
        assert sorted(round(spearman(x, ranks), 2) for ranks in tie_orders(y)) == [printed, 0.56]


def test_reported_ntps_and_gain_are_negatively_correlated_within_each_model():
    for _, cells in load_paper_cells().groupby("model"):
        assert spearman(cells["ntps_vs_gain"], cells["gain"]) < 0


def test_unknown_targets_are_refused():
    with pytest.raises(ValueError, match="target must be 'mse', 'accuracy' or 'gain', got 'loss'"):
        as_plotted(load_paper_cells(), "loss")


def test_reported_table_matches_its_source():
    source = SHARED / "paper_reported" / "cells.csv"
    if not source.is_file():
        pytest.skip("The source of the reported cells is not available.")
    pd.testing.assert_frame_equal(load_paper_cells()[pd.read_csv(source).columns], pd.read_csv(source))
