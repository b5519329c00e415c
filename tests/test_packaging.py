"""One set of versions, in every place that names them."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ntps_utils
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M)
}


def test_lock_pins_every_requirement_within_its_range():
    lines = PROJECT["dependencies"] + [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
    for requirement in map(Requirement, lines):
        assert LOCK[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)
    assert str(LOCK["torch"]) == "2.13.0"


def test_lock_holds_nothing_but_exact_versions():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(LOCK)


def test_the_running_environment_is_the_locked_one():
    from importlib.metadata import version

    for name in ("numpy", "scipy", "torch", "transformers", "jupyter-book"):
        assert version(name).split("+")[0] == str(LOCK[name]), name


def test_conda_environment_takes_python_from_conda_and_the_rest_from_the_lock():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = (d for d in dependencies if isinstance(d, str) and d.startswith("python="))
    assert Requirement(python.replace("=", "==")).specifier.contains("3.11")
    assert PROJECT["requires-python"] == ">=3.11"
    (pip,) = (d["pip"] for d in dependencies if isinstance(d, dict))
    assert pip == ["-r requirements.lock", "-e ."]


def test_citation_and_version_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ntps_utils.__version__
    assert "2505.17169" in str(citation["references"])


def test_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"make ([a-z]+)", text):
        assert target in targets, target


def test_nothing_of_this_machine_is_committed():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    here = f"{ROOT.parent}/"
    found = subprocess.run(["git", "grep", "-lF", here], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_every_data_file_goes_into_the_wheel():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, patterns in setup["package-data"].items():
        folder = ROOT.joinpath(*package.split("."))
        packed = {p for pattern in patterns for p in folder.glob(pattern) if p.is_file()}
        there = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
        assert packed == there, package
    modules = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "ntps_utils").rglob("*.py")}
    assert modules == set(setup["packages"])


def test_the_workflow_and_the_container_run_the_readmes_commands():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "run" in step]
    assert commands[:3] == ["make lint", "make book", "make test"]
    assert commands[3].startswith("make pdf && ")
    assert workflow["jobs"]["publish"]["needs"] == "build"
    assert "RUN make book" in (ROOT / "Dockerfile").read_text()
    assert json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["postCreateCommand"] == "make env"
