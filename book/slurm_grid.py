"""The grid on a SLURM cluster: the scheduler runs here, and each job is a worker with one GPU.

Start it in tmux on a node that may run long, with options of ``ntps benchmark`` after two dashes:

    python slurm_grid.py --jobs 8 --partition gpu --hours 12 -- --models paper \
        --datasets "paper,bias_identification=DIR,intent_classification=DIR" \
        --trust-remote-code --record runs/full

The cache of the Hub (``HF_HOME``) and the folders of the datasets must lie where every node sees
them; results are written here. Run the same command again after an interruption, or when the
jobs' time was too short.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster


def cluster(partition: str, hours: int, cores: int, memory: str, account: str | None) -> SLURMCluster:
    """A cluster of no jobs yet; each will hold one GPU and measure one cell at a time."""
    return SLURMCluster(
        queue=partition,
        account=account,
        walltime=f"{hours}:00:00",
        cores=1,  # of Dask: one cell at a time
        processes=1,
        job_cpu=cores,  # of SLURM: for eigendecompositions and probes
        memory=memory,
        job_extra_directives=["--gres=gpu:1"],
        job_script_prologue=[
            f"export HF_HOME={os.environ.get('HF_HOME', Path.home() / '.cache/huggingface')}",
            *(f"export {name}_NUM_THREADS={cores}" for name in ("OMP", "OPENBLAS", "MKL")),
        ],
        worker_extra_args=["--resources", "GPU=1", "--memory-limit", "0"],
        python=sys.executable,
    )


def main() -> int:
    """Ask for jobs, run the grid on them, let them go."""
    parser = argparse.ArgumentParser(description="Run ntps benchmark on a SLURM cluster, a GPU for each job.")
    parser.add_argument("--jobs", type=int, default=4, help="jobs at once (4)")
    parser.add_argument("--partition", required=True, help="of nodes with GPUs")
    parser.add_argument("--account", help="to be billed")
    parser.add_argument("--hours", type=int, default=12, help="that a job may last (12)")
    parser.add_argument("--cores", type=int, default=8, help="of each job (8)")
    parser.add_argument("--memory", default="64GB", help="of each job's node, not of its GPU (64GB)")
    parser.add_argument("--show", action="store_true", help="print the job script and leave")
    parser.add_argument("grid", nargs="*", help="options of ntps benchmark, after --")
    asked = parser.parse_args()
    with cluster(asked.partition, asked.hours, asked.cores, asked.memory, asked.account) as found:
        if asked.show:
            print(found.job_script())
            return 0
        found.scale(jobs=asked.jobs)
        address = found.scheduler_address.replace("tcp://", "dask://", 1)
        ntps = Path(sys.executable).with_name("ntps")
        return subprocess.run([ntps, "benchmark", "--profile", "gpu", "--scheduler", address, *asked.grid]).returncode


if __name__ == "__main__":
    sys.exit(main())
