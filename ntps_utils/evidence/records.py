"""Measurements that were recorded for the book, other than tables of cells: timings, simulations, real models.

This module needs neither torch nor pandas.
"""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

from ntps_utils._utils.files import data_file
from ntps_utils._utils.validation import check_choice

Record = Literal[
    "base_types", "bench_cpu", "bench_models", "coverage", "datasets", "many_texts", "pilots", "power", "prescreened",
    "real_models", "results", "results_all", "visible_rise",
]  # fmt: skip


def load_record(name: Record) -> dict[str, Any]:
    """Load a recorded measurement that ships with the library.

    Parameters
    ----------
    name : {"base_types", "bench_cpu", "bench_models", "coverage", "datasets", "many_texts", "pilots", "power",
        "prescreened", "real_models", "results", "results_all", "visible_rise"}
        ``base_types``: LoRA on frozen weights of two types (``python -m book.tools.base_types``). ``bench_cpu``:
        timings of models with random weights (``make bench``). ``bench_models``: timings of real models (``python -m
        book.tools.bench --model ...``). ``coverage``: how often
        intervals contain the true score (``python -m book.tools.coverage``). ``datasets``: sizes of the
        real datasets, and what a bag of words reaches (``python -m book.tools.datasets``). ``many_texts``:
        scores of the lab's models on ten times as many texts (``python -m book.tools.many_texts``). ``pilots``:
        finetuning runs that choose learning rates (``python -m book.tools.pilots``). ``power``: what the
        declared experiment can see (``python -m book.tools.power``). ``prescreened``: reports of ``ntps
        prescreen`` on a real model (``python -m book.tools.real_cases``). ``real_models``: layers, words,
        scores and held-out losses of real models (``python -m book.tools.real_models``). ``results``: estimates
        of the declared experiment (``python -m book.tools.results``), once its runs have ended.
        ``results_all``: the same from all its datasets, which decides nothing. ``visible_rise``: how much of a
        planted rise of NTPS shows on few texts (``python -m book.tools.visible_rise``).

    Returns
    -------
    dict
        The measurement, and its provenance.

    Raises
    ------
    ValueError
        If there is no such record.

    Examples
    --------
    >>> sorted(load_record("real_models")["models"])
    ['gemma-3-270m', 'smollm2-135m-instruct', 'stories260K']
    """
    check_choice("name", name, get_args(Record))
    return dict(json.loads(data_file(f"recorded/{name}.json").read_text("utf-8")))
