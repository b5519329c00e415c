"""Gather what the attacks found into ``book/attacks.json``, for the page "What we tried to break".

    python -m tests.attacks

reads what ``make faults``, ``make fuzz``, ``make mutate`` and ``make reproduce`` left in ``runs`` and
``mutants``; an attack that was not run anew keeps its row.
"""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from ntps_utils._utils.files import atomic_path
from tests.conftest import ROOT
from tests.test_bad_input import CASES

TARGET = ROOT / "book" / "attacks.json"


def _day(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d")


def bad_input() -> dict[str, str]:
    """The table of cases; that each ends in one line is what the tests say."""
    return {
        "attack": "bad input on the command line",
        "result": f"{len(CASES)} cases, each refused in one line",
        "command": "pytest tests/test_bad_input.py",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def faults() -> list[dict[str, str]]:
    """One row for each kind of work that was killed."""
    path = ROOT / "runs" / "faults.json"
    if not path.is_file():
        return []
    facts = json.loads(path.read_text("utf-8"))
    return [
        {
            "attack": f"{name}, killed at random moments",
            "result": f"{one['kills']} times SIGKILL, {one['interrupts']} SIGINT, {one['finished']} runs finished in "
            f"spite of it; files not whole: {one['corrupt']}, results that differ: {one['different']}",
            "command": "make faults",
            "date": facts["date"][:10],
        }
        for name, one in facts["found"].items()
    ]


def mutation() -> list[dict[str, str]]:
    """One row for each module that was mutated."""
    if not (ROOT / "mutants").is_dir():
        return []
    command = [str(ROOT / "_build/mutate/bin/python"), "-m", "mutmut", "results", "--all", "true"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    counts: dict[str, Counter[str]] = {}
    for module, state in re.findall(r"^\s*ntps_utils\.(\w+)\.\S+: (.+)$", said, re.M):
        counts.setdefault(module, Counter())[state.strip()] += 1
    rows = []
    for module, states in sorted(counts.items()):
        caught = states["killed"] + states["timeout"] + states["segfault"]
        total = sum(states.values())
        rows.append(
            {
                "attack": f"mutants of `{module}`",
                "result": f"{caught} of {total} caught ({caught / total:.0%})",
                "command": "make mutate",
                "date": _day(ROOT / "mutants"),
            }
        )
    return rows


def fuzz() -> list[dict[str, str]]:
    """The properties that were tried on 10,000 problems each."""
    path = ROOT / "runs" / "fuzz.xml"
    if not path.is_file():
        return []
    suite = next(ElementTree.parse(path).getroot().iter("testsuite"))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    n = int(suite.get("tests", 0)) - int(suite.get("skipped", 0))
    return [
        {
            "attack": "closed forms, moments, scores and bounds on random problems",
            "result": f"{n} statements on 10,000 problems each; violated: {failed}",
            "command": "make fuzz",
            "date": _day(path),
        }
    ]


def reproduce() -> list[dict[str, str]]:
    """All chapters executed anew."""
    path = ROOT / "runs" / "reproduce.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text("utf-8")).values()
    values, different = (sum(one[what] for one in found) for what in ("values", "different"))
    return [
        {
            "attack": "all chapters executed again",
            "result": f"{values} values in the prose; different: {different}",
            "command": "make reproduce",
            "date": _day(path),
        }
    ]


def main() -> None:
    """Write the file."""
    old = json.loads(TARGET.read_text("utf-8")) if TARGET.is_file() else []
    new = [bad_input(), *faults(), *fuzz(), *mutation(), *reproduce()]
    names = [row["attack"] for row in new]
    rows = new + [row for row in old if row["attack"] not in names]
    with atomic_path(TARGET) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    for row in rows:
        print(f"{row['attack']}: {row['result']}")


if __name__ == "__main__":
    main()
