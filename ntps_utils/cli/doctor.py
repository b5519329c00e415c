"""``ntps doctor``: describe the installation and check that it works."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import ntps_utils
from ntps_utils._utils.provenance import PACKAGES, versions
from ntps_utils.cli.console import INSTALL_MODELS, guarded, missing_model_package, out, quiet_libraries

HUB_TIMEOUT = 5.0
"""Seconds to wait for an answer of the Hub."""
N_TEXTS = 30
"""Number of texts of the example score."""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes
    ----------
    name : str
    memory_gib : float
        Total memory in GiB.
    bfloat16 : bool
        Whether the device computes in bfloat16 natively.
    """

    name: str
    memory_gib: float
    bfloat16: bool


@dataclass(frozen=True)
class SystemReport:
    """Description of an installation, with the outcomes of its checks.

    Attributes
    ----------
    version : str
        Version of ntps-utils.
    python, platform : str
    packages : dict of str to (str or None)
        Version of each main package, or None if it is not installed.
    missing_extras : dict of str to list of str
        Packages that are not installed, by extra of ntps-utils.
    cpu_cores : int or None
    threads : int or None
        Threads of torch; None without torch.
    memory_gib : float or None
        Total memory in GiB, where the system tells it.
    gpus : tuple of Gpu
    hub : str
        "reachable", "not reachable", or why it was not tested.
    hub_cache : str or None
        Folder of the cache of the Hub; None without huggingface_hub.
    checks : dict of str to str
        "ok", "skipped: ..." or "error: ..." by name of the check.
    """

    version: str
    python: str
    platform: str
    packages: dict[str, str | None]
    missing_extras: dict[str, list[str]]
    cpu_cores: int | None
    threads: int | None
    memory_gib: float | None
    gpus: tuple[Gpu, ...]
    hub: str
    hub_cache: str | None
    checks: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not any(outcome.startswith("error") for outcome in self.checks.values())


def system_report() -> SystemReport:
    """Describe the installation and run its checks.

    Returns
    -------
    SystemReport
    """
    installed = versions()
    checks: dict[str, Callable[[], None]] = {
        "shipped weights": check_weights,
        f"score of lab/XS on {N_TEXTS} texts of lab/tense": check_score,
    }
    return SystemReport(
        version=ntps_utils.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: installed.get(name) for name in PACKAGES if name != "ntps-utils"},
        missing_extras=missing_extras(),
        cpu_cores=os.cpu_count(),
        threads=_threads(),
        memory_gib=_memory_gib(),
        gpus=_gpus(),
        hub=hub_status(),
        hub_cache=_hub_cache(),
        checks={name: _outcome(check) for name, check in checks.items()},
    )


def missing_extras() -> dict[str, list[str]]:
    """Packages of each extra of ntps-utils that are not installed, except those of the extra for developers.

    Returns
    -------
    dict of str to list of str
        Only extras that lack a package.
    """
    try:
        requirements = metadata.requires("ntps-utils") or []
    except metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        match = re.match(r"([\w.-]+).*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if match and match[2] != "dev" and not _is_installed(match[1]):
            missing.setdefault(match[2], []).append(match[1])
    return missing


def hub_status() -> str:
    """Test with one HEAD request whether the Hub answers.

    Returns
    -------
    str
        "reachable", "not reachable", or why it was not tested.
    """
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:
        return f"not tested (requires {INSTALL_MODELS})"
    if constants.HF_HUB_OFFLINE:
        return "not tested (HF_HUB_OFFLINE is set)"
    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT):
            return "reachable"
    except urllib.error.HTTPError:
        return "reachable"  # an error status is an answer
    except (OSError, ValueError):
        return "not reachable"


def check_weights() -> None:
    """Compare the shipped models with the hashes in their manifest.

    Raises
    ------
    ValueError
        If a file differs.
    """
    from ntps_utils.lab.ladder import hashes_agree

    different = [name for name, agrees in hashes_agree().items() if not agrees]
    if different:
        raise ValueError(f"The weights of {', '.join(different)} do not match their hashes. Reinstall ntps-utils.")


def check_score() -> None:
    """Score the smallest model of the lab on a few texts.

    Raises
    ------
    ValueError
        If a score is not finite.
    """
    with quiet_libraries(), warnings.catch_warnings(action="ignore"):
        from ntps_utils.models.scoring import score_model

        report = score_model("lab/XS", "lab/tense", max_texts=N_TEXTS, layers="last", k_v=[0.5], device="cpu")
    scores = [row.ntps for row in report]
    if not scores or not all(map(math.isfinite, scores)):
        raise ValueError(f"The scores must be finite, got {scores}.")


def _outcome(check: Callable[[], None]) -> str:
    """Run a check and describe its outcome without the path of the user's home."""
    try:
        check()
    except ModuleNotFoundError as error:
        if missing_model_package(error) is not None:
            return f"skipped: requires {INSTALL_MODELS}"
        return _describe(error)
    except Exception as error:  # any failure belongs into the report
        return _describe(error)
    return "ok"


def _describe(error: Exception) -> str:
    message = " ".join(f"error: {type(error).__name__}: {error}".split())
    home = str(Path.home())
    return message.replace(home, "~") if len(home) > 1 else message


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _threads() -> int | None:
    try:
        import torch
    except ModuleNotFoundError:
        return None
    return torch.get_num_threads()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None


def _gpus() -> tuple[Gpu, ...]:
    try:
        import torch
    except ModuleNotFoundError:
        return ()
    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        gpus.append(Gpu(properties.name, round(properties.total_memory / 2**30, 1), bfloat16))
    return tuple(gpus)


def _hub_cache() -> str | None:
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:
        return None
    return str(constants.HF_HUB_CACHE)


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Describe the installation and check that it works, for example for a bug report.

    The exit status is 1 if a check fails.
    """
    with guarded():
        report = system_report()
        if as_json:
            out.print(
                json.dumps(asdict(report) | {"ok": report.ok}, indent=1), markup=False, highlight=False, soft_wrap=True
            )
        else:
            print_report(report)
    if not report.ok:
        raise typer.Exit(1)


def print_report(report: SystemReport) -> None:
    """Print a report with one line per fact."""
    facts: list[tuple[str, object]] = [
        ("ntps-utils", report.version),
        ("Python", report.python),
        ("platform", report.platform),
        *((package, version or "not installed") for package, version in report.packages.items()),
        *(
            (f"extra {extra}", f"missing {', '.join(packages)}: pip install 'ntps-utils[{extra}]'")
            for extra, packages in report.missing_extras.items()
        ),
        ("CPU cores", report.cpu_cores),
        ("threads of torch", report.threads),
        ("memory", None if report.memory_gib is None else f"{report.memory_gib:g} GiB"),
        *(
            ("GPU", f"{gpu.name}, {gpu.memory_gib:g} GiB, {'with' if gpu.bfloat16 else 'without'} bfloat16")
            for gpu in report.gpus
        ),
        *([] if report.gpus else [("GPU", "none")]),
        ("Hub", report.hub),
        ("Hub cache", report.hub_cache),
        *report.checks.items(),
    ]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        line = f"{name:<{width}}  {'unknown' if value is None else value}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
