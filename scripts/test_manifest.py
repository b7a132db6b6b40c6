"""Tests of manifest.py: `.cache/venv/bin/python scripts/test_manifest.py`."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from manifest import ENGINES, Manifest


def manifest(*lines: str) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Manifest.read(path)


class ManifestTest(unittest.TestCase):
    def test_what_is_as_listed_is_no_problem(self):
        listed = manifest("# comment", "", "failed test_a* it draws", "unsupported@jit test_b no kernel")
        results = {"test_a1": ("failed", "1 is not 2"), "test_b": ("passed", "")}
        self.assertEqual(listed.check("interpreter", results), [])
        results["test_b"] = ("unsupported", "none")
        self.assertEqual(listed.check("jit", results), [])
        self.assertEqual(listed.unused(list(ENGINES)), [])

    def test_an_entry_whose_case_passes_is_a_problem(self):
        [problem] = manifest("failed test_a it draws").check("jit", {"test_a": ("passed", "")})
        self.assertIn("test_a: passes in jit", problem)

    def test_one_passing_case_of_a_pattern_is_a_problem(self):
        results = {"test_a1": ("failed", ""), "test_a2": ("passed", "")}
        self.assertEqual(len(manifest("failed test_a* it draws").check("jit", results)), 1)

    def test_an_entry_that_matches_nothing_is_a_problem(self):
        listed = manifest("failed test_gone it was there once", "failed@jit test_a it draws")
        listed.check("interpreter", {"test_a": ("passed", "")})
        listed.check("jit", {"test_a": ("failed", "")})
        [problem] = listed.unused(list(ENGINES))
        self.assertIn("`test_gone` names no case", problem)
        # an entry for an engine that did not run says nothing
        self.assertEqual(len(manifest("failed@jit test_a it draws").unused(["interpreter"])), 0)

    def test_an_entry_behind_one_that_covers_it_is_a_problem(self):
        listed = manifest("failed test_* all", "failed test_a one")
        listed.check("jit", {"test_a": ("failed", "")})
        self.assertIn("`test_a` names no case", listed.unused(["jit"])[0])

    def test_another_status_and_an_unlisted_case_are_problems(self):
        listed = manifest("failed test_a it draws")
        results = {"test_a": ("unsupported", "no"), "test_b": ("failed", "1 is not 2")}
        self.assertEqual(len(listed.check("jit", results)), 2)

    def test_a_line_without_a_reason_is_refused(self):
        for line in ("failed test_a", "passed test_a why", "failed@gpu test_a why"):
            with self.assertRaises(SystemExit):
                manifest(line)


if __name__ == "__main__":
    unittest.main()
