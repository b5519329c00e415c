"""Downloads, caches and errors of the Hub, against a local server that implements its protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from ntps_utils.models.datasets import load_texts, registered_datasets
from ntps_utils.models.scoring import score_model
from tests.standin_hub import COMMIT, StandInHub

pytestmark = pytest.mark.hub

NTPS = str(Path(sys.executable).with_name("ntps"))


@pytest.fixture(scope="module")
def hub(tiny_model, tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(tiny_model, folder / "models/owner/tiny")
    shutil.copytree(tiny_data, folder / "datasets/owner/texts")
    # A dataset with a loading script, which `datasets` refuses, and its conversion to Parquet by the Hub.
    script = folder / "datasets/owner/scripted"
    script.mkdir(parents=True)
    (script / "scripted.py").write_text("raise SystemExit('never run')\n")
    parquet = folder / "datasets/owner/scripted@parquet/default/train"
    parquet.mkdir(parents=True)
    pd.read_csv(tiny_data / "train.csv").to_parquet(parquet / "0000.parquet")
    # As in the medical pairs, every first question occurs twice, with opposite labels.
    medical = folder / "datasets/curaihealth/medical_questions_pairs"
    medical.mkdir(parents=True)
    pairs = [{"question_1": f"w{i}", "question_2": f"w{i} w{k}", "label": k} for i in range(40) for k in (0, 1)]
    pd.DataFrame(pairs).to_csv(medical / "train.csv", index=False)
    with StandInHub(folder) as server:
        yield server


def run(hub_url: str | None, cache: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_ENDPOINT": hub_url or "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_scores_of_hub_files_are_those_of_local_files(hub, tiny_model, tiny_data, tmp_path):
    out = tmp_path / "report.json"
    process = run(hub.url, tmp_path / "cache", NTPS, "score", "owner/tiny", "owner/texts", "--json", str(out))
    assert process.returncode == 0, process.stderr[-3000:] + "\n".join(hub.seen[-20:])
    report = json.loads(out.read_text())
    assert report["provenance"]["model_fingerprint"] == COMMIT[:16]
    local = score_model(tiny_model, tiny_data)
    assert report["provenance"]["n_tokens"] == local.provenance["n_tokens"]
    assert report["rows"] == json.loads(local.to_json())["rows"]
    # The cache serves a later call without a connection, and without waiting for one.
    started = time.perf_counter()
    process = run(None, tmp_path / "cache", NTPS, "score", "owner/tiny", "owner/texts", "--json", str(out))
    assert process.returncode == 0, process.stderr[-3000:]
    assert json.loads(out.read_text())["rows"] == report["rows"]
    assert time.perf_counter() - started < 40


def test_script_based_datasets_are_loaded_from_parquet(hub, tiny_data, tmp_path):
    code = (
        "import json; from ntps_utils.models.datasets import load_texts; data = load_texts('owner/scripted')\n"
        "print(json.dumps([data.texts, data.labels.tolist()]))"
    )
    process = run(hub.url, tmp_path, sys.executable, "-c", code)
    assert process.returncode == 0, process.stderr[-3000:] + "\n".join(hub.seen[-20:])
    expected = load_texts(tiny_data)
    assert json.loads(process.stdout.strip().split("\n")[-1]) == [list(expected.texts), expected.labels.tolist()]


def test_held_out_rows_share_no_question_with_training_rows(hub, tmp_path):
    code = (
        "import json; from ntps_utils.models.datasets import load_texts; name = 'medical_questions_pairs'\n"
        "print(json.dumps([load_texts(name, s).texts for s in ('train', 'test')]))"
    )
    process = run(hub.url, tmp_path, sys.executable, "-c", code)
    assert process.returncode == 0, process.stderr[-3000:]
    train, test = ([text.split() for text in part] for part in json.loads(process.stdout.strip().split("\n")[-1]))
    assert len(train) + len(test) == 80
    assert {words[0] for words in train}.isdisjoint(words[0] for words in test)
    share = registered_datasets()["medical_questions_pairs"]["hold_out"]["share"]
    assert abs(len(test) / 80 - share) < 0.25
    assert all(len(words) == 3 for words in train + test)  # both questions of the pair


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("owner/none", "lab/topic"), "could not be loaded from the Hub"),
        (("lab/XS", "owner/none"), "could not be loaded from the Hub"),
        (("lab/XS", "bias_identification"), "give a local file or folder"),
        (("OpenELM-270M", "lab/topic"), "--trust-remote-code"),
        (("Qwen2-0.5", "lab/topic"), "Did you mean Qwen2-0.5B"),
    ],
)
def test_errors_are_one_line(hub, tmp_path, command, message):
    process = run(hub.url, tmp_path, NTPS, "score", *command)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert message in " ".join(process.stderr.split())


def test_missing_connection_is_reported_quickly(tmp_path):
    started = time.perf_counter()
    process = run(None, tmp_path, NTPS, "score", "lab/XS", "sst2")
    assert process.returncode == 2
    assert "Check the name and the connection" in " ".join(process.stderr.split())
    assert time.perf_counter() - started < 30
