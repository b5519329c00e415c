"""The ladder of models that comes with the library: where it is, and whether it is what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ntps_utils._utils.files import atomic_path, data_file, sha256
from ntps_utils.lab.recipe import LADDER, Progress
from ntps_utils.lab.world import WORLD

MODELS = tuple(LADDER)


def ladder_folder() -> Path:
    """Where the shipped models are."""
    return data_file("lab")


def manifest() -> dict[str, Any]:
    """Recipes, losses and hashes of the shipped models, by name."""
    return dict(json.loads((ladder_folder() / "manifest.json").read_text("utf-8")))


def steps_of(name: str) -> tuple[int, ...]:
    """Pretraining steps at which a model can be loaded; 0 is the untrained model."""
    return (0, *LADDER[_known(name)].checkpoints)


def checkpoint(name: str, step: int | None = None) -> Path:
    """Folder of a shipped model after some steps, by default the last.

    Raises
    ------
    ValueError
        If there is no such model or checkpoint.
    """
    steps = steps_of(name)[1:]
    step = steps[-1] if step is None else step
    if step not in steps:
        raise ValueError(f"lab/{name} has the checkpoints {', '.join(map(str, (0, *steps)))}, not {step}.")
    return ladder_folder() / name / f"step-{step}"


def untrained_model(name: str) -> tuple[Any, Any]:
    """Model and tokenizer of step 0, made from the recipe's seed."""
    from ntps_utils.lab.pretrain import initial_model, world_tokenizer  # imports transformers, which is slow

    tokenizer = world_tokenizer()
    return initial_model(LADDER[_known(name)], tokenizer), tokenizer


def _known(name: str) -> str:
    if name not in LADDER:
        raise ValueError(f"The lab has no model {name!r}; its models are {', '.join(LADDER)}.")
    return name


def write_manifest(folder: Path) -> None:
    """Collect the runs in a folder into its ``manifest.json``."""
    runs = {}
    for name in MODELS:
        run = json.loads((folder / name / "run.json").read_text("utf-8"))
        n_parameters = sum(p.numel() for p in untrained_model(name)[0].parameters())
        runs[name] = {"n_parameters": n_parameters, **run}
    with atomic_path(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(runs, indent=1) + "\n", "utf-8")


@dataclass(frozen=True)
class Verified:
    """A shipped model and one made anew by the same recipe.

    Attributes
    ----------
    name : str
    step : int
    hash_agrees : bool
        The shipped weights are those of the manifest.
    identical : bool
        The new weights equal the shipped ones bit for bit, as on a machine of the same kind.
    largest_difference : float
        Between any two weights.
    shipped_loss, new_loss : float
        On the held-out texts, in nats.
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
        """Whether hash and loss are right; rounding differs between machines, the loss hardly."""
        return self.hash_agrees and abs(self.new_loss - self.shipped_loss) < 0.02


def hashes_agree() -> dict[str, bool]:
    """Whether each shipped checkpoint has the hash that the manifest says."""
    found = {}
    for name, run in manifest().items():
        for step, facts in run["checkpoints"].items():
            file = checkpoint(name, int(step)) / "model.safetensors"
            found[f"{name}/step-{step}"] = sha256(file) == facts["sha256"]
    return found


def remake(name: str, folder: Path) -> Iterator[Progress]:
    """Pretrain a model of the ladder by its recipe."""
    from ntps_utils.lab.pretrain import WorldSource, pretrain, world_tokenizer

    tokenizer = world_tokenizer()
    return pretrain(LADDER[_known(name)], WorldSource(WORLD, tokenizer), tokenizer, folder)


def verify(name: str, folder: Path) -> list[Verified]:
    """Compare a model that :func:`remake` made in a folder with the shipped one."""
    shipped, made = manifest()[name], json.loads((folder / "run.json").read_text("utf-8"))
    if made["recipe"] != json.loads(json.dumps(asdict(LADDER[name]))):
        raise ValueError(f"{folder} holds another run than that of lab/{name}.")
    results = []
    for step, facts in shipped["checkpoints"].items():
        ours = checkpoint(name, int(step)) / "model.safetensors"
        theirs = folder / f"step-{step}" / "model.safetensors"
        one, two = load_file(ours), load_file(theirs)
        gaps = [float((one[key].double() - two[key].double()).abs().max()) for key in one]
        results.append(
            Verified(
                name=name,
                step=int(step),
                hash_agrees=sha256(ours) == facts["sha256"],
                identical=all(torch.equal(one[key], two[key]) for key in one),
                largest_difference=float(np.max(gaps)),
                shipped_loss=facts["validation_loss"],
                new_loss=made["checkpoints"][step]["validation_loss"],
            )
        )
    return results
