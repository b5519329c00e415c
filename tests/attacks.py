"""Collect the results of the robustness tests in ``book/attacks.json``, for the page "What we tried to break".

    python -m tests.attacks

reads what ``make faults``, ``make fuzz``, ``make mutate`` and ``make reproduce`` wrote to ``runs`` and
``mutants``. The row of a test that has not been run again stays as it is.
"""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from ntps_utils._utils.files import write_json
from tests.conftest import ROOT
from tests.test_bad_input import CASES, refusals
from tests.test_families import REFUSED, SUPPORTED, WITHOUT_LORA
from tests.test_field import UNSUPPORTED

TARGET = ROOT / "book" / "attacks.json"


def _day(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d")


def bad_input() -> dict[str, str]:
    """Return the row of the invalid inputs; the tests check that each gives an error of one line."""
    return {
        "attack": "invalid input on the command line",
        "result": f"{len(CASES) + len(refusals())} cases, each with an error message that names what is invalid",
        "command": "pytest tests/test_bad_input.py",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def architectures() -> dict[str, str]:
    """Return the row of the model folders; the tests check each."""
    scored, refused = len(SUPPORTED) + len(WITHOUT_LORA), len(REFUSED) + len(UNSUPPORTED)
    return {
        "attack": "folders of models of many architectures",
        "result": f"{scored + refused} kinds: {scored} scored, {len(SUPPORTED)} of them also finetuned, and {refused} "
        "refused by name",
        "command": "pytest tests/test_families.py tests/test_field.py",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def faults() -> list[dict[str, str]]:
    """Return one row for each kind of work that was killed."""
    path = ROOT / "runs" / "faults.json"
    if not path.is_file():
        return []
    facts = json.loads(path.read_text("utf-8"))
    return [
        {
            "attack": f"{name}, killed at random moments",
            "result": f"{count['kills']} SIGKILL, {count['interrupts']} SIGINT, {count['finished']} completed runs; "
            f"corrupt files: {count['corrupt']}, different results: {count['different']}",
            "command": "make faults",
            "date": facts["date"][:10],
        }
        for name, count in facts["counts"].items()
    ]


def mutation() -> list[dict[str, str]]:
    """Return one row for each module that was mutated."""
    if not (ROOT / "mutants").is_dir():
        return []
    command = [str(ROOT / "_build/mutate/bin/python"), "-m", "mutmut", "results", "--all", "true"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    counts: dict[str, Counter[str]] = {}
    for module, state in re.findall(r"^\s*ntps_utils\.([\w.]+)\.[^\s.]+: (.+)$", output, re.M):
        counts.setdefault(module, Counter())[state.strip()] += 1
    rows = []
    for module, states in sorted(counts.items()):
        detected = states["killed"] + states["timeout"] + states["segfault"]
        waiting = states["not checked"]  # the run was stopped before them
        tried = sum(states.values()) - waiting
        if not tried:
            continue
        rest = f"; {waiting} more were not tried" if waiting else ""
        rows.append(
            {
                "attack": f"mutants of `{module}`",
                "result": f"{detected} of {tried} detected ({detected / tried:.0%}){rest}",
                "command": "make mutate",
                "date": _day(ROOT / "mutants"),
            }
        )
    return rows


def fuzz() -> list[dict[str, str]]:
    """Return the row of the property tests with 10,000 examples each."""
    path = ROOT / "runs" / "fuzz.xml"
    if not path.is_file():
        return []
    suite = next(ElementTree.parse(path).getroot().iter("testsuite"))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    n = int(suite.get("tests", 0)) - int(suite.get("skipped", 0))
    return [
        {
            "attack": "closed forms, moments, scores and bounds on random problems",
            "result": f"{n} properties, 10,000 problems each; violated: {failed}",
            "command": "make fuzz",
            "date": _day(path),
        }
    ]


def reproduce() -> list[dict[str, str]]:
    """Return the row of the repeated execution of all chapters."""
    path = ROOT / "runs" / "reproduce.json"
    if not path.is_file():
        return []
    summary = json.loads(path.read_text("utf-8")).values()
    values, different = (sum(chapter[key] for chapter in summary) for key in ("values", "different"))
    return [
        {
            "attack": "all chapters executed again",
            "result": f"{values} values in the prose; different: {different}",
            "command": "make reproduce",
            "date": _day(path),
        }
    ]


def main() -> None:
    """Write ``book/attacks.json``."""
    old = json.loads(TARGET.read_text("utf-8")) if TARGET.is_file() else []
    new = [bad_input(), architectures(), *faults(), *fuzz(), *mutation(), *reproduce()]
    names = [row["attack"] for row in new]
    rows = new + [row for row in old if row["attack"] not in names]
    write_json(TARGET, rows)
    for row in rows:
        print(f"{row['attack']}: {row['result']}")


if __name__ == "__main__":
    main()
