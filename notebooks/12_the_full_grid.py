# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The full grid
#
# :::{admonition} After this chapter you can
# :class: tip
# - estimate what the paper's 8 models on 12 datasets will cost on a device before using it;
# - run them in one process, on one machine, or on a cluster, and continue after an interruption;
# - say what this book has run and what it has only prepared.
#
# You need chapter 7 for what a cell is. It runs in two minutes.
# :::
#
# **The paper** {cite}`cheng2025ntps` measures eight models of 270 million to 8 billion parameters on twelve datasets: 96 cells. **The code does** the same with
# `ntps benchmark`: a cell is one model on one dataset with scores, probes, rivals, LoRA and its frozen-head baseline, and a finished cell is a row on disk.
# For this edition we had neither a GPU nor access to the Hub. So we estimate the cost of every cell, interrupt a small grid on purpose, and run all 96 cells with tiny models under
# the ids of the paper's models and through the same loading path. **We find** that on a GPU most of the time would be spent on the CPU, that a grid whose worker is killed ends with the same rows, and that all 96 cells run from end to end.

# %% tags=["parameters"]
profile = "default"
seed = 0
flops = 2e14  # operations a second of the GPU for which the plan is made
planned_models = "all"  # of the paper's eight, by name
models = "XS S"
tasks = "tense code number marker"
n_train = 300
n_steps = 30

# %% tags=["hide-input"]
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from distributed import LocalCluster
from IPython.display import Markdown
from myst_nb import glue

from ntps_utils.evidence import cost
from ntps_utils.evidence.benchmark import plan_benchmark, run_benchmark
from ntps_utils.evidence.claims import analyzed_runs
from ntps_utils.evidence.declared import planned_runs, run_settings
from ntps_utils.evidence.experiment import GPU, ExperimentConfig
from ntps_utils.evidence.records import load_record
from ntps_utils.evidence.runs import recorded_runs
from ntps_utils.evidence.store import Store
from ntps_utils.evidence.tables import (
    compare,
    load_recorded,
    load_text_sizes,
    recorded_on,
    stored_cells,
)
from ntps_utils.models.loading import paper_models
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import COLORS, house_style, panels

house_style()
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# %% [markdown]
# ## What it will cost
#
# A forward pass takes two operations per token for each parameter of the transformer blocks {cite}`kaplan2020scaling`. Attention adds $4dT$ operations per layer and token, with the width $d$ of the model and $T$ tokens in the text. A training step that moves
# adapters alone takes twice as many operations as a forward pass: gradients pass through the frozen weights, but none is taken of them. {mod}`ntps_utils.evidence.cost` counts the passes of a cell, and the tests hold the counts against PyTorch's own counter of operations. Everything
# else is measured: the fixed time of one call, the time of a probe, and of an eigendecomposition.
#
# Sizes of the models are from their configurations. Sizes of the datasets are from copies of ten of them; CLINC150 stands in for intent classification, and bias identification, of which we had no copy,
# is given the mean of the others. Tokens are counted as characters divided by four. The copy of IMDb is incomplete (3,750 texts), so that its cost is about a sixth too low. The settings are those of the GPU profile:

# %% tags=["hide-input"]
lora = GPU.lora
Markdown(f"""
| | |
| --- | --- |
| texts of a dataset | at most {GPU.n_train:,} to train on and {GPU.n_test:,} to test on |
| tokens of a text | at most {GPU.max_length} |
| precision of the passes | {GPU.dtype} |
| adapters | rank {lora.r}, {lora.max_steps} steps of {lora.batch_size} texts at each of {len(lora.learning_rates)} learning rates |
""")

# %% tags=["hide-input"]
texts = load_text_sizes()
texts.loc["bias_identification"] = texts.mean().round(1)
texts = texts.sort_index().astype(
    dict.fromkeys(("n_train", "n_test", "n_classes", "longest"), int)
)
datasets = {
    name: cost.TextSize(**row) for name, row in texts.to_dict("index").items()
}

rows = []
for model in paper_models() if planned_models == "all" else planned_models.split():
    size = cost.model_size(model)
    there = cost.measure_speed(size, GPU, flops=flops)
    here = cost.measure_speed(size, GPU)
    full, slow = (
        cost.total(cost.cell_cost(size, t, GPU, speed) for t in datasets.values())
        for speed in (there, here)
    )
    rows.append(
        {
            "model": model,
            "parameters": size.n_parameters,
            "operations": full.flops,
            "GPU memory": full.memory / 2**30,
            "hours": full.seconds / 3600,
            "on the CPU": full.host_seconds / 3600,
            "hours here": slow.seconds / 3600,
        }
    )
plan = pd.DataFrame(rows).set_index("model")
FORMATS = {
    "parameters": lambda x: f"{x / 1e6:,.0f} M",
    "operations": "{:.1e}".format,
    "GPU memory": "{:.0f} GiB".format,
    "hours": "{:.2f}".format,
    "on the CPU": "{:.2f}".format,
    "hours here": "{:,.0f}".format,
}
plan.apply(lambda column: column.map(FORMATS[column.name])).rename_axis(None)

# %% tags=["remove-cell"]
glue("full_cells", len(plan) * len(datasets), display=False)
glue("full_flops", float(plan["operations"].sum()), display=False)
glue("full_memory", float(plan["GPU memory"].max()), display=False)
glue(
    "full_share",
    float(plan["operations"].iloc[-2:].sum() / plan["operations"].sum()),
    display=False,
)
runs = recorded_runs()
kinds = [(one.run.kind, one.run.seed) for one in runs]
first = [one.run.kind for one in analyzed_runs(runs)].count("lora")
glue("full_first", first, display=False)
glue("full_later", float(kinds.count(("lora", 0)) - first), display=False)
glue("full_shuffled", kinds.count(("shuffled", 0)), display=False)
glue("full_second", kinds.count(("lora", 1)), display=False)
glue("full_paper", kinds.count(("paper", 0)), display=False)
glue("full_assumed", f"{flops:.0e}", display=False)
lengths = texts["mean_tokens"] * (texts["n_train"] + texts["n_test"])
glue("full_imdb", float(lengths["imdb"] / lengths.sum()), display=False)

# %% [markdown]
# Each line is all twelve datasets, one cell at a time. *Hours* is the total time, on a GPU that sustains {glue:text}`full_assumed` operations a second and one thread of this CPU; *on the CPU* is the part of it that the CPU takes. The rest is more than operations divided by the rate: each call of a layer takes a fixed time, measured on this CPU, which is most of the rest for the small models. The GPU's rate is an assumption, about a fifth of the nominal rate of an H100 or H200 and two thirds of an A100's;
# measure yours with `ntps benchmark --dry-run` on the device. The last column is this machine, measured on a block of each model's width.
#
# - All {glue:text}`full_cells` cells take {glue:text}`full_flops:.1e` operations; the two largest models take {glue:text}`full_share:.0%` of them, and IMDb {glue:text}`full_imdb:.0%` of all tokens.
# - The peak is {glue:text}`full_memory:.0f` GiB: one GPU of 80 GiB is enough, since a finetuning run keeps one copy of the model beside the original, and adapters.
# - **Most of the time is spent on the CPU.** With one thread, most of the hours go to the eigendecompositions of $d \times d$ moments in double precision and to the probes. They run on the CPU. Give each worker
#   eight cores, as the commands below do (`OMP_NUM_THREADS=8`).

# %% tags=["hide-input"] mystnb={"image": {"alt": "Horizontal bars for eight models: in most the part of the hours on the CPU is longer than that on the GPU, up to four times; both grow with the model."}, "figure": {"caption": "Most of the time is not the GPU's. Hours for all twelve datasets, with one CPU thread beside the GPU.", "name": "fig-grid-hours"}}
figure, (ax,) = panels(1, height=3.0)
on_gpu = plan["hours"] - plan["on the CPU"]
ax.barh(
    plan.index,
    on_gpu,
    color=COLORS["autoregressive"],
    label="passes and training steps (GPU)",
)
ax.barh(
    plan.index,
    plan["on the CPU"],
    left=on_gpu,
    color=COLORS["metric"],
    label="subspaces and probes (CPU)",
)
ax.invert_yaxis()
ax.set(xlabel="hours")
_ = ax.legend(loc="upper right")

# %% [markdown]
# In most models the part on the CPU is longer than the part on the GPU. It grows fast with the width $d$ of the features, because the time of an eigendecomposition is proportional to $d^3$. A faster GPU would therefore shorten the grid less than more CPU threads beside it.
#
# ## What real models take here
#
# Two models that `ntps models fetch` brings, on the machine that made this edition: two CPU cores, in float32. *Short* are {glue:text}`bench_short` texts of sst2, *long* are {glue:text}`bench_long` of 512 tokens. Ratios are times divided by that of the forward pass alone on the same batches, medians of {glue:text}`bench_repeats_low` to {glue:text}`bench_repeats_high` measurements. They vary from run to run
# (recorded; `python -m book.tools.bench --model NAME --data DATASET --n-texts 256` measures yours).

# %% tags=["hide-input"]
bench = load_record("bench_models")["models"]
names = {
    "tokens_per_second": "tokens a second",
    "last_layer_ratio": "last layer",
    "all_layers_ratio": "all layers",
    "all_layers_float64_ratio": "all, float64 products",
    "dense_loop_ratio": "dense triangular loop",
}
speeds = pd.DataFrame(
    {name: row for name, row in bench.items() if "tokens_per_second" in row}
).T[list(names)]
speeds.rename(columns=names).astype(float).round(2)

# %% tags=["remove-cell"]
for length in ("short", "long"):
    n_texts = bench[f"smollm2-135m-instruct {length}"]["n_texts"]
    glue(f"bench_{length}", n_texts, display=False)
repeats = [row["repeats"] for row in bench.values() if "repeats" in row]
glue("bench_repeats_low", min(repeats), display=False)
glue("bench_repeats_high", max(repeats), display=False)
glue("real_slowest", float(speeds["tokens_per_second"].min()), display=False)
glue("real_fastest", float(speeds["tokens_per_second"].max()), display=False)
glue(
    "real_all", float(speeds["all_layers_ratio"].astype(float).max()), display=False
)
glue(
    "real_last", float(speeds["last_layer_ratio"].astype(float).max()), display=False
)
ratio = speeds["all_layers_ratio"].astype(float) / speeds["dense_loop_ratio"].astype(
    float
)
for length in ("short", "long"):
    part = ratio[ratio.index.str.endswith(length)]
    glue(f"loop_{length}_low", float(part.min()), display=False)
    glue(f"loop_{length}_high", float(part.max()), display=False)
solves = [row for row in bench.values() if "ratio_to_released" in row]
for name in ("released", "released_float64"):
    ratios = [row[f"ratio_to_{name}"] for row in solves]
    glue(f"real_{name}", float(min(ratios)), display=False)
halves = [row for row in bench.values() if "ratio_to_float32" in row]
shares = [row["ratio_to_float32"] for row in halves]
others = [
    row["last_layer"][s] for row in halves for s in ("ntps_metric", "ntps_task")
]
for name, value in {
    "low": min(shares),
    "high": max(shares),
    "ntps": max(row["last_layer"]["ntps"] for row in halves),
    "other": max(others),
    "worst": max(max(row["largest"].values()) for row in halves),
}.items():
    glue(f"half_{name}", float(value), display=False)
declared = run_settings(planned_runs()[0], {planned_runs()[0].model: 1e-3})
passes = cost.experiment_passes(cost.TextSize(2000, 1000, 2, 25.0, 64), declared)
cell_tokens = 25 * (passes.texts + cost.STEP_PASSES["lora"] * passes.step_texts)
glue("real_cell_tokens", float(cell_tokens), display=False)
glue(
    "real_linearized",
    cost.LINEARIZED_TEXTS * (1 + cost.LINEARIZED_GRADIENTS),
    display=False,
)
glue(
    "real_cell_low",
    float(cell_tokens / speeds["tokens_per_second"].max() / 60),
    display=False,
)
glue(
    "real_cell_high",
    float(cell_tokens / speeds["tokens_per_second"].min() / 60),
    display=False,
)

# %% [markdown]
# A forward pass reads {glue:text}`real_slowest:.0f` to {glue:text}`real_fastest:.0f` tokens a second. With the moments of the last layer a pass takes at most {glue:text}`real_last:.2f` times as long, with those of every layer at most {glue:text}`real_all:.2f` times. A pass with the moments of every layer takes {glue:text}`loop_short_low:.2f` to {glue:text}`loop_short_high:.2f` (short texts) and {glue:text}`loop_long_low:.2f` to {glue:text}`loop_long_high:.2f` (long texts) of the time of a loop with dense triangular matrices over batches of 16 texts in the order of the file, as the released script reads them. For short texts, most of the time is saved because texts of similar length share a batch. For long texts nothing is saved: the triangle costs $T^2 d$ operations, which at 512 tokens is less than the $T d^2$ of the products. All scores of all layers at every width, with both eigenproblems, are at least {glue:text}`real_released:.1f` times faster than the operations of the released script at its 19 widths: eigenproblems, and a pseudo-inverse for each width, in float32 (in float64 {glue:text}`real_released_float64:.1f` times; one measurement over all layers of each model).
#
# With `--dtype bfloat16` forward passes are in 16 bits. On a processor with units for this type, another machine than that of the table, the moments of all layers then take {glue:text}`half_low:.2f` to {glue:text}`half_high:.2f` of the time in float32 (one measurement for each model), and scores of the last layer change by up to {glue:text}`half_ntps:.4f` (Euclidean) and {glue:text}`half_other:.4f` (the other two), those of any layer by up to {glue:text}`half_worst:.3f`. It is an option, because the last digits are lost.
#
# As an example we take a cell of the {doc}`declared experiment </book/declared>`: 2,000 training and 1,000 test texts of 25 tokens, and LoRA for 300 steps of 16 texts. The texts are read once; the 400 validation texts eight times; the test texts after the best and the last step; and, in this cell, all texts once more for the scores after LoRA. The linearized gain takes {glue:text}`real_linearized:,` passes over a text more. A training step costs two passes over its texts. Together it costs about {glue:text}`real_cell_tokens:.1e` forward passes of one token, which is {glue:text}`real_cell_low:.0f` to {glue:text}`real_cell_high:.0f` minutes here.
#
# ## LoRA on rounded weights
#
# A processor that multiplies in bfloat16 is faster with frozen weights of this type; adapters, head, loss and optimizer stay in float32. Does this change what LoRA reaches? We made {glue:text}`types_n` runs with smollm2-135m-instruct in pairs, which differ in this type alone: three datasets, three seeds, 500 training and 500 test texts, 80 steps of 16 texts (recorded; `python -m book.tools.base_types --data FOLDER` makes them). The table has test accuracies after the last step.

# %% tags=["hide-input"]
pairs = pd.DataFrame(load_record("base_types")["runs"])
types = pairs.pivot(
    index=["dataset", "seed"], columns="base_dtype", values="accuracy"
)
types["difference (points)"] = 100 * (types["bfloat16"] - types["float32"])
types.round(3)

# %% tags=["remove-cell"]
points = types["difference (points)"]
spread = (
    100
    * types[["bfloat16", "float32"]].groupby("dataset").var().mean().mean() ** 0.5
)
for name, value in {
    "mean": points.mean(),
    "error": points.std() / len(points) ** 0.5,
    "deviation": points.std(),
    "seeds": spread,
    "least": points.min(),
    "most": points.max(),
}.items():
    glue(f"types_{name}", float(value), display=False)
glue("types_n", len(pairs), display=False)
dataset, one = points.abs().idxmax()
for row in pairs.query("dataset == @dataset and seed == @one").to_dict("records"):
    start = float(row["validation_loss"][0])
    glue(f"types_start_{row['base_dtype']}", start, display=False)

# %% [markdown]
# With bfloat16 the accuracy is higher by {glue:text}`types_mean:.1f` points in the mean, with a standard error of {glue:text}`types_error:.1f` (single pairs: {glue:text}`types_least:+.1f` to {glue:text}`types_most:+.1f`). Between seeds, with the same type, it has a standard deviation of {glue:text}`types_seeds:.1f` points. So these runs show no loss by rounding. The pair that differs most does so before its first step: its validation losses start at {glue:text}`types_start_float32:.2f` (float32) and {glue:text}`types_start_bfloat16:.2f` (bfloat16). The head starts from a probe of the features, here those of the rounded weights, and its penalty is chosen by cross-validation among a few values.
#
# ## Is the estimate right?
#
# We run cells of the lab here, one after another, and compare. The estimate counts LoRA without early stopping, which makes it too high. It leaves out reading, copying and starting, which makes it too low, above all for models this small. A machine that does
# something else at the same time is slower than estimated. In both rows the measured time is {glue:text}`est_low:.1f` to {glue:text}`est_high:.1f` times the estimate. To be safe, allow a factor of four.

# %% tags=["hide-input"]
settings = ExperimentConfig(n_train=n_train, n_test=n_train // 2, seed=seed)
settings = replace(
    settings,
    lora=replace(settings.lora, max_steps=n_steps, seed=seed),
    frozen=replace(settings.frozen, max_steps=n_steps, seed=seed),
)
ladder = [f"lab/{name}" for name in models.split()]
names = [f"lab/{name}" for name in tasks.split()]
folder = Path(tempfile.mkdtemp())
alone = Store(folder / "alone")
planned = plan_benchmark(ladder, names, settings, alone)
speeds = {
    model: cost.measure_speed(cost.model_size(model), settings) for model in ladder
}
estimate = {
    (cell.model, cell.dataset): cost.cell_cost(
        cost.model_size(cell.model),
        cost.text_size(*planned.texts[cell.dataset], settings.max_length),
        settings,
        speeds[cell.model],
    ).seconds
    for cell in planned.missing
}
measured = run_benchmark(ladder, names, settings, alone)
seconds = pd.DataFrame(
    {
        "estimate": estimate,
        "measured": {cell: result.seconds for cell, result in measured.rows.items()},
    }
).rename_axis(["model", "dataset"])
seconds.groupby("model").sum().round(1).assign(
    ratio=lambda t: (t["estimate"] / t["measured"]).round(2)
)

# %% tags=["remove-cell"]
totals = seconds.groupby("model").sum()
times = totals["measured"] / totals["estimate"]
glue("est_low", float(times.min()), display=False)
glue("est_high", float(times.max()), display=False)

# %% [markdown]
# ## Breaking it on purpose
#
# We now run the same cells on a Dask cluster of two worker processes. As soon as a worker has begun, we kill it without giving it a chance to clean up, as when a machine fails. We also add a dataset that cannot be probed, because all its texts have the same label.

# %% tags=["hide-input"]
bad = folder / "one_class"
bad.mkdir()
for split, part in zip(("train", "test"), planned.texts[names[0]], strict=True):
    pd.DataFrame({"text": part.texts, "label": 0}).to_csv(
        bad / f"{split}.csv", index=False
    )

killed = []
store = Store(folder / "cluster")
with LocalCluster(
    n_workers=2,
    threads_per_worker=1,
    memory_limit=None,
    dashboard_address=":0",
) as cluster:

    def kill_once(states):
        if "running" in states.values() and not killed:
            killed.append(cluster.workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    found = run_benchmark(
        ladder,
        [*names, str(bad)],
        settings,
        store,
        scheduler=cluster.scheduler_address.replace("tcp://", "dask://"),
        watch=kill_once,
    )
for failure in found.failures:
    print(f"{failure.model} on {Path(failure.dataset).name}: {failure.error}")

# %% tags=["remove-cell"]
differences = compare(stored_cells(store), stored_cells(alone))
glue("full_killed", len(killed), display=False)
glue("full_failed", len(found.failures), display=False)
glue("full_rows", len(found.rows), display=False)
glue("full_differences", len(differences), display=False)

# %% [markdown]
# {glue:text}`full_killed` worker was killed, and {glue:text}`full_rows` rows were written. {glue:text}`full_failed` cells failed, and each is recorded with its error and traceback. The rows differ from those of the undisturbed run above in
# {glue:text}`full_differences` numbers.
#
# This works as follows. A row is written to a temporary file and renamed, so that a row is either complete or absent. Its name is the hash of weights, texts, settings, versions and code, so that a row of other settings or code is never used.
# Dask gives the cell of a dead worker to another one. The worker checks that its code, weights and texts are those of the plan, and refuses otherwise. If four workers die at the same cell (the default of Dask), it is recorded as failed, because a fifth worker would probably die, too; the usual cause is a lack of memory.
# The next run of the same command runs the cells that are missing or failed, and no others.
#
# ## The rehearsal
#
# The rehearsal runs all 96 cells under the paper's ids. The repositories have configurations, safetensors, tokenizers (OpenELM uses Llama's) and Python code that must be allowed (OpenELM's); the datasets have the columns and splits of the
# originals, and two of them are local. A small server on this machine answers as the Hub does. Behind the eight ids of models are four models of the lab at two checkpoints each, and behind the twelve ids of datasets are twelve of its tasks. The settings are those of the GPU profile (bfloat16, rank 32, 400 steps), but each dataset has only about 300 training and 150 test texts.

# %%
rehearsal = load_recorded("rehearsal")
order = list(paper_models())
table = rehearsal.pivot(index="dataset", columns="model", values="seconds")[order]

# %% tags=["hide-input"] mystnb={"image": {"alt": "A heat map of 12 datasets by 8 models; every field is filled with the seconds of its cell, from a few in the left columns to over a hundred in the right ones."}, "figure": {"caption": "All 96 cells are there. Seconds of each cell in the rehearsal; the models behind the ids have 51 thousand to 1.3 million parameters.", "name": "fig-rehearsal"}}
figure, (ax,) = panels(1, height=4.2)
sns.heatmap(
    table,
    ax=ax,
    cmap="cividis",
    annot=True,
    fmt=".0f",
    annot_kws={"size": 8},
    cbar=False,
    linewidths=0.5,
)
ax.set(xlabel="", ylabel="")
ax.tick_params(axis="x", rotation=30, labelsize=9)
ax.tick_params(axis="y", rotation=0, labelsize=9, length=0)

# %% tags=["remove-cell"]
glue("full_rehearsed", len(rehearsal), display=False)
glue("full_minutes", float(rehearsal["seconds"].sum() / 60), display=False)

# %% [markdown]
# No field is empty, so no cell failed: there are {glue:text}`full_rehearsed` rows from {glue:text}`full_minutes:.0f` minutes of work on two cores. The rows say nothing about the models whose ids they have, and no result in this book uses them. They show that the pipeline runs from end to end.
#
# ## What was run, and what was not
#
# | | |
# | --- | --- |
# | the paper's own 96 cells | **not run here**; their published numbers are read in {doc}`chapter 10 <10_the_papers_numbers>` |
# | a model from the Hub | **not run here**; two real models of 135 and 268 million parameters were fetched from the Python package index instead: timed above, scored in chapters 1, 3 to 5, 7 and 14 |
# | LoRA on these two models: {glue:text}`full_first` runs that decide the {doc}`declared experiment </book/declared>`, {glue:text}`full_later:.0f` later ones on other datasets, {glue:text}`full_second` with a second seed, {glue:text}`full_shuffled` with shuffled labels, and {glue:text}`full_paper` with the paper's settings | run and recorded (chapters 7 to 9) |
# | a model of more than 268 million parameters | **not run here** |
# | a GPU | **not run here**: device placement, bfloat16 and one GPU for each worker are in the code |
# | SLURM | **not run here**: the job script is printed and checked by a test, no job was started |
# | 64 cells of the lab, 33 cells of three small models on real texts | run and recorded (chapter 7) |
# | the 8 × 12 shape with stand-ins through the loading path of the Hub | run and recorded (above), and again without LoRA by the tests |
# | killed workers, killed clients, failing cells | above, and in the tests |
#
# ## Run it
#
# First the plan, on the device that you will use. The paper names no source for two datasets; the loader of its released code has ids of the Hub for both (utils.py), which we could not open, so give folders with `train.csv` and `test.csv`. Llama and OpenELM, whose tokenizer is that of Llama 2, need a token of yours, and the licenses must be accepted. OpenELM's repositories contain Python code, which
# `--trust-remote-code` allows to run; read it first.
#
# ```bash
# pip install '.[grid]'   # in a clone: Dask; not needed for a single process
# D=paper,bias_identification=data/bias,intent_classification=data/intent
# export OMP_NUM_THREADS=8 OPENBLAS_NUM_THREADS=8 MKL_NUM_THREADS=8   # cores for each worker: four workers need 32
# ntps benchmark --models paper --datasets $D --profile gpu --trust-remote-code --dry-run
# ```
#
# Then one of these. Each can be killed and repeated. Workers on other machines need the same versions of the library and its packages, the folders of `D` at the same paths, the Hub (or its cache) with your token, and, in the shell that starts them, the three variables above: without them Dask gives a worker one thread. Finished cells go back to the client, which writes them; a common disk is not needed.
#
# ```bash
# ntps benchmark --models paper --datasets $D --profile gpu --trust-remote-code --record runs/full                             # one GPU
# ntps benchmark --models paper --datasets $D --profile gpu --trust-remote-code --record runs/full --scheduler local --jobs 4  # four, on one machine
#
# dask scheduler &                                                                                                        # several machines
# dask worker tcp://HOST:8786 --nthreads 1 --memory-limit 0 --resources "GPU=1"      # once for each GPU, with CUDA_VISIBLE_DEVICES set
# ntps benchmark --models paper --datasets $D --profile gpu --trust-remote-code --record runs/full --scheduler dask://HOST:8786
# ```
#
# A Dask worker runs whatever a client sends it, in pickled form. Keep scheduler and workers on a network that nobody else can reach, or use Dask's TLS. On a SLURM cluster this script keeps a scheduler and asks for jobs of one GPU each
# ({download}`download <../book/slurm_grid.py>`; it needs `.[grid]`, `python slurm_grid.py --jobs 8 --partition gpu -- --models paper --datasets $D --trust-remote-code --record runs/full` starts it, and `--show` prints the job script):
#
# ```{literalinclude} ../book/slurm_grid.py
# :language: python
# :pyobject: cluster
# ```
#
# Afterwards `ntps prescreen MODEL DATA --calibration runs/full_cells.csv` uses the full grid, and chapters 7 to 9 can read its tables like the recorded ones.
#
# ## Summary
#
# - The cost of the grid is estimated before it starts, cell by cell. With a GPU, most of the time is spent on the CPU beside it.
# - A finished cell is kept whatever happens later; a failed one is recorded and does not stop the others.
# - The full grid is prepared and rehearsed; its results on the paper's models are not in this edition.
#
# ## Quiz
#
# **1.** A run of 96 cells is interrupted after 40. What happens when the same command runs again?
#
# - (a) All cells run again
# - (b) Nothing
# - (c) The other 56 cells run
#
# :::{admonition} Answer
# :class: dropdown
# (c). Every cell is stored when it is finished, under a name made from weights, texts, settings, versions and code. (a) is wrong because finished cells are found by that name. (b) is wrong because only finished cells are skipped.
# :::
#
# **2.** Why does the estimate first count operations, and turn them into hours afterwards?
#
# - (a) Hours depend on the machine, which is measured separately
# - (b) Hours are not interesting
# - (c) Operations are always exact
#
# :::{admonition} Answer
# :class: dropdown
# (a). Operations follow from the sizes alone, and hours are operations divided by a speed, which is measured or assumed, plus times that do not depend on the operations. (b) is wrong because hours are what the estimate is for. (c) is wrong because the counts are approximate, too: early stopping, for example, is not known in advance.
# :::
#
# **3.** You have one GPU and one CPU thread for it. What shortens the full grid most?
#
# - (a) A GPU that is twice as fast
# - (b) Eight CPU threads
# - (c) Twice the GPU memory
#
# :::{admonition} Answer
# :class: dropdown
# (b). Most of the hours go to eigendecompositions and probes, which run on the CPU. (a) is wrong because passes and training steps on the GPU are the smaller part. (c) is wrong because every cell fits into one GPU of 80 GiB, and more memory does not speed up the CPU.
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} A pass of a large model
# :label: ex-12-1
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# Llama-3-8B has 7.0 billion parameters in its blocks. How many seconds does one forward pass over IMDb's 3,750 texts of 283 tokens take on a device of $2\cdot10^{14}$ operations a second? Write the time as a function of the numbers of tokens, parameters, and operations a second; leave attention out.
#
# ```python
# def seconds(n_tokens, n_parameters, operations_per_second):
#     ...
#
# check("12.1", seconds)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Each weight is multiplied once and added once for each token.
# :::
#
# ````{solution} ex-12-1
# :class: dropdown
# $2 \cdot \text{tokens} \cdot \text{parameters} / \text{speed}$. $3750 \cdot 283 = 1.06$ million tokens at $2 \cdot 7.0\cdot10^9$ operations are $1.5\cdot10^{16}$: 74 seconds. Attention adds $4 \cdot 4096 \cdot 283 \cdot 32 \approx 1.5\cdot10^8$ for each token, one hundredth of that. Try
# `cost.forward_flops(cost.model_size("Llama-3-8B"), 3750 * 283, 283)`.
# ````
#
# ````{exercise} More learning rates
# :label: ex-12-2
#
# *Difficulty 2 of 5, importance 3 of 5, about 15 minutes.*
#
# Finetuning tries several learning rates, each with `steps` steps of `batch` texts and `evaluations` passes over `validation` texts; a step costs two forward passes for each text. Write the cost in forward passes of one text as a function. Which parts of a cell do not grow with the number of rates?
#
# ```python
# def passes(n_rates, steps, batch, evaluations, validation):
#     ...
#
# check("12.2", passes)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Every learning rate starts anew: all of its steps and evaluations are repeated.
# :::
#
# ````{solution} ex-12-2
# :class: dropdown
# $n_{\text{rates}} \cdot (2 \cdot \text{steps} \cdot \text{batch} + \text{evaluations} \cdot \text{validation})$. Extraction, probes, subspaces and the final test stay as they are. Compare `cost.cell_cost` with one learning rate and with two: the operations grow by well over half, the hours less, because most of them are the
# CPU's.
# ````
#
# ````{exercise} A cell that does not fit
# :label: ex-12-3
#
# *Difficulty 2 of 5, importance 3 of 5, about 10 minutes.*
#
# A cell takes down its worker by running out of memory. Twelve cells would fit, and four workers are left; each attempt at the large cell costs a worker. After how many attempts at it can no other cell run? What would you look at before the next attempt?
#
# ```python
# attempts = ...
#
# check("12.3", attempts)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The other workers have as much memory as the first.
# :::
#
# ````{solution} ex-12-3
# :class: dropdown
# After four attempts no worker is left, and the twelve cells that would fit wait. So the number of attempts has to be limited, here below the four that Dask makes by default (`distributed.scheduler.allowed-failures`). The estimate of `--dry-run` says how much memory the cell needs. If that is near the memory of the device, cut texts (`--max-length`), since the part of the peak above the weights is proportional to their length, or use a
# larger device. A changed setting makes new cells for all models, so use the same setting for all models that you compare.
# ````
#
# ````{exercise} What names a result?
# :label: ex-12-4
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# Stored results are found by a name. Write a function that makes one from the model, the dataset, the settings and the hash of the code, such that a result is found again exactly if all four are the same. (The library adds the versions of the packages.) Why does the code belong to it, and why not its comments?
#
# ```python
# def name(model, dataset, settings, code):
#     ...
#
# check("12.4", name)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Two different combinations must never give the same name: `"a-b" + "c"` and `"a" + "b-c"` are different.
# :::
#
# ````{solution} ex-12-4
# :class: dropdown
# Otherwise half of a table could stem from before a correction and half from after, and nothing would show it. Comments and docstrings do not count, so that better words do not cost a day of GPU time. Join the parts unambiguously, and hash them.
#
# ```python
# import hashlib
# import json
#
# def name(model, dataset, settings, code):
#     text = json.dumps([model, dataset, settings, code], sort_keys=True)
#     return hashlib.sha256(text.encode()).hexdigest()[:16]
# ```
# ````

# %% tags=["remove-input"]
Markdown(
    provenance_note(
        profile=profile,
        seed=seed,
        texts=n_train,
        recorded=recorded_on(["rehearsal"]),
    )
)
