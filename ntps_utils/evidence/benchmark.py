"""The grid: cells of models and datasets, run in this process or on a Dask cluster.

A finished cell is a row in a store at once, so that a grid can be interrupted, killed and
continued. A cell that fails is recorded with its error, and the others go on.
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
from ntps_utils.evidence import experiment as cells
from ntps_utils.evidence.experiment import ExperimentConfig, n_threads, run_experiment
from ntps_utils.evidence.store import Store
from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.loading import load_model, model_fingerprint

RESOURCE = "GPU"
"""What a Dask worker offers, and a cell of the GPU profile holds one of."""

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


class BenchmarkError(ValueError):
    """A grid cannot start as it was asked for. One line for each thing that is wrong."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One model on one dataset; ``key`` holds everything that its row depends on."""

    model: str
    dataset: str
    key: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.model} on {self.dataset}"


@dataclass(frozen=True)
class Failure:
    """A cell that could not be measured: ``error`` in one line, ``details`` the traceback."""

    model: str
    dataset: str
    error: str
    details: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a grid consists of, and what of it is left to do.

    Attributes
    ----------
    cells : tuple of Cell
        All, model by model.
    missing : tuple of Cell
        Those that the store does not hold.
    texts : dict
        Training and test texts by name of dataset.
    """

    cells: tuple[Cell, ...]
    missing: tuple[Cell, ...]
    texts: dict[str, tuple[TextDataset, TextDataset]]


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A finished grid.

    Attributes
    ----------
    rows : dict
        Of :func:`ntps_utils.evidence.experiment.run_experiment`, and ``warnings``, what it warned of, by
        (model, dataset) as the grid was given them.
    failures : tuple of Failure
        The other cells.
    """

    rows: dict[tuple[str, str], dict[str, Any]]
    failures: tuple[Failure, ...]

    def complete(self) -> list[dict[str, Any]]:
        """All rows, in the order of the grid.

        Raises
        ------
        BenchmarkError
            If a cell failed, naming the first.
        """
        if self.failures:
            first = self.failures[0]
            raise BenchmarkError(
                f"{len(self.failures)} cells failed, the first {first.model} on {first.dataset}: {first.error}"
            )
        return list(self.rows.values())


@cache  # this process keeps the code that it has loaded, whatever becomes of the files
def made_by() -> dict[str, Any]:
    """What decides a row beside weights, texts and settings: the measuring code and the packages it uses."""
    code = code_fingerprint(Path(cells.__file__), leave_out=("store", "provenance"))  # they keep rows, not make them
    found = {name: v for name, v in versions().items() if name not in ("ntps-utils", "datasets")}
    return {"code": code, "versions": found}


def plan_benchmark(
    models: Sequence[str],
    datasets: Sequence[str],
    settings: ExperimentConfig,
    store: Store,
    *,
    trust_remote_code: bool = False,
) -> Plan:
    """Find every model and dataset, and which cells the store lacks. No weights are loaded.

    Raises
    ------
    BenchmarkError
        Naming every model and dataset that cannot be found, before anything is run.
    """
    problems: list[str] = []
    prints: dict[str, str] = {}
    texts: dict[str, tuple[TextDataset, TextDataset]] = {}
    for name in models:
        try:
            prints[name] = model_fingerprint(name, trust_remote_code=trust_remote_code)
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
    found = tuple(
        Cell(
            model,
            dataset,
            {
                "model": model,
                "weights": prints[model],
                "dataset": dataset,
                "texts": [part.fingerprint for part in texts[dataset]],
                "settings": asdict(settings),
                **made,
            },
        )
        for model in models
        for dataset in datasets
    )
    return Plan(found, tuple(cell for cell in found if store.get(cell.key) is None), texts)


def failures_of(store: Store) -> Store:
    """Where a store keeps the cells that failed; each goes when the cell succeeds."""
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
    """Measure every (model, dataset) cell that the store does not hold yet.

    Parameters
    ----------
    models, datasets : sequence of str
        As for :func:`ntps_utils.models.loading.load_model` and :func:`~ntps_utils.models.datasets.load_texts`;
        datasets need the splits "train" and "test".
    settings : ExperimentConfig
    store : Store
        Each row is written as soon as it is there.
    scheduler : str, optional
        "local" starts a Dask cluster on this machine; an address such as
        "dask://host:8786" uses a running one, whose workers have this library. By
        default cells run in this process one after another, or on a local cluster if
        ``n_workers`` is more than 1.
    n_workers : int
        Of the local cluster, each for one cell at a time.
    gpu : bool
        Each cell holds one of the resource "GPU" of its worker; a local cluster gives
        each worker one, and places the workers on the machine's GPUs in turn.
    retries : int
        Times that Dask tries a cell again after an error that another try may not meet.
        A cell whose worker dies is started again on another.
    trust_remote_code : bool
        As for :func:`ntps_utils.models.loading.load_model`.
    watch : callable, optional
        Called with the state of every (model, dataset), "waiting", "running", "done" or
        "failed", whenever that changes.

    Raises
    ------
    BenchmarkError
        If a model, dataset or scheduler cannot be found; nothing has been run then.
    """
    plan = plan_benchmark(models, datasets, settings, store, trust_remote_code=trust_remote_code)
    states = {(cell.model, cell.dataset): DONE for cell in plan.cells}
    states |= {(cell.model, cell.dataset): WAITING for cell in plan.missing}

    def tell(cell: Cell | None = None, state: str = WAITING) -> None:
        if cell is not None:
            if states[cell.model, cell.dataset] == state:
                return
            states[cell.model, cell.dataset] = state
        if watch is not None:
            watch(states)

    failed, failures = failures_of(store), []
    tell()
    if plan.missing:
        store.folder.mkdir(parents=True, exist_ok=True)
        work = (settings, str(store.folder.resolve()), trust_remote_code)
        if scheduler is None and n_workers == 1:
            outcomes = _here(plan.missing, work, tell)
        else:
            outcomes = _on_dask(plan.missing, work, tell, scheduler or "local", n_workers, gpu, retries)
        for cell, outcome in outcomes:
            facts = {name: cell.key[name] for name in ("model", "dataset", "settings")}
            if isinstance(outcome, Failure):
                failures.append(outcome)
                failed.put(facts, asdict(outcome))
                tell(cell, FAILED)
            else:
                if store.get(cell.key) is None:  # the worker may not see this folder
                    store.put(cell.key, outcome)
                failed.discard(facts)
                tell(cell, DONE)
    rows = {(cell.model, cell.dataset): row for cell in plan.cells if (row := store.get(cell.key)) is not None}
    return Benchmark(rows, tuple(failures))


Work = tuple[ExperimentConfig, str, bool]
Outcome = dict[str, Any] | Failure
Tell = Callable[[Cell, str], None]


def _measure(
    cell: Cell, settings: ExperimentConfig, folder: str, trust_remote_code: bool, device: str = "auto"
) -> Outcome:
    """Measure a cell and keep its row, wherever this runs. Errors that no second try can mend are an outcome."""
    torch.set_num_threads(n_threads())
    try:
        mine = made_by()
        if any(cell.key[name] != mine[name] for name in mine):
            raise BenchmarkError("this worker has another version of the library or of a package it uses; update it.")
        model = load_model(cell.model, dtype=settings.dtype, device=device, trust_remote_code=trust_remote_code)
        train, test = settings.texts(cell.dataset)
        found = [model.fingerprint, train.fingerprint, test.fingerprint]
        if found != [cell.key["weights"], *cell.key["texts"]]:
            raise BenchmarkError(
                "the weights or texts that this worker finds under these names are not those of the plan."
            )
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            row = run_experiment(model, train, test, settings)
        said = {str(w.message) for w in warned if w.category.__module__.startswith("ntps_utils")}
        row["warnings"] = sorted(said)
        if Path(folder).is_dir():
            Store(folder).put(cell.key, row)
        return row
    except (ValueError, MemoryError) as error:
        return _failure(cell, error)


def _failure(cell: Cell, error: BaseException) -> Failure:
    lines = str(error).strip().splitlines() or [""]
    details = "".join(traceback.format_exception(error))
    return Failure(cell.model, cell.dataset, f"{type(error).__name__}: {lines[0]}", details)


def _here(missing: Sequence[Cell], work: Work, tell: Tell) -> Iterator[tuple[Cell, Outcome]]:
    for cell in missing:
        tell(cell, RUNNING)
        try:
            yield cell, _measure(cell, *work)
        except Exception as error:  # whatever it is, the other cells go on
            yield cell, _failure(cell, error)


# -- Dask --------------------------------------------------------------------------


def _on_dask(
    missing: Sequence[Cell], work: Work, tell: Tell, scheduler: str, n_workers: int, gpu: bool, retries: int
) -> Iterator[tuple[Cell, Outcome]]:
    import dask
    from distributed import wait

    quiet = {"distributed.logging.distributed": "critical", "distributed.admin.log-format": "%(message)s"}
    with dask.config.set(quiet), _client(scheduler, n_workers, gpu) as client:
        futures = {
            client.submit(
                _on_worker,
                cell,
                *work,
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
                    wait(list(futures), timeout=1.0, return_when="FIRST_COMPLETED")
                for future in [f for f in futures if f.done()]:
                    cell = futures.pop(future)
                    error = future.exception() if future.status != "finished" else None
                    yield cell, future.result() if error is None else _failure(cell, error)
                at_work = {key for keys in client.processing().values() for key in keys} if futures else set()
                for future, cell in futures.items():
                    if future.key in at_work:
                        tell(cell, RUNNING)
        finally:
            client.cancel(list(futures))


def _on_worker(cell: Cell, settings: ExperimentConfig, folder: str, trust_remote_code: bool) -> Outcome:
    """:func:`_measure` on the GPU that belongs to this worker, if the machine has several."""
    import transformers
    from distributed import get_worker

    transformers.utils.logging.disable_progress_bar()
    name, device = str(get_worker().name), "auto"
    if torch.cuda.is_available():  # a launcher that shows each worker one GPU has numbered it 0
        device = f"cuda:{int(name) % torch.cuda.device_count() if name.isdecimal() else 0}"
    return _measure(cell, settings, folder, trust_remote_code, device)


@contextmanager
def _client(scheduler: str, n_workers: int, gpu: bool) -> Iterator[Any]:
    """A client of a cluster started here, or of the one at an address."""
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError:
        raise BenchmarkError("A Dask cluster needs the package distributed: pip install 'ntps-utils[grid]'.") from None
    with ExitStack() as stack:
        if scheduler == "local":
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    memory_limit=None,  # pausing at a limit would stop a grid for good
                    dashboard_address=":0",  # any free port: another grid may run here
                    resources={RESOURCE: 1} if gpu else None,
                )
            )
            yield stack.enter_context(Client(cluster))
            return
        address = scheduler.replace("dask://", "tcp://", 1)
        if "://" not in address:
            raise BenchmarkError(
                f"There is no scheduler {scheduler!r}; give local, or an address such as dask://host:8786."
            )
        try:
            client = stack.enter_context(Client(address, timeout=20))
        except (OSError, ValueError) as error:
            raise BenchmarkError(
                f"The scheduler at {scheduler} cannot be reached ({type(error).__name__}); is dask scheduler running?"
            ) from None
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if gpu and workers and not any(RESOURCE in worker["resources"] for worker in workers):
            raise BenchmarkError(
                f"No worker of {scheduler} offers the resource {RESOURCE}; start them with "
                f'dask worker ... --nthreads 1 --resources "{RESOURCE}=1".'
            )
        yield client
