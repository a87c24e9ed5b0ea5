"""`metrics.csv` of a run, which survives a kill: a resumed run continues the file of the first one."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from splora.files import replacing, write_text
from splora.run_files import METRICS


class ResumableCSVLogger(Logger):
    """One row per logged step. Rows of steps that are run again after a resumption are replaced.

    Args:
        save_dir: folder of the run; the file is ``metrics.csv`` in it.
        flush_every: rows between two writes of the file (it is also written at the end and on save).
    """

    def __init__(self, save_dir: str, flush_every: int = 50) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._flush_every = flush_every
        self._rows: list[dict[str, Any]] | None = None
        self._unwritten = 0
        self._is_urgent = False

    @property
    def name(self) -> str:
        """Name of the experiment: that of its folder."""
        return self._folder.name

    @property
    def version(self) -> str:
        """A run has one version."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return str(self._folder)

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / METRICS

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Settings are kept in spec.json and config.yaml, not here."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row; the first row of this process drops what an earlier one logged from that step on."""
        now = 0 if step is None else int(step)
        if self._rows is None:
            self._rows = [row for row in self._read() if int(row["step"]) < now]
        self._put({"step": now, **{name: float(value) for name, value in metrics.items()}})
        self._unwritten += 1
        if self._unwritten >= self._flush_every or self._is_urgent:
            self._is_urgent = False
            self.save()

    @rank_zero_only
    def go_on(self, step: int, metrics: dict[str, float] | None) -> None:
        """Go on from the checkpoint of a step: later rows are dropped, and the row of that step is there.

        Args:
            metrics: that row, which a kill between checkpoint and row would have lost; None: the step logs none.
        """
        self._rows = [row for row in self._read() if int(row["step"]) <= step]
        if metrics is not None:
            self._put({"step": step, **metrics})
        self._unwritten += 1
        self.save()

    def _put(self, row: dict[str, Any]) -> None:
        """Add a row, in the place of one of the same step that tells of the same (an evaluation that is run again)."""
        assert self._rows is not None
        for place in range(len(self._rows) - 1, -1, -1):
            if int(self._rows[place]["step"]) < row["step"]:
                break
            if self._rows[place].keys() == row.keys():
                self._rows[place] = row
                return
        self._rows.append(row)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """The row of a step comes after the checkpoint of that step; a run that goes on from there logs it no more."""
        self._is_urgent = True

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        if not self._rows or not self._unwritten:
            return
        names = ["step", *sorted({name for row in self._rows for name in row} - {"step"})]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.path, text.getvalue())
        self._unwritten = 0

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        lines = [line for line in _text(self.path.read_bytes()).splitlines() if line.strip()]
        separator = next((mark for mark in ";\t" if lines and mark in lines[0] and "," not in lines[0]), ",")
        names = _cells(lines[0], separator) if lines else []
        rows = [row for line in lines[1:] if (row := _row(names, _cells(line, separator))) is not None]
        if (lost := max(0, len(lines) - 1) - len(rows)) > 0:
            kept = self.path.with_name(f"{self.path.stem}.damaged.csv")
            with replacing(kept) as beside:  # never through a link
                shutil.copyfile(self.path, beside)
            told = f"{lost} damaged lines are left out; as it was, it is {kept}"
            print(f"warning: {self.path}: {told}", file=sys.stderr, flush=True)
        return rows


def _text(content: bytes) -> str:
    """A file as this program or Excel ("CSV UTF-8", "Unicode text") writes it."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "replace")


def _cells(line: str, separator: str) -> list[str]:
    """The cells of a line; where they are not parted by commas, numbers may have one instead of a point."""
    try:
        cells = next(csv.reader([line], strict=True, delimiter=separator), [])
    except csv.Error:
        return []
    return cells if separator == "," else [cell.replace(",", ".") for cell in cells]


def _row(names: list[str], cells: list[str]) -> dict[str, Any] | None:
    """A line's numbers by name; None where it is damaged."""
    if "step" not in names or len(names) != len(cells):
        return None
    row = {name: value for name, value in zip(names, cells, strict=True) if value}
    try:
        int(row["step"])
        for value in row.values():
            float(value)
    except (KeyError, ValueError):
        return None
    return row
