"""The lab: an offline world whose causes are known, its tasks, and models pretrained in it.

``grammar`` is the mechanism, ``world`` what this world says, ``tasks`` its questions, and
``pretrain`` makes the ladder of models that ``ladder`` finds.
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
