"""Untrusted models, datasets and names: no code of theirs runs, and reports escape their texts."""

from __future__ import annotations

import ast
import json
import re
import shutil

import nbformat
import pytest
import torch
from typer.testing import CliRunner

from ntps_utils.cli.main import app
from ntps_utils.evidence.store import Store
from ntps_utils.lab.tasks import sample
from ntps_utils.models._hub import HubError
from ntps_utils.models.loading import load_model
from tests.conftest import ROOT

SOURCES = sorted(
    [*(ROOT / "ntps_utils").rglob("*.py"), *(ROOT / "notebooks").glob("*.py"), *(ROOT / "book").rglob("*.py")]
)
FORBIDDEN = {"eval", "exec", "__import__", "compile"}
FORBIDDEN_MODULES = {"pickle", "dill", "shelve", "marshal", "cloudpickle"}
FORBIDDEN_CALLS = {"torch.load", "np.load", "pd.read_pickle", "os.system", "os.popen", "yaml.load", "joblib.load"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_sources_neither_evaluate_strings_nor_read_pickles(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in FORBIDDEN | FORBIDDEN_CALLS, f"line {node.lineno}: {name}"
            assert not any(k.arg == "shell" for k in node.keywords), f"line {node.lineno}: shell"
        names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        module = getattr(node, "module", None) or ""
        assert not FORBIDDEN_MODULES & {part.split(".")[0] for part in [*names, module]}, f"line {node.lineno}"


def test_pickles_in_a_model_folder_are_not_opened(tiny_model, tmp_path):
    """The pickle would write a file when it is loaded; it is there with safe weights, then without them."""

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    torch.save(Bomb(), folder / "pytorch_model.bin")
    load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(HubError, match="pickled checkpoints are not loaded"):
        load_model(folder)
    assert not (tmp_path / "boom").exists()


def test_code_of_a_model_needs_trust_remote_code_in_each_call(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(HubError, match="--trust-remote-code"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()
    assert load_model(folder, trust_remote_code=True).dimension == 16
    (tmp_path / "ran").unlink()
    with pytest.raises(HubError, match="--trust-remote-code"):  # the permission was for one call only
        load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_reports_escape_texts_and_names_of_a_dataset(tmp_path, monkeypatch):
    evil = "<script>alert(1)</script>"
    data = sample("tense", 80, seed=0)
    folder = tmp_path / "data"
    folder.mkdir()
    rows = "".join(f'"{evil} {text}",{label}\n' for text, label in zip(data.texts, data.labels, strict=True))
    (folder / "train.csv").write_text(f"text,label\n{rows}")
    (folder / "label_names.json").write_text(json.dumps([evil, "<img src=x onerror=alert(1)>"]))
    named = tmp_path / "<b onclick=alert(1)>.csv"
    named.write_text((folder / "train.csv").read_text())
    monkeypatch.chdir(tmp_path)
    for dataset in (str(folder), str(named)):
        report = tmp_path / "report.html"
        result = CliRunner().invoke(app, ["prescreen", "lab/XS", dataset, "--html", str(report)])
        assert result.exit_code == 0, result.output
        html = report.read_text()
        assert evil not in html
        assert "<img src=x" not in html
        assert "<b onclick" not in html


@pytest.mark.parametrize("name", ["../escape", "/etc/x", "a/../../b", "x\0y"])
def test_stored_results_stay_in_their_folder(tmp_path, name):
    """The name of a result's file is a hash, whatever the names of its model and dataset."""
    store = Store(tmp_path / "cells")
    store.put({"model": name, "dataset": name}, {"model": name})
    (file,) = (p for p in tmp_path.rglob("*") if p.is_file())
    assert file.parent == store.folder
    assert re.fullmatch(r"[0-9a-f]{20}\.json", file.name)


@pytest.mark.parametrize("name", ["lab/../../etc", "lab/XS@../..", "lab//etc/passwd"])
def test_lab_names_cannot_be_paths(name):
    with pytest.raises(HubError):
        load_model(name)


def test_markup_in_a_name_is_printed_verbatim(tmp_path):
    """The library rich interprets [brackets], which a name may contain, in errors and titles of tables."""
    bad, good = tmp_path / "[bold]x[red].csv", tmp_path / "[bold]y[red].csv"
    bad.write_text("text,label\na,0\n")
    data = sample("tense", 40, seed=0)
    rows = "".join(f'"{text}",{label}\n' for text, label in zip(data.texts, data.labels, strict=True))
    good.write_text(f"text,label\n{rows}")
    for file, status in ((bad, 2), (good, 0)):
        result = CliRunner().invoke(app, ["score", "lab/XS", str(file)])
        assert result.exit_code == status
        assert file.stem in " ".join(result.output.split())


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_contain_no_tokens_and_no_home_folders(path):
    text = path.read_text()
    assert not re.search(r"hf_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{30,}", text)
    for cell in (c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"):
        assert not re.search(r"print\(.*environ|getenv|%env|!env|!printenv", cell.source)
        outputs = json.dumps(cell.outputs)
        assert "/root/" not in outputs
        assert "/home/" not in outputs
