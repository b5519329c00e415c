"""Kill long-running work at random moments, and check what is on disk (``make faults``).

    python -m tests.faults [--times 200] [--seed 0] [--out FILE.json]

Each kind of work is first run without interruption. Then it is started, killed (SIGKILL or
SIGINT) after a random part of that time, and started again in the same folder, until it
completes; its result must be that of the first run. After each kill, all files on disk must be
readable. The exit status is 1 if a file was corrupt or a result different.
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
from ntps_utils._utils.files import sha256, write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.store import Store
from ntps_utils.evidence.tables import compare, stored_cells
from tests.conftest import ROOT, reset_sigint

NTPS = str(Path(sys.executable).with_name("ntps"))


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Attributes
    ----------
    prepare : callable
        Writes the inputs into a folder.
    command : callable
        Returns the command that works in a folder.
    result : callable
        Reads the result from a folder.
    same : callable
        Whether two results agree.
    """

    prepare: Callable[[Path], None]
    command: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    same: Callable[[Any, Any], bool] = lambda one, two: one == two


@dataclass
class Count:
    """Counts for one kind of work.

    Attributes
    ----------
    kills, interrupts : int
        Processes that received SIGKILL or SIGINT.
    finished : int
        Processes that completed their work.
    corrupt : int
        Files that could not be read after a kill.
    different : int
        Results that differ from that of the uninterrupted run.
    leftovers : int
        Largest number of temporary files after a kill.
    """

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
    """Write a repository with three quick chapters."""
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
    """Write the sources of a site of three pages."""
    (folder / "_config.yml").write_text("title: Small\nonly_build_toc_files: true\nexclude_patterns: [_build]\n")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: one\nchapters: [{file: two}, {file: three}]\n")
    for name in ("one", "two", "three"):
        (folder / f"{name}.md").write_text(f"# Page {name}\n\nA formula, $x^2$, and text.\n")


def _site(folder: Path) -> dict[str, str]:
    """Read the pages, without the versions in the addresses of assets, which differ between builds."""
    pages = sorted((folder / "_build/html").glob("*.html"))
    return {page.name: re.sub(r'\?(?:v|digest)=\w+"', '"', page.read_text("utf-8")) for page in pages}


SITE = """
rm -rf _build/html _build/.doctrees
exec "$0" build . --path-output . --warningiserror --nitpick --keep-going --quiet
"""

BENCHMARK = """
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
        lambda f: [sys.executable, "-c", BENCHMARK, str(f)],
        _cells,
        _same_cells,
    ),
    "a grid on Dask": Work(
        _nothing,
        lambda f: [
            NTPS, "benchmark", "--models", "lab/XS", "--datasets", "lab/tense,lab/code,lab/number,lab/marker",
            "--no-lora", "--n-train", "120", "--n-test", "60", "--scheduler", "local", "--jobs", "2",
            "--store", str(f / "cells"),
        ],
        _cells,
        _same_cells,
    ),
    "building the site": Work(
        _small_site,
        # The same commands as in the Makefile, with its lock.
        lambda f: [
            "env", "-C", str(f), sys.executable, "-m", "book.tools.locked", "_build/.lock", "sh", "-c", SITE,
            str(Path(sys.executable).with_name("jupyter-book")),
        ],
        _site,
    ),
    "executing chapters": Work(
        _small_book,
        lambda f: [
            sys.executable, "-c", "import sys; from pathlib import Path; from book.tools.refresh import refresh; "
            "refresh(root=Path(sys.argv[1]))", str(f),
        ],
        lambda f: [book.glued(p) for p in sorted((f / "notebooks").glob("*.ipynb"))],
    ),
}  # fmt: skip


def inspect(folder: Path) -> tuple[int, int]:
    """Count the files in a folder that cannot be read, and the temporary files of killed processes."""
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
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=reset_sigint,
    )


def attack(work: Work, times: int, rng: random.Random, scratch: Path) -> Count:
    """Kill one kind of work a number of times, and count what happens."""
    count = Count()
    folder = scratch / "reference"
    folder.mkdir()
    work.prepare(folder)
    start = time.monotonic()
    if _start(work.command(folder)).wait() != 0:
        raise RuntimeError(f"{work.command(folder)} fails without an interruption.")
    duration = time.monotonic() - start
    reference = work.result(folder)
    folder = None
    while count.kills + count.interrupts < times:
        if folder is None:
            folder = Path(tempfile.mkdtemp(dir=scratch))
            work.prepare(folder)
        process = _start(work.command(folder))
        try:
            process.wait(timeout=rng.uniform(0.1, 1.1) * duration)
        except subprocess.TimeoutExpired:
            hard = rng.random() < 0.5
            # The whole session, including kernels and workers, as a scheduler does it.
            os.killpg(process.pid, signal.SIGKILL if hard else signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            count.kills += hard
            count.interrupts += not hard
        corrupt, leftovers = inspect(folder)
        count.corrupt += corrupt
        count.leftovers = max(count.leftovers, leftovers)
        if process.returncode == 0:
            count.finished += 1
            count.different += not work.same(work.result(folder), reference)
            shutil.rmtree(folder)
            folder = None
    return count


def main() -> int:
    """Run ``python -m tests.faults``."""
    parser = argparse.ArgumentParser(description="Kill long-running work at random moments, and check what is on disk.")
    parser.add_argument("--times", type=int, default=200, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="random seed for the moments")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    rng, counts = random.Random(options.seed), dict[str, dict[str, int]]()
    for i, (name, work) in enumerate(WORK.items()):
        times = options.times // len(WORK) + (i < options.times % len(WORK))
        with tempfile.TemporaryDirectory() as scratch:
            counts[name] = asdict(attack(work, times, rng, Path(scratch)))
        print(name, counts[name], flush=True)
    if options.out is not None:
        command = f"python -m tests.faults --times {options.times} --seed {options.seed}"
        write_json(options.out, provenance(command=command, counts=counts))
    return int(any(count["corrupt"] or count["different"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
