"""Kill long work at random moments, again and again, and see what is left.

    python -m tests.faults [--times 200] [--seed 0] [--out FILE.json]

Each kind of work runs in a process that is killed (SIGKILL or SIGINT) after a random part of
the time that it takes undisturbed, started again with what it left on disk, and so on until it
finishes; then its result must be that of an undisturbed run, and it starts anew. After every
kill each file on disk must be whole. Status 1 if anything was lost, corrupt or different.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from safetensors.numpy import load_file

from book.tools import refresh as book
from ntps_utils._utils.files import atomic_path, sha256
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.store import Store
from ntps_utils.evidence.tables import compare, stored_cells

ROOT = Path(__file__).resolve().parents[1]
NTPS = str(Path(sys.executable).with_name("ntps"))


@dataclass(frozen=True)
class Work:
    """A kind of work: a command that leaves its result in a folder, and how to read that."""

    prepare: Callable[[Path], None]
    command: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    same: Callable[[Any, Any], bool] = lambda one, two: one == two


@dataclass
class Count:
    """What happened to one kind of work."""

    kills: int = 0
    interrupts: int = 0
    finished: int = 0
    corrupt: int = 0
    different: int = 0
    leftovers: int = 0


def _nothing(folder: Path) -> None:
    pass


def _corpus(folder: Path) -> None:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in "bdfgklmn" for b in ("a", "ei", "o", "un")]
    lines = (" ".join(rng.choice(words) for _ in range(12)) for _ in range(2000))
    (folder / "text.txt").write_text("\n".join(lines) + "\n")


def _small_book(folder: Path) -> None:
    """A project of three quick chapters."""
    for name in ("notebooks", "book/profiles", "ntps_utils"):
        (folder / name).mkdir(parents=True)
    (folder / "requirements.lock").write_text("# none\n")
    (folder / "book/profiles/default.yml").write_text("all: {seed: 5}\n")
    for i in (1, 2, 3):
        (folder / f"notebooks/0{i}_small.py").write_text(
            f'# %% tags=["parameters"]\nseed = 0\n\n# %%\nimport time\nfrom myst_nb import glue\ntime.sleep(0.3)\n'
            f'glue("value", seed * {i}, display=False)\n'
        )


def _small_site(folder: Path) -> None:
    """Sources of a site of three pages."""
    (folder / "_config.yml").write_text("title: Small\nonly_build_toc_files: true\nexclude_patterns: [_build]\n")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: one\nchapters: [{file: two}, {file: three}]\n")
    for name in ("one", "two", "three"):
        (folder / f"{name}.md").write_text(f"# Page {name}\n\nA formula, $x^2$, and text.\n")


def _site(folder: Path) -> dict[str, str]:
    """The pages as a browser gets them; each build stamps its assets, not its text."""
    pages = sorted((folder / "_build/html").glob("*.html"))
    return {page.name: re.sub(r'\?(?:v|digest)=\w+"', '"', page.read_text("utf-8")) for page in pages}


SITE = """
rm -rf _build/html _build/.doctrees
exec "$0" build . --path-output . --warningiserror --nitpick --keep-going --quiet
"""

GRID = """
import sys
from dataclasses import replace
from ntps_utils.evidence.experiment import ExperimentConfig
from ntps_utils.evidence.benchmark import run_benchmark
from ntps_utils.models.finetuning import FinetuneConfig
from ntps_utils.evidence.store import Store

short = FinetuneConfig(learning_rates=(1e-2,), max_steps=20, eval_steps=10)
settings = ExperimentConfig(lora=short, frozen=replace(short, method="frozen"), n_train=120, n_test=60)
tasks = [f"lab/{t}" for t in ("tense", "code", "number", "marker")]
run_benchmark(["lab/XS"], tasks, settings, Store(sys.argv[1] + "/cells")).complete()
"""


def _cells(folder: Path) -> Any:
    return stored_cells(Store(folder / "cells"))


def _same_cells(one: Any, two: Any) -> bool:
    return len(compare(one, two)) == 0 and len(one) == len(two)


WORK = {
    "pretraining": Work(
        _corpus,
        lambda f: [
            NTPS, "lab", "pretrain", "XS", "--corpus", str(f / "text.txt"), "--vocabulary", "300", "--context", "32",
            "--steps", "120", "--out", str(f / "out"),
        ],
        lambda f: sha256(f / "out/XS/step-120/model.safetensors"),
    ),
    "extraction": Work(
        _nothing,
        lambda f: [
            NTPS, "score", "lab/M", "lab/tense", "--batch-size", "4", "--checkpoint", str(f / "state.safetensors"),
            "--json", str(f / "scores.json"),
        ],
        lambda f: json.loads((f / "scores.json").read_text())["rows"],
    ),
    "cells with LoRA": Work(
        _nothing,
        lambda f: [sys.executable, "-c", GRID, str(f)],
        _cells,
        _same_cells,
    ),
    "a grid on Dask": Work(
        _nothing,
        lambda f: [
            NTPS, "grid", "--models", "lab/XS", "--datasets", "lab/tense,lab/code,lab/number,lab/marker", "--no-lora",
            "--n-train", "120", "--n-test", "60", "--scheduler", "local", "--jobs", "2", "--store", str(f / "cells"),
        ],
        _cells,
        _same_cells,
    ),
    "building the site": Work(
        _small_site,
        # As the Makefile does it, lock included.
        lambda f: [
            "env", "-C", str(f), sys.executable, "-m", "book.tools.locked", "_build/.lock", "sh", "-c", SITE,
            str(Path(sys.executable).with_name("jupyter-book")),
        ],
        _site,
    ),
    "executing chapters": Work(
        _small_book,
        lambda f: [
            sys.executable, "-c", "import sys; from pathlib import Path; from ntps_utils import book; "
            "book.refresh(Path(sys.argv[1]))", str(f),
        ],
        lambda f: [book.glued(p) for p in sorted((f / "notebooks").glob("*.ipynb"))],
    ),
}  # fmt: skip


def whole(folder: Path) -> tuple[int, int]:
    """Files that are not whole, and files that a killed process left beside their place."""
    corrupt = leftovers = 0
    for path in (p for p in folder.rglob("*") if p.is_file()):
        if path.name.startswith("."):
            leftovers += 1
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".ipynb":
                nbformat.validate(nbformat.read(path, as_version=4))
        except Exception:
            corrupt += 1
    return corrupt, leftovers


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def attack(work: Work, times: int, rng: random.Random, scratch: Path) -> Count:
    """Kill one kind of work so many times."""
    count = Count()
    folder = scratch / "reference"
    folder.mkdir()
    work.prepare(folder)
    started = time.monotonic()
    if _start(work.command(folder)).wait() != 0:
        raise RuntimeError(f"{work.command(folder)} fails undisturbed.")
    usual = time.monotonic() - started
    reference = work.result(folder)
    folder = None
    while count.kills + count.interrupts < times:
        if folder is None:
            folder = Path(tempfile.mkdtemp(dir=scratch))
            work.prepare(folder)
        process = _start(work.command(folder))
        try:
            process.wait(timeout=rng.uniform(0.1, 1.1) * usual)
        except subprocess.TimeoutExpired:
            hard = rng.random() < 0.5
            # The whole session, as a scheduler or a closing laptop would: kernels and workers too.
            os.killpg(process.pid, signal.SIGKILL if hard else signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            count.kills += hard
            count.interrupts += not hard
        corrupt, leftovers = whole(folder)
        count.corrupt += corrupt
        count.leftovers = max(count.leftovers, leftovers)
        if process.returncode == 0:
            count.finished += 1
            count.different += not work.same(work.result(folder), reference)
            shutil.rmtree(folder)
            folder = None
    return count


def main() -> int:
    """Attack every kind of work in turn."""
    parser = argparse.ArgumentParser(description="Kill long work at random moments and see what is left.")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rng, found = random.Random(asked.seed), dict[str, dict[str, int]]()
    for i, (name, work) in enumerate(WORK.items()):
        share = asked.times // len(WORK) + (i < asked.times % len(WORK))
        with tempfile.TemporaryDirectory() as scratch:
            found[name] = asdict(attack(work, share, rng, Path(scratch)))
        print(name, found[name], flush=True)
    if asked.out is not None:
        facts = provenance(command=f"python -m tests.faults --times {asked.times} --seed {asked.seed}", found=found)
        with atomic_path(asked.out) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return int(any(one["corrupt"] or one["different"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
