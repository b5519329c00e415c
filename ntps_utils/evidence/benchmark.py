"""A benchmark: one experiment for each cell of a table of models and datasets.

Cells run in this process or on a Dask cluster. A finished cell is stored at once, so that a
benchmark can be interrupted, killed and continued. A cell that fails is recorded with its error,
and the other cells continue.
"""

from __future__ import annotations

import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ntps_utils._utils.provenance import code_fingerprint, versions
from ntps_utils._utils.validation import check_integer
from ntps_utils.evidence import experiment
from ntps_utils.evidence.experiment import (
    ExperimentConfig,
    ExperimentResult,
    limited_threads,
    n_cores,
    n_threads,
    run_with_warnings,
)
from ntps_utils.evidence.store import Store
from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.loading import CausalModel, load_model, model_fingerprint

RESOURCE = "GPU"
"""Resource of a Dask worker; a cell of the GPU profile needs one unit of it."""

CONNECTION_TIMEOUT = 20
"""Seconds to wait for a Dask scheduler."""

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"

Texts = tuple[TextDataset, TextDataset]
"""Training and test texts of a dataset."""


class BenchmarkWarning(UserWarning):
    """A benchmark will be slower than it could be."""


class BenchmarkError(ValueError):
    """A benchmark cannot start. The message has one line for each problem."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One model on one dataset.

    Attributes
    ----------
    model, dataset : str
        Names.
    key : dict
        Everything that the result depends on: settings, fingerprints, code and versions.
    """

    model: str
    dataset: str
    key: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.model} on {self.dataset}"


@dataclass(frozen=True)
class Failure:
    """A cell whose experiment failed.

    Attributes
    ----------
    model, dataset : str
        Names.
    error : str
        Type and first line of the error.
    details : str
        Traceback.
    """

    model: str
    dataset: str
    error: str
    details: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """The cells of a benchmark, and those that still have to run.

    Attributes
    ----------
    cells : tuple of Cell
        All cells, model by model.
    missing : tuple of Cell
        Cells without a result in the store.
    texts : dict
        Training and test texts by name of the dataset.
    """

    cells: tuple[Cell, ...]
    missing: tuple[Cell, ...]
    texts: dict[str, Texts]


@dataclass(frozen=True, eq=False)
class Benchmark:
    """The outcome of a benchmark.

    Attributes
    ----------
    rows : dict of (str, str) to ExperimentResult
        Results by (model, dataset), under the names that were passed to :func:`run_benchmark`.
    failures : tuple of Failure
        The other cells.
    """

    rows: dict[tuple[str, str], ExperimentResult]
    failures: tuple[Failure, ...]

    def complete(self) -> list[ExperimentResult]:
        """Return the results of all cells, and insist that there are no failures.

        Returns
        -------
        list of ExperimentResult
            Model by model.

        Raises
        ------
        BenchmarkError
            If a cell failed; the message names the first.
        """
        if self.failures:
            first = self.failures[0]
            n = f"{len(self.failures)} cells" if len(self.failures) > 1 else "One cell"
            raise BenchmarkError(f"{n} failed. The first was {first.model} on {first.dataset}: {first.error}")
        return list(self.rows.values())


@cache  # a process keeps the code that it has loaded, even if the files change
def made_by() -> dict[str, Any]:
    """Compute what determines a result besides weights, texts and settings.

    Returns
    -------
    dict
        ``code``, a hash of the code that measures, and ``versions`` of the packages it uses.
    """
    # These two modules store results; they do not compute them.
    code = code_fingerprint(Path(experiment.__file__), leave_out=("store", "provenance"))
    relevant = {name: v for name, v in versions().items() if name not in ("ntps-utils", "datasets")}
    return {"code": code, "versions": relevant}


def plan_benchmark(
    models: Sequence[str],
    datasets: Sequence[str],
    settings: ExperimentConfig,
    store: Store,
    *,
    trust_remote_code: bool = False,
) -> Plan:
    """Find all models and datasets, and determine which cells have no result yet.

    No weights are loaded.

    Parameters
    ----------
    models, datasets, settings, store, trust_remote_code
        See :func:`run_benchmark`.

    Returns
    -------
    Plan

    Raises
    ------
    BenchmarkError
        If models or datasets cannot be found; the message names all of them.

    Examples
    --------
    >>> plan = plan_benchmark(["lab/XS"], ["lab/topic", "lab/tense"], ExperimentConfig(), Store("runs/none"))
    >>> [str(cell) for cell in plan.missing]
    ['lab/XS on lab/topic', 'lab/XS on lab/tense']
    """
    problems: list[str] = []
    weights: dict[str, str] = {}
    texts: dict[str, Texts] = {}
    for name in models:
        try:
            weights[name] = model_fingerprint(name, trust_remote_code=trust_remote_code)
        except HubError as error:
            problems.append(str(error))
    for name in datasets:
        try:
            texts[name] = settings.texts(name)
        except HubError as error:
            problems.append(str(error))
    if problems:
        raise BenchmarkError("\n".join(problems))
    made = made_by()
    cells = tuple(
        Cell(
            model,
            dataset,
            {
                "model": model,
                "weights": weights[model],
                "dataset": dataset,
                "texts": [part.fingerprint for part in texts[dataset]],
                "settings": asdict(settings),
                **made,
            },
        )
        for model in models
        for dataset in datasets
    )
    return Plan(cells, tuple(cell for cell in cells if store.get(cell.key) is None), texts)


def failures_of(store: Store) -> Store:
    """Open the store of the cells that failed.

    Parameters
    ----------
    store : Store
        Store of the results.

    Returns
    -------
    Store
        Its entries have the fields of :class:`Failure`. An entry is deleted when its cell succeeds.
    """
    return Store(store.folder / "failed")


def run_benchmark(
    models: Sequence[str],
    datasets: Sequence[str],
    settings: ExperimentConfig,
    store: Store,
    *,
    scheduler: str | None = None,
    n_workers: int = 1,
    gpu: bool = False,
    retries: int = 2,
    trust_remote_code: bool = False,
    watch: Callable[[Mapping[tuple[str, str], str]], None] | None = None,
) -> Benchmark:
    """Run the experiment of every (model, dataset) cell that has no result yet.

    Cells run model by model, and each process loads a model once for consecutive cells.

    Parameters
    ----------
    models, datasets : sequence of str
        Names as for :func:`ntps_utils.models.loading.load_model` and
        :func:`~ntps_utils.models.datasets.load_texts`; datasets need the splits "train" and "test".
    settings : ExperimentConfig
        Settings of all cells.
    store : Store
        Each result is stored as soon as its cell has finished.
    scheduler : str, optional
        "local" starts a Dask cluster on this machine; an address such as "dask://host:8786"
        uses a running cluster, whose workers have this library installed. By default cells run
        in this process one after another, or on a local cluster if ``n_workers`` is more than 1.
    n_workers : int
        Number of worker processes of the local cluster; each runs one cell at a time.
    gpu : bool
        Each cell needs one unit of the resource "GPU" of its worker. Workers of a local cluster
        have one unit each and are assigned to the machine's GPUs in turn.
    retries : int
        Number of times that Dask repeats a cell after an error that may not occur again. A
        cell whose worker dies is restarted on another worker.
    trust_remote_code : bool
        See :func:`ntps_utils.models.loading.load_model`.
    watch : callable, optional
        Called with the state of every (model, dataset), "waiting", "running", "done" or
        "failed", whenever a state changes.

    Returns
    -------
    Benchmark

    Raises
    ------
    BenchmarkError
        If a model, dataset or scheduler cannot be found, before any cell runs.

    Warns
    -----
    BenchmarkWarning
        If more processes are to run than this machine has cores.

    Examples
    --------
    >>> benchmark = run_benchmark(
    ...     ["gpt2", "lab/M"], ["sst2", "lab/topic"], ExperimentConfig(), Store("runs/cells")
    ... )  # doctest: +SKIP
    >>> benchmark.rows["gpt2", "sst2"].finetuning.gain  # doctest: +SKIP
    """
    check_integer("n_workers", n_workers, 1)
    check_integer("retries", retries, 0)
    plan = plan_benchmark(models, datasets, settings, store, trust_remote_code=trust_remote_code)
    states = {(cell.model, cell.dataset): DONE for cell in plan.cells}
    states |= {(cell.model, cell.dataset): WAITING for cell in plan.missing}

    def report(cell: Cell | None = None, state: str = WAITING) -> None:
        if cell is not None:
            if states[cell.model, cell.dataset] == state:
                return
            states[cell.model, cell.dataset] = state
        if watch is not None:
            watch(states)

    if scheduler not in (None, "local") and "://" not in scheduler:
        raise BenchmarkError(f"scheduler must be 'local' or an address such as dask://host:8786, got {scheduler!r}.")
    failed, failures = failures_of(store), []
    report()
    if plan.missing:
        store.folder.mkdir(parents=True, exist_ok=True)
        work = _Work(settings, str(store.folder.resolve()), trust_remote_code, n_workers)
        if scheduler in (None, "local") and n_workers * n_threads() > n_cores():
            warnings.warn(
                f"{n_workers} processes with {n_threads()} threads each are more than the {n_cores()} cores of this "
                f"machine and slow each other down. Use at most {max(1, n_cores() // n_threads())} processes.",
                BenchmarkWarning,
                stacklevel=2,
            )
        if scheduler is None and n_workers == 1:
            outcomes = _run_here(plan, work, report)
        else:
            outcomes = _run_on_dask(plan.missing, work, report, scheduler or "local", n_workers, gpu, retries)
        for cell, outcome in outcomes:
            facts = {name: cell.key[name] for name in ("model", "dataset", "settings")}
            if isinstance(outcome, Failure):
                failures.append(outcome)
                failed.put(facts, asdict(outcome))
                report(cell, FAILED)
            else:
                if store.get(cell.key) is None:  # the worker may not have access to this folder
                    store.put(cell.key, outcome.to_dict())
                failed.discard(facts)
                report(cell, DONE)
    rows = {
        (cell.model, cell.dataset): ExperimentResult.from_dict(values)
        for cell in plan.cells
        if (values := store.get(cell.key)) is not None
    }
    return Benchmark(rows, tuple(failures))


Outcome = ExperimentResult | Failure
Report = Callable[[Cell, str], None]


@dataclass(frozen=True)
class _Work:
    """What all cells share: settings, the folder of the store, and whether to trust remote code."""

    settings: ExperimentConfig
    folder: str
    trust_remote_code: bool
    n_processes: int = 1


class _LastModel:
    """The model of the last cell, so that consecutive cells of one model load it once."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._model: CausalModel | None = None

    def load(self, cell: Cell, work: _Work, device: str) -> CausalModel:
        dtype, weights = work.settings.dtype, cell.key["weights"]
        key = (cell.model, dtype, device, weights, work.trust_remote_code)
        if self._model is None or self._key != key:
            self._key = self._model = None  # free its memory before another model is loaded
            model = load_model(cell.model, dtype=dtype, device=device, trust_remote_code=work.trust_remote_code)
            if model.fingerprint != weights:
                raise BenchmarkError(f"The weights that this process finds for {cell.model} are not those of the plan.")
            self._key, self._model = key, model
        return self._model


_worker_model = _LastModel()
"""The last model of a Dask worker; its processes end with the cluster."""


def _run_cell(
    cell: Cell, work: _Work, last_model: _LastModel, texts: Texts | None = None, device: str = "auto"
) -> Outcome:
    """Run one experiment and store its result; errors that a repetition cannot fix become a Failure.

    ``texts`` are those of the plan; without them, the texts are loaded and compared with the plan.
    """
    try:
        mine = made_by()
        if any(cell.key[name] != mine[name] for name in mine):
            raise BenchmarkError(
                "This worker has another version of this library, or of a package that it uses, than the client. "
                "Install the same versions on both."
            )
        model = last_model.load(cell, work, device)
        if texts is None:
            texts = work.settings.texts(cell.dataset)
            if [part.fingerprint for part in texts] != cell.key["texts"]:
                raise BenchmarkError(f"The texts that this worker finds for {cell.dataset} are not those of the plan.")
        with limited_threads(model.model.num_parameters(), work.n_processes):
            result = run_with_warnings(model, *texts, work.settings)
        if Path(work.folder).is_dir():
            Store(work.folder).put(cell.key, result.to_dict())
        return result
    except (ValueError, MemoryError) as error:
        return _failure(cell, error)


def _failure(cell: Cell, error: BaseException) -> Failure:
    lines = str(error).strip().splitlines() or [""]
    details = "".join(traceback.format_exception(error))
    return Failure(cell.model, cell.dataset, f"{type(error).__name__}: {lines[0]}", details)


def _run_here(plan: Plan, work: _Work, report: Report) -> Iterator[tuple[Cell, Outcome]]:
    last_model = _LastModel()
    for cell in plan.missing:
        report(cell, RUNNING)
        try:
            yield cell, _run_cell(cell, work, last_model, plan.texts[cell.dataset])
        except Exception as error:  # the other cells continue, whatever the error
            yield cell, _failure(cell, error)


# -- Dask --------------------------------------------------------------------------


def _run_on_dask(
    missing: Sequence[Cell], work: _Work, report: Report, scheduler: str, n_workers: int, gpu: bool, retries: int
) -> Iterator[tuple[Cell, Outcome]]:
    try:
        import dask
        import distributed
    except ModuleNotFoundError:
        raise BenchmarkError(
            "A Dask cluster needs the package distributed. Install it with: pip install 'ntps-utils[grid]'"
        ) from None
    quiet = {"distributed.logging.distributed": "critical", "distributed.admin.log-format": "%(message)s"}
    with dask.config.set(quiet), _client(scheduler, n_workers, gpu) as client:
        futures = {
            client.submit(
                _run_on_worker,
                cell,
                work,
                key=f"{cell} {uuid.uuid4().hex}",
                retries=retries,
                resources={RESOURCE: 1} if gpu else None,
                pure=False,
            ): cell
            for cell in missing
        }
        try:
            while futures:
                with suppress(TimeoutError):
                    distributed.wait(list(futures), timeout=1.0, return_when="FIRST_COMPLETED")
                for future in [f for f in futures if f.done()]:
                    cell = futures.pop(future)
                    error = future.exception() if future.status != "finished" else None
                    yield cell, future.result() if error is None else _failure(cell, error)
                in_progress = {key for keys in client.processing().values() for key in keys} if futures else set()
                for future, cell in futures.items():
                    if future.key in in_progress:
                        report(cell, RUNNING)
        finally:
            client.cancel(list(futures))


def _run_on_worker(cell: Cell, work: _Work) -> Outcome:
    """Run one experiment on the GPU that belongs to this worker, if the machine has several."""
    import transformers
    from distributed import get_worker

    transformers.utils.logging.disable_progress_bar()
    name, device = str(get_worker().name), "auto"
    if torch.cuda.is_available():  # a launcher that gives each worker one GPU has numbered it 0
        device = f"cuda:{int(name) % torch.cuda.device_count() if name.isdecimal() else 0}"
    return _run_cell(cell, work, _worker_model, device=device)


@contextmanager
def _client(scheduler: str, n_workers: int, gpu: bool) -> Iterator[Any]:
    """A client of a new local cluster, or of the cluster at an address."""
    import dask
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        if scheduler == "local":
            # Dask would give its workers one thread, whatever the size of the model.
            environment = "distributed.nanny.pre-spawn-environ"
            kept = {k: v for k, v in dask.config.get(environment).items() if not k.endswith("_NUM_THREADS")}
            stack.enter_context(dask.config.set({environment: kept}))
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    memory_limit=None,  # a worker that pauses at a limit would stop the benchmark for good
                    dashboard_address=":0",  # any free port, because another benchmark may be running
                    resources={RESOURCE: 1} if gpu else None,
                )
            )
            yield stack.enter_context(Client(cluster))
            return
        address = scheduler.replace("dask://", "tcp://", 1)
        try:
            client = stack.enter_context(Client(address, timeout=CONNECTION_TIMEOUT))
        except (OSError, ValueError) as error:
            raise BenchmarkError(
                f"The scheduler at {scheduler} cannot be reached ({type(error).__name__}). "
                "Check the address, and that `dask scheduler` is running there."
            ) from None
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if gpu and workers and not any(RESOURCE in worker["resources"] for worker in workers):
            raise BenchmarkError(
                f"No worker of {scheduler} has the resource {RESOURCE}. Start the workers with "
                f'dask worker ... --nthreads 1 --resources "{RESOURCE}=1".'
            )
        yield client
