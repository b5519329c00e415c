"""The lab: a synthetic world of texts with known causes, its tasks, and models pretrained on its texts.

``grammar`` defines latent factors and documents, ``world`` the factors and sentences of the
lab's world, ``tasks`` its classification tasks. ``recipe`` and ``pretrain`` train the ladder of
models of increasing size that ``ladder`` loads.
"""

from ntps_utils.lab.grammar import Document, Factor, World
from ntps_utils.lab.ladder import MODELS, checkpoint, manifest, steps_of, untrained_model
from ntps_utils.lab.tasks import TASKS, Sample, Task, find_task, sample, split_of
from ntps_utils.lab.world import WORLD

__all__ = [
    "MODELS",
    "TASKS",
    "WORLD",
    "Document",
    "Factor",
    "Sample",
    "Task",
    "World",
    "checkpoint",
    "find_task",
    "manifest",
    "sample",
    "split_of",
    "steps_of",
    "untrained_model",
]
