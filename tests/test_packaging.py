"""Packaging: requirements, the lock, extras, package contents and the workflows."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from importlib import metadata
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import ntps_utils
from tests.conftest import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = {
    canonicalize_name(name): Version(version_)
    for name, version_ in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M)
}
WORKFLOWS = ROOT / ".github" / "workflows"


def names(lines: Iterable[str]) -> set[str]:
    """Names of the packages in a list of requirements; an extra of this project stands for its own list."""
    found = set[str]()
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            found |= names(line for extra in requirement.extras for line in EXTRAS[extra])
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def test_lock_pins_every_requirement_within_its_range():
    lines = PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra]
    for requirement in map(Requirement, lines):
        if requirement.name != PROJECT["name"]:
            assert LOCK[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)
    assert str(LOCK["torch"]) == "2.13.0"


def test_lock_contains_only_exact_versions():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(LOCK)


def test_every_pinned_version_runs_on_the_first_release_of_the_oldest_python():
    """A version for Python 3.11.5 and later cannot be installed where 3.11.2 is the system's Python."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for name in LOCK:
        with contextlib.suppress(metadata.PackageNotFoundError):
            needed = metadata.metadata(name).get("Requires-Python")
            assert needed is None or oldest in SpecifierSet(needed), f"{name} needs Python {needed}"


def test_running_environment_matches_the_lock():
    for name in ("numpy", "scipy", "torch", "transformers", "jupyter-book", "pytest-xdist"):
        assert version(name).split("+")[0] == str(LOCK[name]), name


def test_book_and_grid_include_the_models_extra():
    assert names(EXTRAS["book"]) >= names(EXTRAS["models"])
    assert names(EXTRAS["grid"]) >= names(EXTRAS["models"])
    assert names(EXTRAS["models"]).isdisjoint(names(PROJECT["dependencies"]))


# Import names that differ from the name of the package, or that come with another package.
PACKAGE_OF = {"sklearn": "scikit-learn", "IPython": "ipykernel", "matplotlib_inline": "ipykernel", "click": "typer"}
NEEDS = {
    "": ["models", "book"],  # plotting and notebook serve the chapters
    "_utils": [],
    "theory": [],
    "exercises": [],
    "lab": ["models"],
    "models": ["models"],
    "evidence": ["models", "grid"],
    "cli": ["models"],
}


def imported_packages(path: Path) -> set[str]:
    """Packages outside the standard library and this project that a module imports, anywhere in it."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    found -= {"ntps_utils", *sys.stdlib_module_names}
    return {canonicalize_name(PACKAGE_OF.get(name, name)) for name in found}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "ntps_utils").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_modules_import_only_what_their_extras_install(path):
    folder = path.parent.relative_to(ROOT / "ntps_utils").as_posix().strip(".")
    allowed = names(PROJECT["dependencies"] + [line for extra in NEEDS[folder] for line in EXTRAS[extra]])
    assert imported_packages(path) <= allowed


def test_conda_environment_takes_python_from_conda_and_the_rest_from_the_lock():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = (d for d in dependencies if isinstance(d, str) and d.startswith("python="))
    assert Requirement(python.replace("=", "==")).specifier.contains("3.11")
    assert PROJECT["requires-python"] == ">=3.11"
    (pip,) = (d["pip"] for d in dependencies if isinstance(d, dict))
    assert pip == ["-r requirements.lock", "-e ."]


def test_citation_and_changelog_name_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ntps_utils.__version__
    assert "2505.17169" in str(citation["references"])
    assert re.search(rf"^## \[?{re.escape(ntps_utils.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_pages_name_files_and_targets_that_exist(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"make ([a-z]+)", "\n".join(re.findall(r"`[^`\n]+`|^make .*$", text, re.M))):
        assert target in targets, target


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:ntps_utils|book|tests|notebooks)/[\w./-]+)`", text):
        assert (ROOT / path).exists() or "NN" in path, path


def test_committed_files_contain_no_path_of_this_machine():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    here = f"{ROOT.parent}/"
    found = subprocess.run(["git", "grep", "-lF", here], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_package_data_covers_every_data_file():
    folder = ROOT / "ntps_utils"
    patterns = SETTINGS["tool"]["setuptools"]["package-data"]["ntps_utils"]
    packed = {p for pattern in patterns for p in folder.glob(pattern) if p.is_file()}
    assert packed == {p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}


def test_every_folder_with_modules_is_a_package():
    for path in (ROOT / "ntps_utils").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path


@pytest.mark.slow
def test_wheel_holds_the_library_and_the_source_distribution_its_tests(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="building without a download needs setuptools")
    source = tmp_path / "source"
    not_source = shutil.ignore_patterns(
        ".git", ".venv", "_build", "build", "dist", "runs", "mutants", "*cache*", ".hyp*"
    )
    shutil.copytree(ROOT, source, ignore=not_source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,), (archive,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    packed = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    modules = {p.relative_to(ROOT) for p in (ROOT / "ntps_utils").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {p for p in packed if not p.parts[0].endswith(".dist-info")} == modules
    with tarfile.open(archive) as tar:
        contents = {Path(*Path(name).parts[1:]) for name in tar.getnames()}
    for name in ("tests", "notebooks", "book"):
        wanted = {p.relative_to(ROOT) for p in (ROOT / name).rglob("*") if p.suffix in (".py", ".ipynb", ".yml", ".md")}
        generated = {p for p in wanted if {"generated", "students", ".ipynb_checkpoints"} & set(p.parts)}
        assert wanted - generated <= contents
    assert {Path("Makefile"), Path("requirements.lock"), Path("_toc.yml"), Path("environment.yml")} <= contents


def commands(workflow: str, job: str) -> list[str]:
    """Shell commands of a job, without what collects their output."""
    steps = yaml.safe_load((WORKFLOWS / f"{workflow}.yml").read_text())["jobs"][job]["steps"]
    return [re.split(r" OPTIONS=| 2>&1", step["run"])[0] for step in steps if "run" in step]


def test_workflows_and_container_run_the_commands_of_the_readme():
    assert commands("checks", "lint") == ["make lint"]
    assert commands("checks", "quick") == ["make quick"]
    assert commands("checks", "light") == ["make light"]
    assert [c for c in commands("book", "build") if c in ("make book", "make test")] == ["make book", "make test"]
    assert "make pdf" in commands("book", "build")
    assert "RUN make book" in (ROOT / "Dockerfile").read_text()
    assert json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["postCreateCommand"] == "make env"


def test_a_new_build_does_not_interrupt_a_deployment():
    workflow = yaml.safe_load((WORKFLOWS / "book.yml").read_text())
    assert "concurrency" not in workflow  # it would cancel the whole run, with its deployment
    publish = workflow["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert publish["concurrency"]["cancel-in-progress"] is False
    assert publish["concurrency"]["group"] != workflow["jobs"]["build"]["concurrency"]["group"]


def test_workflows_test_the_versions_that_the_classifiers_name():
    matrix = yaml.safe_load((WORKFLOWS / "checks.yml").read_text())["jobs"]["quick"]["strategy"]["matrix"]
    named = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    assert set(matrix["python-version"]) == named


def test_pre_commit_hooks_use_the_environment():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert all(repo["repo"] == "local" for repo in config["repos"])
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks)
