"""The manifests of tests/conformance: which cases do not pass, and why.

A line is `STATUS PATTERN REASON...`; `#` starts a comment. STATUS is `unsupported` (fcc says so itself) or `failed`
(a known difference), with `@jit` or `@interpreter` behind it where only that engine is meant. PATTERN may hold `*`.
The manifest is exact: a case that it does not name must pass, and a case that it names must not.
"""

from __future__ import annotations

import fnmatch
import sys
from dataclasses import dataclass, field
from pathlib import Path

STATUSES = ("unsupported", "failed")
ENGINES = ("interpreter", "jit")


@dataclass
class Entry:
    """One line of a manifest."""

    line: int
    status: str
    engine: str | None
    pattern: str
    reason: str
    used: set[str] = field(default_factory=set)

    def covers(self, name: str, engine: str) -> bool:
        return self.engine in (None, engine) and fnmatch.fnmatchcase(name, self.pattern)


@dataclass
class Manifest:
    """All lines of one file."""

    path: Path
    entries: list[Entry]

    @staticmethod
    def read(path: Path) -> Manifest:
        entries = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            parts = line.split(None, 2)
            status, _, engine = parts[0].partition("@")
            if len(parts) < 3 or status not in STATUSES or engine not in ("", *ENGINES):
                sys.exit(f"{path}:{number}: wanted `STATUS[@ENGINE] PATTERN REASON`, got `{line}`")
            entries.append(Entry(number, status, engine or None, parts[1], parts[2]))
        return Manifest(path, entries)

    def check(self, engine: str, results: dict[str, tuple[str, str]]) -> list[str]:
        """What is not as the manifest says; results are {case: (status, reason)}."""
        problems = []
        for name, (status, reason) in sorted(results.items()):
            entry = next((entry for entry in self.entries if entry.covers(name, engine)), None)
            if entry is not None:
                entry.used.add(engine)
            if status == "passed" and entry is not None:
                problems.append(f"{name}: passes in {engine}, but {self.path.name}:{entry.line} says `{entry.reason}`")
            elif status != "passed" and entry is None:
                problems.append(f"{name}: {status} in {engine}: {reason}")
            elif status != "passed" and entry.status != status:
                problems.append(f"{name}: {status} in {engine} ({reason}), the manifest says {entry.status}")
        return problems

    def unused(self, engines: list[str]) -> list[str]:
        """Lines that name nothing any more."""
        return [
            f"{self.path.name}:{entry.line}: `{entry.pattern}` names no case"
            for entry in self.entries
            if not entry.used and (entry.engine is None or entry.engine in engines)
        ]
