"""The public names: lazy, light, and tolerant of natural calls."""

from __future__ import annotations

import ast
import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ntps_utils as ntps
from tests.conftest import ROOT

HEAVY = ("torch", "transformers", "datasets", "peft", "pandas", "numpy", "sklearn")
MODELS_EXTRA = tuple(sorted(ntps.EXTRAS))


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MODELS_EXTRA!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_importing_the_package_imports_nothing_heavy():
    loaded = python(f"import sys, ntps_utils; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_every_public_name_resolves_and_is_declared_for_type_checkers():
    tree = ast.parse(Path(ntps.__file__).read_text("utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    declared = {a.name: node.module for node in block.body for a in node.names}
    assert declared == ntps._EXPORTS
    assert set(ntps.__all__) == {"__version__", *ntps._EXPORTS}
    assert set(ntps.__all__) <= set(dir(ntps))
    for name in ntps.__all__:
        assert getattr(ntps, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'scores'; it has CausalModel, "):
        _ = ntps.scores


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False], ids=["light", "light-blocked"])
def test_arrays_can_be_scored_without_the_model_dependencies(installed):
    """The second case blocks transformers and its like; the first runs in whatever environment there is."""
    code = (
        ("" if installed else BLOCK)
        + """
import numpy as np, ntps_utils as ntps
rng = np.random.default_rng(0)
y = np.arange(60) % 2
X = [rng.normal(size=(4, 5)) + label for label in y]
report = ntps.score(X, y)
metric = ntps.NTPS()
metric.update(X, labels=y)
print(report.rows[0].ntps == metric.compute().rows[0].ntps, len(report.to_frame()))
"""
    )
    assert python(code).strip() == "True 1"


@pytest.mark.slow
def test_a_missing_model_dependency_is_named():
    code = (
        BLOCK
        + """
import ntps_utils as ntps
try:
    ntps.score_model
except ModuleNotFoundError as error:
    print(error)
"""
    )
    assert python(code).strip().endswith("pip install 'ntps-utils[models]'.")


# -- natural calls --------------------------------------------------------------


@pytest.fixture(scope="module")
def texts():
    data = ntps.load_texts("lab/topic").head(80)
    return list(data.texts), data.labels.tolist()


@pytest.fixture(scope="module")
def reference():
    return ntps.score_model("lab/XS", "lab/topic", layers="last", k_v=[0.5], max_texts=80)


def same(report, reference):
    assert [row.ntps for row in report] == pytest.approx([row.ntps for row in reference], rel=1e-6)
    return True


@pytest.mark.slow
def test_layers_as_lists_integers_and_words(reference):
    assert same(ntps.score_model("lab/XS", "lab/topic", layers=-1, max_texts=80), reference)
    assert same(ntps.score_model("lab/XS", "lab/topic", layers=[3, -1], max_texts=80), reference)
    both = ntps.score_model("lab/XS", "lab/topic", layers=[0, -1], max_texts=80)
    assert [row.layer for row in both] == [0, 3]


@pytest.mark.slow
def test_a_width_as_a_number(reference):
    assert same(ntps.score_model("lab/XS", "lab/topic", layers=-1, k_v=0.5, max_texts=80), reference)
    assert ntps.score_model("lab/XS", "lab/topic", layers=-1, k_v=7, max_texts=80).rows[0].k_v == 7


@pytest.mark.slow
def test_a_loaded_model_with_its_tokenizer(reference):
    lm = ntps.load_model("lab/XS")
    assert same(ntps.score_model((lm.model, lm.tokenizer), "lab/topic", layers=-1, max_texts=80), reference)
    assert same(ntps.score_model(lm, "lab/topic", layers=-1, max_texts=80), reference)
    with pytest.raises(TypeError, match=r"LlamaForCausalLM needs its tokenizer; give the pair \(model, tokenizer\)"):
        ntps.score_model(lm.model, "lab/topic")
    with pytest.raises(TypeError, match="got int"):
        ntps.score_model(5, "lab/topic")


@pytest.mark.slow
def test_texts_and_labels_in_memory(texts, reference):
    datasets = pytest.importorskip("datasets")
    words, labels = texts
    frame = pd.DataFrame({"sentence": words, "topic": labels})
    names = ntps.load_texts("lab/topic").label_names
    inputs = [
        (words, labels),
        (words, np.array(labels)),
        (words, [names[label] for label in labels]),
        ntps.TextDataset("mine", "train", words, labels, names),
    ]
    for given in inputs:
        assert same(ntps.score_model("lab/XS", given, layers=-1), reference)
    columns = {"text_column": "sentence", "label_column": "topic"}
    table = datasets.Dataset.from_pandas(frame)
    for given in (frame, table, datasets.DatasetDict(train=table)):
        assert same(ntps.score_model("lab/XS", given, layers=-1, **columns), reference)
    with pytest.raises(TypeError, match=r"A dataset must be a name, a file or folder, a pair \(texts, labels\)"):
        ntps.score_model("lab/XS", {"text": words})
    with pytest.raises(ValueError, match="80 texts need as many labels; got 79 labels"):
        ntps.score_model("lab/XS", (words, labels[:-1]))


def test_labels_as_a_list_and_out_of_range(texts):
    words, labels = texts
    data = ntps.TextDataset("mine", "train", words, labels, "abcdefgh")
    assert data.labels.dtype == np.int64
    message = r"row 3: the label is 9, but there are 8 class names; labels are numbers 0 \.\.\. 7"
    with pytest.raises(ValueError, match=message):
        ntps.TextDataset("mine", "train", words[:3], [0, 1, 9], "abcdefgh")


def test_moments_from_class_labels():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(5, 4)) for _ in range(20)]
    y = np.arange(20) % 2
    one = ntps.Moments.from_texts(X, y).layer(0)
    two = ntps.Moments.from_texts(X, np.eye(2)[y]).layer(0)
    np.testing.assert_array_equal(one.C, two.C)


@pytest.mark.slow
def test_prescreen_takes_the_same_objects(texts):
    lm = ntps.load_model("lab/XS")
    by_name = ntps.prescreen("lab/XS", "lab/topic", max_texts=80)
    in_memory = ntps.prescreen((lm.model, lm.tokenizer), texts, calibration="lab", leave_out=["lab/topic"])
    assert in_memory.gain == pytest.approx(by_name.gain, abs=1e-6)


def test_a_report_prints_and_converts(reference):
    assert "lab/XS on lab/topic" in repr(reference)
    assert json.loads(reference.to_json())["rows"][0]["ntps"] == reference.rows[0].ntps
    assert list(reference.to_frame()["layer"]) == [3]


@pytest.mark.slow
def test_the_examples_of_the_page_on_own_loops_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "book" / "your_own_loop.md"
    results = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 20
    assert results.failed == 0
