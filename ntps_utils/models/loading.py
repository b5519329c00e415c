"""Causal language models, by name or from local files.

A model is a name from ``data/models.toml``, a Hub id, a local folder, or one of the lab's ("lab/M").
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ntps_utils import lab
from ntps_utils._utils.files import sha256
from ntps_utils.models._hub import (
    HubError,
    first_line,
    looks_like_hub_id,
    offline_if_unreachable,
    registry,
    suggestion,
)

AUTO_FLOAT64_PARAMETERS = 50_000_000
LAB = "lab/"


def registered_models() -> dict[str, dict[str, Any]]:
    """The entries of ``data/models.toml`` by name."""
    return registry("models")


@dataclass(frozen=True, eq=False)
class CausalModel:
    """A causal language model with its tokenizer, ready for extraction.

    Attributes
    ----------
    name : str
        As it was asked for.
    model : transformers.PreTrainedModel
    tokenizer : transformers.PreTrainedTokenizerBase
    fingerprint : str
        Commit of the Hub, or hash of the local weights: 16 hex digits.
    """

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str

    @property
    def n_layers(self) -> int:
        """Number of hidden states: embeddings and every block."""
        return int(self.model.config.get_text_config().num_hidden_layers) + 1

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def max_length(self) -> int | None:
        """Longest text, in tokens, that model and tokenizer can take; None if unlimited."""
        limits = [
            getattr(self.model.config.get_text_config(), "max_position_embeddings", None),
            self.tokenizer.model_max_length,
        ]
        known = [int(limit) for limit in limits if limit is not None and limit < 1e9]
        return min(known, default=None)


def load_model(
    name: str | Path, *, device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False
) -> CausalModel:
    """Load a causal language model for inference. Weights are read from safetensors only.

    Parameters
    ----------
    name : str or Path
        A name from ``data/models.toml``, a Hub id, a local folder, or a model of the lab:
        "lab/M", or "lab/M@400" for its checkpoint after 400 steps ("@0" is the untrained one).
    device : str
        "auto" takes a GPU if there is one; otherwise a torch device such as "cpu".
    dtype : str
        "float64", "float32", "bfloat16", "float16", or "auto": float64 for a model of at
        most 50 million parameters on the CPU, where it costs little and makes results
        independent of the batch size; else the type that the checkpoint is stored in.
    trust_remote_code : bool
        Let the model's repository run its own Python code. Say so only for code you read.

    Raises
    ------
    HubError
        If there is no such model, it is not a causal language model, or cannot be loaded.
    """
    import transformers

    dtypes = ("auto", "float64", "float32", "bfloat16", "float16")
    if dtype not in dtypes:
        raise HubError(f"There is no dtype {dtype!r}; choose one of {', '.join(dtypes)}.")
    where = _device(device)
    place = _locate(name, trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": place.local}
    model: Any
    with place.loading():
        if place.untrained:
            model, tokenizer = lab.untrained_model(place.name)
            model = model if dtype == "auto" else model.to(getattr(torch, dtype))
        else:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place.tokenizer, **options)
            wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                place.name, dtype=wanted, use_safetensors=True, output_loading_info=True, **options
            )
            model, report = loaded
            _check_complete(model, report["missing_keys"])
    if dtype == "auto" and where.type == "cpu" and model.num_parameters() <= AUTO_FLOAT64_PARAMETERS:
        model = model.double()
    return CausalModel(place.asked, model.eval().requires_grad_(False).to(where), tokenizer, place.fingerprint())


def _check_complete(model: Any, missing: Iterable[str]) -> None:
    """transformers fills weights that a checkpoint lacks with random numbers; only the head is none of ours."""
    head = model.get_output_embeddings()
    ours = {id(p) for p in head.parameters()} if head is not None else set()
    lacking = sorted(name for name in missing if id(dict(model.named_parameters()).get(name)) not in ours)
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ValueError(f"the checkpoint lacks the weights {lacking[0]}{more}; it is incomplete or of another model")


def model_fingerprint(name: str | Path, *, trust_remote_code: bool = False) -> str:
    """The :attr:`CausalModel.fingerprint` of a model, without loading its weights.

    Parameters and errors are those of :func:`load_model`. Of a model on the Hub this reads
    the configuration file only.
    """
    place = _locate(name, trust_remote_code)
    with place.loading():
        return place.fingerprint()


def model_config(name: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The transformers configuration of a model, without loading its weights.

    Parameters and errors are those of :func:`load_model`.
    """
    import transformers

    place = _locate(name, trust_remote_code)
    with place.loading():
        if place.untrained:
            return lab.untrained_model(place.name)[0].config
        return transformers.AutoConfig.from_pretrained(
            place.name, trust_remote_code=trust_remote_code, local_files_only=place.local
        )


@dataclass(frozen=True)
class _ModelLocation:
    """Where a model is: ``name`` is a folder, a Hub id, or a size of the lab's ladder that is untrained."""

    asked: str
    name: str
    tokenizer: str
    local: bool
    untrained: bool = False

    def fingerprint(self) -> str:
        if self.untrained:
            return f"seed {self.asked}"[:16]
        if self.local:
            folder = Path(self.name)
            return sha256(*sorted(folder.glob("*.safetensors")), folder / "config.json")[:16]
        import huggingface_hub

        # The cache keeps each file under its commit.
        return Path(huggingface_hub.hf_hub_download(self.name, "config.json")).parent.name[:16]

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Errors of transformers and of the Hub client become a :class:`HubError` of one line."""
        if not self.local and not self.untrained:
            offline_if_unreachable()
        try:
            yield
        except Exception as error:  # the Hub client and model code raise many kinds
            if "trust_remote_code" in str(error):
                raise _consent(self.asked) from None
            if self.local:
                raise HubError(f"The model in {self.name} could not be loaded: {first_line(error)}.") from None
            raise HubError(
                f"The model {self.name} could not be loaded from the Hub ({first_line(error)}). "
                "Check the name, your access to it and the connection, or give a local folder."
            ) from None


def _consent(asked: str) -> HubError:
    return HubError(
        f"{asked} runs Python code of its own repository; read it, then say --trust-remote-code "
        "(trust_remote_code=True)."
    )


def _locate(name: str | Path, trust_remote_code: bool) -> _ModelLocation:
    asked = str(name)
    if asked.startswith(LAB):
        folder, step = _lab_model(asked)
        return _ModelLocation(asked, folder, folder, local=step != 0, untrained=step == 0)
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise HubError(f"{name} is not a model folder: it has no config.json.")
        if not list(path.glob("*.safetensors")):
            raise HubError(f"{name} has no safetensors weights; pickled checkpoints are not read. Convert them first.")
        return _ModelLocation(asked, asked, asked, local=True)
    entries = {one: entry for key, entry in registered_models().items() for one in (key, entry["hub"])}
    entry = entries.get(asked, {})
    if entry.get("remote_code") and not trust_remote_code:
        raise _consent(asked)
    place = entry.get("hub", asked)
    if not looks_like_hub_id(place):
        hint = suggestion(asked, registered_models())
        raise HubError(f"There is no model {asked!r}: not a folder, and not a Hub id of the form owner/name. {hint}")
    return _ModelLocation(asked, place, entry.get("tokenizer", place), local=False)


def _lab_model(asked: str) -> tuple[str, int | None]:
    """Folder of a model of the lab, and its step; for step 0, its name, as it has no folder."""
    name, _, step = asked.removeprefix(LAB).partition("@")
    if step and not step.isdecimal():
        raise HubError(f"{asked}: after the @ comes a number of pretraining steps, such as {LAB}{name}@0.")
    try:
        if step == "0":
            lab.steps_of(name)
            return name, 0
        return str(lab.checkpoint(name, int(step) if step else None)), None
    except ValueError as error:
        raise HubError(str(error)) from None


def _device(device: str) -> torch.device:
    if device == "auto":
        # Under a launcher each process has a GPU of its own.
        rank = os.environ.get("LOCAL_RANK", "0")
        return torch.device(f"cuda:{rank}" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.zeros(1, device=where)
    except Exception as error:  # RuntimeError, AssertionError and others, by backend
        raise HubError(f"The device {device!r} cannot be used: {first_line(error)}.") from None
    return where
