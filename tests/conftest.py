"""Fixtures and helpers of the tests: a small random model, small datasets, and real files where they exist."""

from __future__ import annotations

import os
import signal
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Threads do not speed up small matrices, and slow them down eightfold on a busy machine.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from ntps_utils.models.loading import CausalModel

settings.register_profile(
    "default", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("long", parent=settings.get_profile("default"), max_examples=10_000)
settings.register_profile("quick", parent=settings.get_profile("default"), max_examples=10)
settings.register_profile(
    "mutation",
    parent=settings.get_profile("default"),
    max_examples=12,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # no time for shrinking: that a test fails is all that counts
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

TRANSFORMERS_4 = any(one.version.startswith("4.") for one in metadata.distributions(name="transformers"))
"""Whether transformers 4 is installed, which runs fewer kinds of models."""

TOGETHER = ("tests/test_site.py", "tests/test_benchmark.py")
"""Files whose tests run in one process: one builds the site once, the other starts clusters on all cores."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send the tests of each of these files to one process, and every other test to the next free one.

    xdist's own ``--dist loadgroup`` does not see the groups of tests under pytest 9.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in TOGETHER else nodeid

    return Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None


ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def reset_sigint() -> None:
    """Let SIGINT end this process; a ``preexec_fn`` for child processes that a test interrupts.

    Shells start background jobs with SIGINT ignored, and child processes inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real datasets and a real small model, next to the repository."""
    if not (SHARED / "models" / "stories260K" / "config.json").is_file():
        pytest.skip(f"there are no real models and datasets in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama of width 16 with a word-level tokenizer, as transformers saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    words = ["<unk>", "<s>", *(f"w{i}" for i in range(40)), "good", "bad", "film", "a"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a dataset with train and test splits, whose three classes differ in their words."""
    import random

    folder = tmp_path_factory.mktemp("tiny-data")
    rng = random.Random(0)
    for split, n in (("train", 90), ("test", 45)):
        lines = ["text,label"]
        for i in range(n):
            label = i % 3
            words = [f"w{rng.randrange(40) if rng.random() < 0.6 else 13 * label}" for _ in range(rng.randrange(3, 12))]
            lines.append(f"{' '.join(words)},{label}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def dropout_model(tiny_model: Path) -> CausalModel:
    """A random GPT-2 of width 16 in training mode, with dropout of 0.1 everywhere."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from ntps_utils.models.loading import CausalModel, load_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=46, n_embd=16, n_layer=2, n_head=2, n_positions=32, initializer_range=0.4)
        model = GPT2LMHeadModel(config).double().train()
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0.1
    return CausalModel("tiny-gpt2", model, load_model(tiny_model).tokenizer, "tiny-gpt2")


@pytest.fixture
def lab_data(tmp_path: Path) -> Path:
    """A folder with texts of a task of the lab."""
    import pandas as pd

    from ntps_utils.models.datasets import load_texts

    folder = tmp_path / "lab-data-files"
    folder.mkdir()
    for split, n in (("train", 90), ("test", 45)):
        data = load_texts("lab/topic", split).head(n)
        pd.DataFrame({"text": data.texts, "label": data.labels}).to_csv(folder / f"{split}.csv", index=False)
    return folder


def labeled(folder: Path, kind: str, labels: list[object]) -> Path:
    """Write texts with labels into a file of a kind."""
    path = folder / f"d.{kind}"
    table = pd.DataFrame({"text": [f"text {i}" for i in range(len(labels))], "label": labels})
    writer = {"csv": table.to_csv, "parquet": table.to_parquet, "jsonl": table.to_json}[kind]
    writer(
        path, **({"index": False} if kind == "csv" else {"orient": "records", "lines": True} if kind == "jsonl" else {})
    )
    return path
