"""One constant, one place: names of a run's files and the prefix of rows stand in `splora.run_files` alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from splora import run_files
from splora.run_files import reference

FOLDERS = ("splora", "callbacks", "hparams", "scripts")
NAMES = {*run_files.FILES, *run_files.MARKS, run_files.FIT_CONFIGURATION, run_files.REFERENCE}


def _texts(root: Path) -> Iterator[tuple[str, str]]:
    for path in (path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if any(name in source for name in NAMES):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield str(path.relative_to(root)), node.value


def test_no_second_copy(root: Path) -> None:
    there = {(path, text) for path, text in _texts(root) if text in NAMES}
    assert {path for path, _ in there} == {"splora/run_files.py"}
    assert {text for _, text in there} == NAMES


@pytest.mark.parametrize(("source", "exp_id"), [("run:63", "63"), ("run:", ""), ("bert-base", None), (None, None)])
def test_a_reference_names_a_row(source: str | None, exp_id: str | None) -> None:
    assert reference(source) == exp_id
