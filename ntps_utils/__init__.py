"""Next Token Perception Score: the score, its bounds, and the evidence for it.

Companion library of the book "Does next-token prediction learn what your task needs?",
after Cheng, Hu, Huang and Balestriero (arXiv:2505.17169).

>>> import ntps_utils as ntps
>>> report = ntps.score_model("lab/XS", "lab/topic", layers=-1, k_v=0.5, max_texts=200)
>>> len(report.rows)
1

Public names are imported when they are first used, so that ``import ntps_utils`` is fast
and needs neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntps_utils.evidence.prescreen import PrescreenReport, prescreen
    from ntps_utils.models.callback import NTPSCallback
    from ntps_utils.models.datasets import TextDataset, load_texts
    from ntps_utils.models.extraction import extract
    from ntps_utils.models.finetuning import FinetuneConfig, finetune
    from ntps_utils.models.loading import CausalModel, load_model
    from ntps_utils.models.scoring import score_model
    from ntps_utils.theory.estimator import NTPS, score
    from ntps_utils.theory.moments import Moments
    from ntps_utils.theory.report import ScoreReport
    from ntps_utils.theory.score import ScoreRow, subspaces

__version__ = "0.2.0"

_EXPORTS = {
    "NTPS": "ntps_utils.theory.estimator",
    "CausalModel": "ntps_utils.models.loading",
    "FinetuneConfig": "ntps_utils.models.finetuning",
    "Moments": "ntps_utils.theory.moments",
    "NTPSCallback": "ntps_utils.models.callback",
    "PrescreenReport": "ntps_utils.evidence.prescreen",
    "ScoreReport": "ntps_utils.theory.report",
    "ScoreRow": "ntps_utils.theory.score",
    "TextDataset": "ntps_utils.models.datasets",
    "extract": "ntps_utils.models.extraction",
    "finetune": "ntps_utils.models.finetuning",
    "load_model": "ntps_utils.models.loading",
    "load_texts": "ntps_utils.models.datasets",
    "prescreen": "ntps_utils.evidence.prescreen",
    "score": "ntps_utils.theory.estimator",
    "score_model": "ntps_utils.models.scoring",
    "subspaces": "ntps_utils.theory.score",
}

__all__ = [
    "NTPS",
    "CausalModel",
    "FinetuneConfig",
    "Moments",
    "NTPSCallback",
    "PrescreenReport",
    "ScoreReport",
    "ScoreRow",
    "TextDataset",
    "__version__",
    "extract",
    "finetune",
    "load_model",
    "load_texts",
    "prescreen",
    "score",
    "score_model",
    "subspaces",
]

EXTRAS = {
    "accelerate",
    "datasets",
    "gguf",
    "jinja2",
    "joblib",
    "peft",
    "pyarrow",
    "sklearn",
    "tokenizers",
    "transformers",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ntps_utils' has no attribute {name!r}; it has {', '.join(sorted(_EXPORTS))}.")
    try:
        value = getattr(import_module(_EXPORTS[name]), name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(
                f"ntps_utils.{name} needs the package {error.name}: pip install 'ntps-utils[models]'.",
                name=error.name,
            ) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
