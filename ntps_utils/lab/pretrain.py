"""Pretraining of small Llama models, on texts of the lab's world or on any text.

Batches are a function of (seed, step), so that a run that was killed continues from its last
saved state and ends with the same weights.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ntps_utils._utils.files import atomic_folder, atomic_path, sha256, write_json
from ntps_utils._utils.validation import check_integer
from ntps_utils.lab.grammar import World
from ntps_utils.lab.recipe import CONTEXT, Progress, Recipe
from ntps_utils.lab.world import WORLD

PAD, BOS, EOS, UNKNOWN = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
N_VALIDATION = 1000
"""Held-out documents of a world."""
N_VALIDATION_WINDOWS = 200
"""Held-out windows of a corpus."""


# -- texts -------------------------------------------------------------------------


class Source(Protocol):
    """Token sequences to train on."""

    @property
    def name(self) -> str:
        """Description of the texts, for the record of a run."""

    def batch(self, step: int, batch_size: int, seed: int) -> list[list[int]]:
        """Return the token ids of one training step; they depend on the arguments only."""

    def validation(self) -> list[list[int]]:
        """Return the token ids of held-out sequences."""


@dataclass(frozen=True, eq=False)
class WorldSource:
    """An unlimited supply of documents of a world, each between BOS and EOS.

    Attributes
    ----------
    world : World
    tokenizer : PreTrainedTokenizerFast
        Tokenizer of the world, see :func:`world_tokenizer`.
    shuffled : bool
        Put the words of each document in random order. Words still occur together in a
        document, but their order carries no information.
    """

    world: World
    tokenizer: PreTrainedTokenizerFast
    shuffled: bool = False

    @property
    def name(self) -> str:
        """Description of the texts, for the record of a run."""
        return ("the lab's world" if self.world is WORLD else "a made world") + (", shuffled" if self.shuffled else "")

    def _encode(self, rng: random.Random, n: int) -> list[list[int]]:
        vocabulary = self.tokenizer.get_vocab()
        encoded = []
        for _ in range(n):
            words = list(self.world.write(rng).words)
            if self.shuffled:
                rng.shuffle(words)
            encoded.append([vocabulary[BOS], *(vocabulary[word] for word in words), vocabulary[EOS]])
        return encoded

    def batch(self, step: int, batch_size: int, seed: int) -> list[list[int]]:
        """Return the token ids of one training step."""
        return self._encode(random.Random(f"corpus {seed} {step}"), batch_size)

    def validation(self) -> list[list[int]]:
        """Return the token ids of the held-out documents."""
        return self._encode(random.Random("validation"), N_VALIDATION)


@dataclass(frozen=True, eq=False)
class CorpusSource:
    """Random windows of a corpus, each after a BOS token; the last twentieth is held out.

    Attributes
    ----------
    tokens : (n,) int32 ndarray
        Token ids of the whole corpus.
    tokenizer : PreTrainedTokenizerFast
    length : int
        Tokens of a window, including BOS.
    label : str
        Description of the texts, for the record of a run.
    """

    tokens: np.ndarray[Any, np.dtype[np.int32]]
    tokenizer: PreTrainedTokenizerFast
    length: int = CONTEXT
    label: str = "a corpus"

    @property
    def name(self) -> str:
        """Description of the texts, for the record of a run."""
        return self.label

    def _window(self, start: int) -> list[int]:
        return [self.tokenizer.bos_token_id, *self.tokens[start : start + self.length - 1].tolist()]

    @property
    def _n_training(self) -> int:
        return len(self.tokens) * 19 // 20

    def batch(self, step: int, batch_size: int, seed: int) -> list[list[int]]:
        """Return the token ids of one training step."""
        rng = np.random.default_rng([seed, step])
        return [self._window(int(s)) for s in rng.integers(0, self._n_training - self.length, batch_size)]

    def validation(self) -> list[list[int]]:
        """Return the token ids of evenly spaced held-out windows."""
        starts = np.linspace(self._n_training, len(self.tokens) - self.length, N_VALIDATION_WINDOWS).astype(int)
        return [self._window(int(s)) for s in starts]


def _fast_tokenizer(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="right",
        model_max_length=context,
    )


def world_tokenizer(world: World = WORLD) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each word of a world.

    Parameters
    ----------
    world : World
        By default the lab's world.

    Returns
    -------
    PreTrainedTokenizerFast

    Examples
    --------
    >>> world_tokenizer().tokenize("the sailors haul the net .")
    ['the', 'sailors', 'haul', 'the', 'net', '.']
    """
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *world.vocabulary))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _fast_tokenizer(tokenizer, CONTEXT)


def corpus_source(files: Sequence[str | Path], *, n_tokens: int = 4096, context: int = CONTEXT) -> CorpusSource:
    """Train a byte-level BPE tokenizer on text files, and encode the files with it.

    Parameters
    ----------
    files : sequence of path
        UTF-8 text files, plain or compressed (.gz).
    n_tokens : int
        Size of the vocabulary.
    context : int
        Tokens of a training window, including BOS; at least 2.

    Returns
    -------
    CorpusSource

    Raises
    ------
    ValueError
        If an argument is out of range, a file is missing or not UTF-8, or the files contain
        fewer than 60 windows of text.

    References
    ----------
    Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword
    units" (2016).
    """
    check_integer("n_tokens", n_tokens, len(SPECIAL) + 256)  # special tokens and bytes
    check_integer("context", context, 2)
    paths = [Path(file) for file in files]
    texts = []
    for path in paths:
        try:
            with (
                gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file
            ):
                texts.append(file.read())
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"The corpus file {path} cannot be read as UTF-8 text: {error}.") from None
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((line for text in texts for line in text.splitlines(keepends=True)), trainer)
    tokenizer = _fast_tokenizer(bpe, context)
    # The tokenizer encodes paragraphs in parallel, in little memory.
    encoded = bpe.encode_batch([p for text in texts for p in text.splitlines(keepends=True)], add_special_tokens=False)
    tokens = np.fromiter((i for row in encoded for i in row.ids), dtype=np.int32)
    if len(tokens) < 60 * context:
        raise ValueError(f"{len(tokens)} tokens are too few to train on; give at least {60 * context} tokens of text.")
    label = ", ".join(path.name for path in paths)
    label += f" (sha256 {sha256(*paths)[:16]}, {len(tokenizer)} tokens, windows of {context})"
    return CorpusSource(tokens, tokenizer, context, label)


# -- training ----------------------------------------------------------------------


def initial_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Create the untrained model of a recipe.

    Parameters
    ----------
    recipe : Recipe
    tokenizer : PreTrainedTokenizerFast
        Determines the vocabulary and the number of positions.

    Returns
    -------
    LlamaForCausalLM
        Random weights, determined by ``recipe.seed``; the global random state is unchanged.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        intermediate_size=recipe.intermediate_size,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def _loss(model: LlamaForCausalLM, rows: Sequence[Sequence[int]], reduction: str = "mean") -> torch.Tensor:
    """Return the cross-entropy of the next token, in nats."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-100)
    ids = ids.to(model.device)
    logits = model(input_ids=ids.clamp_min(0), attention_mask=(ids >= 0).long(), use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-100, reduction=reduction)


@torch.inference_mode()
def validation_loss(model: LlamaForCausalLM, source: Source) -> float:
    """Return the mean loss on the held-out texts of a source.

    Parameters
    ----------
    model : LlamaForCausalLM
        Left in evaluation mode.
    source : Source

    Returns
    -------
    float
        Nats per predicted token.
    """
    rows = sorted(source.validation(), key=len)
    chunks = [rows[i : i + 100] for i in range(0, len(rows), 100)]
    total = sum(float(_loss(model.eval(), chunk, "sum")) for chunk in chunks)
    return total / sum(len(row) - 1 for row in rows)


def pretrain(
    recipe: Recipe,
    source: Source,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | Path,
    *,
    device: str = "cpu",
    save_every: int = 250,
) -> Iterator[Progress]:
    """Pretrain a model step by step.

    The folder receives ``step-N/`` for each checkpoint, which transformers can load, with
    weights in float16, and ``run.json`` with the recipe and the losses. If it contains the
    beginning of the same run, that run is continued.

    Parameters
    ----------
    recipe : Recipe
    source : Source
        Texts to train on.
    tokenizer : PreTrainedTokenizerFast
        Tokenizer of the source.
    folder : path
        Folder of the run; created if missing.
    device : str
        Device of PyTorch, such as "cpu" or "cuda".
    save_every : int
        Steps between saves of the state from which a killed run continues.

    Yields
    ------
    Progress
        After each step; nothing if the run is already complete.

    Raises
    ------
    ValueError
        If the folder contains a different run, or the loss is no longer finite.

    Notes
    -----
    AdamW (Loshchilov and Hutter, 2019) with gradients clipped to norm 1, in float32.
    """
    check_integer("save_every", save_every, 1)
    folder = Path(folder)
    record = {"recipe": json.loads(json.dumps(asdict(recipe))), "texts": source.name, "checkpoints": {}}
    run_file, state_file = folder / "run.json", folder / "state.safetensors"
    if run_file.is_file():
        earlier = json.loads(run_file.read_text("utf-8"))
        if (earlier["recipe"], earlier["texts"]) != (record["recipe"], record["texts"]):
            raise ValueError(
                f"{folder} contains a different run (another recipe, other texts, vocabulary or windows); choose an "
                "empty folder."
            )
        record = earlier
        if str(recipe.n_steps) in record["checkpoints"]:
            return

    model = initial_model(recipe, tokenizer).to(device)  # type: ignore[arg-type]
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    start = _load_state(state_file, parameters, optimizer) if state_file.is_file() else 0
    write_json(run_file, record)
    model.train()
    for step in range(start, recipe.n_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        loss = _loss(model, source.batch(step, recipe.batch_size, recipe.seed))
        if not torch.isfinite(loss):
            raise ValueError(f"The loss is {loss.item()} at step {step}; lower the learning rate.")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        n_done = step + 1
        if n_done in recipe.checkpoints:
            rounded = save_half(model, tokenizer, folder / f"step-{n_done}")
            record["checkpoints"][str(n_done)] = {
                "validation_loss": validation_loss(rounded.to(device), source),  # type: ignore[arg-type]
                "sha256": sha256(folder / f"step-{n_done}" / "model.safetensors"),
            }
            write_json(run_file, record)
            model.train()
        if n_done % save_every == 0 and n_done < recipe.n_steps:
            _save_state(state_file, parameters, optimizer, n_done)
        yield Progress(n_done, recipe.n_steps, loss.item())
    state_file.unlink(missing_ok=True)


def save_half(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> LlamaForCausalLM:
    """Save a model with weights rounded to float16, all files or none.

    Parameters
    ----------
    model : LlamaForCausalLM
    tokenizer : PreTrainedTokenizerFast
    folder : Path
        An existing folder is replaced.

    Returns
    -------
    LlamaForCausalLM
        The model with the rounded weights, in float32 on the CPU.
    """
    with atomic_folder(folder) as temporary:
        half = LlamaForCausalLM(model.config)
        half.load_state_dict({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()})
        half.half().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        file = temporary / "tokenizer_config.json"  # the name that transformers 4 knows, and 5 accepts
        write_json(file, json.loads(file.read_text("utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"})
        (temporary / "generation_config.json").unlink(missing_ok=True)
    return half.float()


def _save_state(file: Path, parameters: dict[str, Any], optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        tensors |= {f"{name}/{key}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        tensors[name] = parameter.detach()
    with atomic_path(file) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata={"step": str(step)})


def _load_state(file: Path, parameters: dict[str, Any], optimizer: torch.optim.Optimizer) -> int:
    with safe_open(file, "pt") as opened:
        step = int(opened.metadata()["step"])
    tensors = load_file(file)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
            moments = {key: tensors[f"{name}/{key}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step
