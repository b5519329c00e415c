"""The lab: grammar and posteriors, tasks, pretraining, and the ladder of shipped models."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from book.tools import many_texts
from ntps_utils import lab
from ntps_utils._utils.files import sha256
from ntps_utils.evidence.records import load_record
from ntps_utils.lab import ladder, pretrain, recipe
from ntps_utils.lab.grammar import Document, Factor
from ntps_utils.lab.tasks import SIZES, TASKS, Task, sample, split_of
from ntps_utils.lab.world import CODES, NOUNS, VERBS, WORLD, past, plural, third
from ntps_utils.models import datasets, loading
from ntps_utils.models.loading import load_model

SMALL = recipe.Recipe(16, 1, 2, 32, n_steps=12, batch_size=4, n_warmup=2, checkpoints=(6, 12))


# -- grammar -----------------------------------------------------------------------


def coin_factor(strength: float) -> Factor:
    return Factor("coin", {"word": {"fair": ("a", "b"), "biased": ("c",)}}, strength)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.6, 1.0])
def test_likelihoods_sum_to_one_and_match_frequencies(strength):
    factor = coin_factor(strength)
    total = sum(np.exp(factor.log_likelihood("word", word)) for word in "abc")
    np.testing.assert_allclose(total, 1.0)
    doc = Document({"coin": factor}, {"coin": "fair"}, random.Random(1))
    words = [doc.draw("coin") for _ in range(20000)]
    for word in "abc":
        expected = np.exp(factor.log_likelihood("word", word))[0]
        assert abs(words.count(word) / 20000 - expected) < 0.015


def test_posterior_follows_bayes_rule():
    factor = coin_factor(0.5)
    for words in product("abc", repeat=3):
        doc = Document({"coin": factor}, {"coin": "fair"}, random.Random(0))
        doc.draws = [("coin", "word", word) for word in words] + [("other", "word", "x")]
        p = {"a": (1 / 4 + 1 / 6, 1 / 6), "b": (1 / 4 + 1 / 6, 1 / 6), "c": (1 / 6, 1 / 2 + 1 / 6)}
        joint = np.prod([p[word] for word in words], axis=0)
        np.testing.assert_allclose(doc.posterior("coin"), joint / joint.sum())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name of a factor must be a non-empty string, got ''"),
        ({"name": 3}, "name of a factor must be a non-empty string, got 3"),
        ({"words": {}}, "words of factor 'f' must map kinds to values to words"),
        ({"words": {"word": {}}}, "words of factor 'f' must map kinds to values to words"),
        ({"words": ["a"]}, "words of factor 'f' must map kinds to values to words"),
        ({"words": {"word": {"x": ("a",), "y": ("a",)}}}, "a word has only one value"),
        ({"words": {"word": {"x": ("a",), "y": ()}}}, "each value needs at least one word"),
        ({"words": {"word": {"x": ("a",)}, "more": {"y": ("b",)}}}, "kind 'more': the values must be those of other"),
        ({"words": {"word": {"x": ("a b",)}}}, "words must be strings without blanks, got 'a b'"),
        ({"strength": 1.5}, r"strength of factor 'f' must be a number in \[0, 1\], got 1.5"),
        ({"strength": "1"}, r"strength of factor 'f' must be a number in \[0, 1\], got '1'"),
    ],
)
def test_invalid_factors_are_rejected(fields, message):
    with pytest.raises(ValueError, match=message):
        Factor(**({"name": "f", "words": {"word": {"x": ("a",)}}, "strength": 0.5} | fields))


def test_documents_have_the_given_values():
    assert WORLD.document(random.Random(0), topic="sea", tense="past").values["topic"] == "sea"
    with pytest.raises(ValueError, match=r"topic must be 'kitchen', .* got 'moon'"):
        WORLD.document(random.Random(0), topic="moon")
    with pytest.raises(ValueError, match=r"factor must be 'topic', .* got 'color'"):
        WORLD.document(random.Random(0), color="red")


def test_world_uses_exactly_its_vocabulary_and_each_word_has_one_role():
    rng = random.Random(3)
    words = {word for _ in range(3000) for word in WORLD.write(rng).words}
    assert words == set(WORLD.vocabulary)
    kinds = [
        *(f(w) for own in NOUNS.values() for w in own.split() for f in (str, plural)),
        *(f(w) for own in VERBS.values() for w in own.split() for f in (str, third, past)),
        *CODES,
        *(w for f in list(WORLD.factors.values())[1:] for k in f.words.values() for own in k.values() for w in own),
    ]
    assert len(kinds) == len(set(kinds))


# -- tasks -------------------------------------------------------------------------


def test_tasks_have_all_kinds():
    assert len(TASKS) >= 12
    assert {task.kind for task in TASKS.values()} == set(get_args(lab.tasks.Kind))


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_balanced_seeded_and_calibrated(name):
    texts = sample(name, 3000, seed=5)
    again, other = sample(name, 30, seed=5), sample(name, 30, seed=6)
    assert texts.texts[:30] == again.texts
    assert again.texts != other.texts
    c = len(TASKS[name].label_names)
    shares = np.bincount(texts.labels, minlength=c) / 3000
    assert np.all(np.abs(shares - 1 / c) < 4.5 * np.sqrt(1 / c * (1 - 1 / c) / 3000))
    np.testing.assert_allclose(texts.posteriors.sum(1), 1.0)
    accuracy = np.mean(texts.posteriors.argmax(1) == texts.labels)
    assert abs(accuracy - texts.bayes_accuracy) < 4 * np.sqrt(0.25 / 3000)


# Labels from the text alone, by rules that are independent of the generator.
def order_by_reading(text: str) -> int:
    words = text.split()
    return int(words.index(CODES[0]) < words.index(CODES[1]))


def paraphrase_by_reading(text: str) -> int:
    one, two = (half.split() for half in text.split(" | "))
    return int((one[1], one[2], one[4]) == (two[-2], two[3], two[1]))


READERS = {
    "order": order_by_reading,
    "paraphrase": paraphrase_by_reading,
    "marker": lambda text: int("perhaps" in text.split()),
    "count": lambda text: text.split().count("bell") - 1,
    "code": lambda text: int(CODES.index(text.split()[text.split().index("code") + 1]) >= 12),
    "number": lambda text: int(next(w for w in text.split() if w in FORMS)[-1] == "s"),
    "agreement": lambda text: int(agrees(text)),
}
FORMS = {f(w) for own in NOUNS.values() for w in own.split() for f in (str, plural)}


def agrees(text: str) -> bool:
    """Compare each finite verb with its subject, the last noun before it that does not follow "near"."""
    singular = {"is", "was", *(third(v) for own in VERBS.values() for v in own.split())}
    either = {past(v) for own in VERBS.values() for v in own.split()}
    bare = {"are", "were", *(v for own in VERBS.values() for v in own.split())}
    for clause in text.split(" ."):
        words, number, skip = clause.split(), None, False
        for word in words:
            if word == "near":
                skip = True
            elif word in FORMS:
                if number is None or not skip:
                    number = word[-1] == "s" if not skip else number
                skip = False
            elif word in singular | bare and number is not None:
                if (word in bare) != number:
                    return False
                break
            elif word in either:
                break
    return True


@pytest.mark.parametrize("name", READERS)
def test_labels_follow_from_the_text(name):
    texts = sample(name, 500, seed=9)
    assert [READERS[name](text) for text in texts.texts] == texts.labels.tolist()


def test_splits_are_independent():
    train, test = split_of("topic", "train"), split_of("topic", "test")
    assert (len(train.texts), len(test.texts)) == (SIZES["train"], SIZES["test"])
    assert len(set(train.texts) & set(test.texts)) <= 5
    assert split_of("topic", "train", seed=1).texts != train.texts
    with pytest.raises(ValueError, match="splits train and test, not 'dev'"):
        split_of("topic", "dev")
    with pytest.raises(ValueError, match="Did you mean topic"):
        split_of("topik", "train")
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        sample("topic", 0, seed=0)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got -1"):
        split_of("topic", "train", seed=-1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name must be a non-empty string"),
        ({"asks": None}, "asks must be a non-empty string, got None"),
        ({"kind": "hard"}, "kind must be 'helps prediction', .*, got 'hard'"),
        ({"label_names": ("one",)}, "label_names must be a tuple of at least two strings"),
        ({"label_names": ["a", "b"]}, "label_names must be a tuple of at least two strings"),
        ({"label_names": ("a", "b", "b")}, "label_names must differ from each other"),
        ({"write": "text"}, "write must be a function of a world and a document, got 'text'"),
        ({"posterior": 0.5}, "posterior must be a function of a document, or None, got 0.5"),
    ],
)
def test_invalid_tasks_are_rejected(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(TASKS["tense"], **fields)


def test_worlds_can_be_extended_by_factors_and_tasks():
    weather = Factor("weather", {"word": {"dry": ("sunny",), "wet": ("rainy",)}}, strength=0.8)

    def forecast(doc):
        doc.say("it")
        doc.say(doc.draw("weather"))

    def write(world, doc):
        forecast(doc)
        return doc.index("weather")

    world = WORLD.extended([weather], [(5.0, forecast)])
    task = Task("weather", "?", "helps prediction", weather.values, write, lambda doc: doc.posterior("weather"))
    texts = sample(task, 500, seed=0, world=world)
    assert texts.bayes_accuracy == pytest.approx(0.9)
    rng = random.Random(0)
    assert any("sunny" in world.write(rng).words for _ in range(20))
    assert "rainy" in pretrain.world_tokenizer(world).get_vocab()


# -- loading -----------------------------------------------------------------------


def test_tasks_and_models_of_the_lab_load_by_name():
    data = datasets.load_texts("lab/topic", "test")
    assert data.n_classes == 8
    assert len(data) == 500
    assert datasets.load_texts("lab/topic@1", "test").texts != data.texts
    for step in (None, 400, 0):
        model = loading.load_model("lab/XS" if step is None else f"lab/XS@{step}")
        assert model.dimension == 32
        assert model.model.dtype == torch.float64
    ids = model.tokenizer(data.texts[0])["input_ids"]
    assert ids[0] == model.tokenizer.bos_token_id
    assert len(ids) == len(data.texts[0].split()) + 1
    assert model.tokenizer.unk_token_id not in ids


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (loading.load_model, "lab/XXL", "no model 'XXL'; choose from XS, S, M, L"),
        (loading.load_model, "lab/XS@7", "checkpoints 0, 400, 4000, not 7"),
        (loading.load_model, "lab/XS@end", "a number of pretraining steps"),
        (loading.load_model, "lab/XXL@0", "no model 'XXL'"),
        (datasets.load_texts, "lab/topics", "Did you mean topic"),
        (datasets.load_texts, "lab/topic@x", "another draw of the task"),
    ],
)
def test_unknown_names_are_errors_with_the_valid_names(load, name, message):
    with pytest.raises(datasets.HubError, match=message):
        load(name)


# -- pretraining -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be an integer of at least 1, got 0"),
        ({"hidden_size": 18}, r"hidden_size must be a multiple of 2 \* n_heads = 4, got 18"),
        ({"n_layers": 0}, "n_layers must be an integer of at least 1, got 0"),
        ({"n_heads": 2.0}, "n_heads must be an integer of at least 1, got 2.0"),
        ({"n_heads": 3}, r"hidden_size must be a multiple of 2 \* n_heads = 6, got 16"),
        ({"intermediate_size": -1}, "intermediate_size must be an integer of at least 1, got -1"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be a number greater than 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number greater than 0, got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be a number of at least 0, got -0.1"),
        ({"n_warmup": -1}, "n_warmup must be an integer of at least 0, got -1"),
        ({"n_warmup": 13}, "n_warmup must be at most n_steps = 12, got 13"),
        ({"checkpoints": ()}, r"checkpoints must be a tuple of steps such as \(12,\), got \(\)"),
        ({"checkpoints": 12}, r"checkpoints must be a tuple of steps such as \(12,\), got 12"),
        ({"checkpoints": (0, 12)}, "each of checkpoints must be an integer of at least 1, got 0"),
        ({"checkpoints": (6,)}, r"checkpoints must increase and end with n_steps = 12, got \(6,\)"),
        ({"checkpoints": (8, 6, 12)}, r"checkpoints must increase and end with n_steps = 12, got \(8, 6, 12\)"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": True}, "seed must be an integer of at least 0, got True"),
    ],
)
def test_invalid_recipes_are_rejected(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **fields)


def test_every_field_of_a_recipe_has_an_invalid_case():
    (mark,) = (m for m in test_invalid_recipes_are_rejected.pytestmark if m.name == "parametrize")
    assert {name for fields, _ in mark.args[1] for name in fields} == set(recipe.Recipe.__dataclass_fields__)


def test_learning_rate_rises_linearly_then_falls_as_a_cosine():
    rates = [SMALL.rate(step) for step in range(SMALL.n_steps)]
    assert rates[:3] == [SMALL.learning_rate / 2, SMALL.learning_rate, SMALL.learning_rate]
    progress = np.arange(SMALL.n_steps - 2) / (SMALL.n_steps - 2)
    np.testing.assert_allclose(rates[2:], SMALL.learning_rate * (1 + np.cos(np.pi * progress)) / 2)


def run(folder, recipe_=SMALL, n=None, **options):
    tokenizer = pretrain.world_tokenizer()
    steps = pretrain.pretrain(recipe_, pretrain.WorldSource(WORLD, tokenizer), tokenizer, folder, **options)
    return [at for _, at in zip(range(n if n is not None else 10**9), steps, strict=False)]


def weights(folder, step=12):
    return load_file(folder / f"step-{step}" / "model.safetensors")


@pytest.mark.slow
def test_pretraining_learns_is_seeded_and_records_its_checkpoints(tmp_path):
    longer = recipe.Recipe(16, 1, 2, 32, n_steps=150, batch_size=8, n_warmup=10, checkpoints=(150,), learning_rate=1e-2)
    losses = [at.loss for at in run(tmp_path / "long", longer)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 1.5
    run(tmp_path / "a")
    run(tmp_path / "b")
    assert all(torch.equal(x, weights(tmp_path / "b")[name]) for name, x in weights(tmp_path / "a").items())
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert list(record["checkpoints"]) == ["6", "12"]
    file = tmp_path / "a" / "step-12" / "model.safetensors"
    assert record["checkpoints"]["12"]["sha256"] == sha256(file)
    # The recorded loss is that of the rounded weights, which load_model loads.
    model = loading.load_model(tmp_path / "a" / "step-12", dtype="float32")
    loss = pretrain.validation_loss(model.model, pretrain.WorldSource(WORLD, model.tokenizer))
    assert loss == pytest.approx(record["checkpoints"]["12"]["validation_loss"], abs=1e-5)
    assert run(tmp_path / "a") == []  # the run is complete


@pytest.mark.slow
def test_interrupted_runs_end_with_the_same_weights(tmp_path):
    run(tmp_path / "reference", save_every=4)
    run(tmp_path / "interrupted", n=7, save_every=4)  # steps 5 to 7 are lost
    again = run(tmp_path / "interrupted", save_every=4)
    assert again[0].step == 5
    for step in (6, 12):
        for name, x in weights(tmp_path / "reference", step).items():
            assert torch.equal(x, weights(tmp_path / "interrupted", step)[name])
    assert not (tmp_path / "interrupted" / "state.safetensors").exists()


@pytest.mark.slow
def test_killed_runs_end_with_the_same_weights(tmp_path):
    code = (
        "import sys, torch; torch.set_num_threads(1); from tests.test_lab import run\n"
        "from pathlib import Path; import tests.test_lab as t\n"
        "r = t.recipe.Recipe(16, 1, 2, 32, n_steps=60, batch_size=4, n_warmup=2, checkpoints=(60,))\n"
        "run(Path(sys.argv[1]), r, save_every=5)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "reference")], check=True, env=environment)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "interrupted")], env=environment)
        while process.poll() is None and not (tmp_path / "interrupted" / "state.safetensors").exists():
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "interrupted")], check=True, env=environment)
    for name, x in weights(tmp_path / "reference", 60).items():
        assert torch.equal(x, weights(tmp_path / "interrupted", 60)[name])


def test_folders_with_a_different_run_are_rejected(tmp_path):
    run(tmp_path, n=1)
    with pytest.raises(ValueError, match="contains a different run"):
        run(tmp_path, recipe.Recipe(16, 1, 2, 32, n_steps=12, batch_size=5, n_warmup=2, checkpoints=(12,)))


def test_shuffled_documents_have_the_same_words_in_another_order():
    tokenizer = pretrain.world_tokenizer()
    plain, mixed = (pretrain.WorldSource(WORLD, tokenizer, shuffled) for shuffled in (False, True))
    one, two = (source.batch(0, 1, 0)[0] for source in (plain, mixed))
    assert (one[0], one[-1]) == (two[0], two[-1])
    assert sorted(one) == sorted(two)
    assert one != two
    assert mixed.name == "the lab's world, shuffled"
    assert mixed.batch(3, 4, 0) == mixed.batch(3, 4, 0)


def test_models_can_be_pretrained_on_text_files(tmp_path):
    file = tmp_path / "book.txt"
    file.write_text("The cat sat on the mat, and the dog — naïve — looked at it.\n" * 900, "utf-8")
    source = pretrain.corpus_source([file], n_tokens=300, context=32)
    assert source.tokenizer.decode(source.tokens[:40]).startswith("The cat sat on the mat")
    packed = tmp_path / "book.txt.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert (pretrain.corpus_source([packed], n_tokens=300, context=32).tokens == source.tokens).all()
    others = [pretrain.corpus_source([file], n_tokens=n, context=c) for n, c in ((290, 32), (300, 16))]
    assert len({one.name for one in (source, *others)}) == 3  # runs of different sources are different runs
    losses = [
        at.loss
        for at in pretrain.pretrain(
            recipe.Recipe(16, 1, 2, 32, n_steps=40, n_warmup=4, checkpoints=(40,), learning_rate=2e-2, batch_size=8),
            source,
            source.tokenizer,
            tmp_path / "run",
        )
    ]
    assert losses[-1] < losses[0] - 1
    model = loading.load_model(tmp_path / "run" / "step-40")
    assert model.max_length == 32
    file.write_text("short")
    with pytest.raises(ValueError, match="too few to train on"):
        pretrain.corpus_source([file])
    with pytest.raises(ValueError, match="cannot be read as UTF-8"):
        pretrain.corpus_source([tmp_path / "none.txt"])


# -- the ladder --------------------------------------------------------------------


def test_shipped_models_match_their_manifest():
    assert len(ladder.MODELS) >= 4
    assert all(ladder.hashes_agree().values())
    facts = ladder.manifest()
    sizes = [facts[name]["n_parameters"] for name in ladder.MODELS]
    assert sizes == sorted(sizes)
    assert sizes[0] < 60_000
    assert sizes[-1] > 1_200_000
    for name in ladder.MODELS:
        first, last = (ladder.checkpoint(name, step) for step in ladder.steps_of(name)[1:])
        losses = [facts[name]["checkpoints"][p.name.removeprefix("step-")]["validation_loss"] for p in (first, last)]
        assert losses[1] < losses[0]
    total = sum(p.stat().st_size for p in ladder.ladder_folder().rglob("*") if p.is_file())
    assert total < 10_000_000


def test_recorded_loss_of_the_smallest_model_is_reproduced():
    model = loading.load_model("lab/XS", dtype="float32")
    loss = pretrain.validation_loss(model.model, pretrain.WorldSource(WORLD, model.tokenizer))
    assert loss == pytest.approx(ladder.manifest()["XS"]["checkpoints"]["4000"]["validation_loss"], abs=1e-4)


@pytest.mark.slow
def test_verify_compares_weights_and_rejects_other_runs(tmp_path, monkeypatch):
    tiny = {"XS": SMALL}
    monkeypatch.setattr(ladder, "LADDER", tiny)
    monkeypatch.setattr(ladder, "ladder_folder", lambda: tmp_path / "shipped")
    monkeypatch.setattr(ladder, "MODELS", ("XS",))
    for place in ("shipped", "new"):
        list(ladder.remake("XS", tmp_path / place / "XS"))
    ladder.write_manifest(tmp_path / "shipped")
    results = ladder.verify("XS", tmp_path / "new" / "XS")
    assert [r.identical and r.agrees for r in results] == [True, True]
    file = tmp_path / "shipped" / "XS" / "step-12" / "model.safetensors"
    changed = {name: x + 1 for name, x in load_file(file).items()}
    save_file(changed, file, metadata={"format": "pt"})
    (first, last) = ladder.verify("XS", tmp_path / "new" / "XS")
    assert first.agrees
    assert not last.agrees
    assert last.largest_difference == pytest.approx(1, abs=2e-3)
    monkeypatch.setitem(tiny, "XS", SMALL.shortened(3))
    with pytest.raises(ValueError, match="contains a different run"):
        ladder.verify("XS", tmp_path / "new" / "XS")


@pytest.mark.slow
def test_recorded_scores_of_many_texts_are_those_of_the_command():
    rows = load_record("many_texts")["rows"]
    assert len(rows) == len(many_texts.MODELS) * len(TASKS) * len(many_texts.SIZES)
    (again,) = many_texts.rows_of(load_model("lab/XS", dtype="float32"), "tense", many_texts.SIZES[:1])
    (recorded,) = (row for row in rows if all(row[name] == again[name] for name in ("model", "dataset", "n")))
    assert again == pytest.approx(recorded, abs=1e-3)
