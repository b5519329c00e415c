"""The ladder of shipped models: where their checkpoints are, and how to verify them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ntps_utils._utils.files import data_file, sha256, write_json
from ntps_utils.lab.recipe import LADDER, Progress
from ntps_utils.lab.world import WORLD

MODELS = tuple(LADDER)
"""Names of the shipped models, from the smallest to the largest."""

LOSS_TOLERANCE = 0.02
"""Nats by which the losses of two runs of one recipe may differ between machines."""


def ladder_folder() -> Path:
    """Return the folder of the shipped models."""
    return data_file("lab")


def manifest() -> dict[str, Any]:
    """Load the recipes, losses and hashes of the shipped models.

    Returns
    -------
    dict
        For each model ``n_parameters``, ``recipe``, ``texts`` and ``checkpoints``; for each
        checkpoint ``validation_loss`` in nats per token and ``sha256`` of its weights.

    Examples
    --------
    >>> manifest()["XS"]["n_parameters"]
    51424
    """
    return dict(json.loads((ladder_folder() / "manifest.json").read_text("utf-8")))


def steps_of(name: str) -> tuple[int, ...]:
    """Return the pretraining steps after which a model can be loaded.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`.

    Returns
    -------
    tuple of int
        Increasing; 0 is the untrained model.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> steps_of("XS")
    (0, 400, 4000)
    """
    return (0, *LADDER[_checked_name(name)].checkpoints)


def checkpoint(name: str, step: int | None = None) -> Path:
    """Return the folder of a shipped model.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`.
    step : int, optional
        Pretraining steps, by default the last checkpoint.

    Returns
    -------
    Path
        A folder that transformers can load.

    Raises
    ------
    ValueError
        If there is no such model or checkpoint.

    See Also
    --------
    untrained_model : The model of step 0, for which no file is shipped.

    Examples
    --------
    >>> checkpoint("XS").name
    'step-4000'
    """
    steps = steps_of(name)[1:]
    step = steps[-1] if step is None else step
    if step not in steps:
        raise ValueError(f"lab/{name} has the checkpoints {', '.join(map(str, (0, *steps)))}, not {step}.")
    return ladder_folder() / name / f"step-{step}"


def untrained_model(name: str) -> tuple[Any, Any]:
    """Create the model of step 0 from the seed of its recipe.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`.

    Returns
    -------
    model, tokenizer : transformers objects

    Raises
    ------
    ValueError
        If there is no such model.
    """
    from ntps_utils.lab.pretrain import initial_model, world_tokenizer  # slow: imports transformers

    tokenizer = world_tokenizer()
    return initial_model(LADDER[_checked_name(name)], tokenizer), tokenizer


def _checked_name(name: str) -> str:
    if name not in LADDER:
        raise ValueError(f"The lab has no model {name!r}; choose from {', '.join(LADDER)}.")
    return name


def write_manifest(folder: Path) -> None:
    """Write ``manifest.json`` from the runs in a folder.

    Parameters
    ----------
    folder : Path
        Contains the folder of one run for each model, as :func:`remake` writes it.
    """
    runs = {}
    for name in MODELS:
        run = json.loads((folder / name / "run.json").read_text("utf-8"))
        n_parameters = sum(p.numel() for p in untrained_model(name)[0].parameters())
        runs[name] = {"n_parameters": n_parameters, **run}
    write_json(folder / "manifest.json", runs)


@dataclass(frozen=True)
class CheckpointComparison:
    """A shipped checkpoint compared with one that was trained again by the same recipe.

    Attributes
    ----------
    name : str
        Name of the model.
    step : int
        Pretraining steps.
    hash_agrees : bool
        Whether the shipped weights have the hash in the manifest.
    identical : bool
        Whether the new weights equal the shipped ones bit for bit, as expected on a machine
        of the same kind.
    largest_difference : float
        Largest absolute difference between two weights.
    shipped_loss, new_loss : float
        Losses on the held-out texts, in nats per token.
    """

    name: str
    step: int
    hash_agrees: bool
    identical: bool
    largest_difference: float
    shipped_loss: float
    new_loss: float

    @property
    def agrees(self) -> bool:
        """Whether the hash agrees and the losses differ by less than :data:`LOSS_TOLERANCE`.

        Rounding differs between machines, and with it the weights; the loss hardly does.
        """
        return self.hash_agrees and abs(self.new_loss - self.shipped_loss) < LOSS_TOLERANCE


def hashes_agree() -> dict[str, bool]:
    """Compare the weights of each shipped checkpoint with the hash in the manifest.

    Returns
    -------
    dict of str to bool
        Whether they agree, by checkpoint such as "XS/step-400".
    """
    results = {}
    for name, run in manifest().items():
        for step, facts in run["checkpoints"].items():
            file = checkpoint(name, int(step)) / "model.safetensors"
            results[f"{name}/step-{step}"] = sha256(file) == facts["sha256"]
    return results


def remake(name: str, folder: Path) -> Iterator[Progress]:
    """Pretrain a shipped model again by its recipe.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`.
    folder : Path
        Folder of the run, see :func:`ntps_utils.lab.pretrain.pretrain`.

    Returns
    -------
    iterator of Progress
        Training runs while it is consumed.

    Raises
    ------
    ValueError
        If there is no such model, or the folder contains a different run.
    """
    from ntps_utils.lab.pretrain import WorldSource, pretrain, world_tokenizer

    tokenizer = world_tokenizer()
    return pretrain(LADDER[_checked_name(name)], WorldSource(WORLD, tokenizer), tokenizer, folder)


def verify(name: str, folder: Path) -> list[CheckpointComparison]:
    """Compare a model that :func:`remake` trained with the shipped one.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`.
    folder : Path
        Folder of the new run, which is complete.

    Returns
    -------
    list of CheckpointComparison
        One for each checkpoint.

    Raises
    ------
    ValueError
        If the folder contains a run of another recipe.
    """
    import torch
    from safetensors.torch import load_file

    shipped_run, new_run = manifest()[name], json.loads((folder / "run.json").read_text("utf-8"))
    if new_run["recipe"] != json.loads(json.dumps(asdict(LADDER[name]))):
        raise ValueError(f"{folder} contains a different run: its recipe is not that of lab/{name}.")
    results = []
    for step, facts in shipped_run["checkpoints"].items():
        shipped_file = checkpoint(name, int(step)) / "model.safetensors"
        shipped, new = load_file(shipped_file), load_file(folder / f"step-{step}" / "model.safetensors")
        differences = [float((shipped[key].double() - new[key].double()).abs().max()) for key in shipped]
        results.append(
            CheckpointComparison(
                name=name,
                step=int(step),
                hash_agrees=sha256(shipped_file) == facts["sha256"],
                identical=all(torch.equal(shipped[key], new[key]) for key in shipped),
                largest_difference=float(np.max(differences)),
                shipped_loss=facts["validation_loss"],
                new_loss=new_run["checkpoints"][step]["validation_loss"],
            )
        )
    return results
