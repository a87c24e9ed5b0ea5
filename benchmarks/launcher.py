"""What the launcher costs and gains: a row alone against ``--jobs 1``, 8 demo rows in turn against ``--jobs 2``.

Run by hand: ``python benchmarks/launcher.py [--quick]``; quick rows take seconds and say little about the gain.
Targets: at most 5 % or 2 s a row; at least 1.3 times faster on two cores; ``--dry-run`` of 200 rows below 2 s.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_QUICK = ["--set", "max_train_examples=200", "--set", "max_steps=20", "--set", "warmup_steps=1"]
_ROWS = [str(number) for number in range(2, 10)]


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rows of a few steps")
    parser.add_argument("--repeats", type=int, default=3, help="runs of a row alone and launched, in turns")
    options = parser.parse_args()
    settings = _QUICK if options.quick else []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        print(f"{_dry_run(place):.2f} s  --dry-run of 200 rows", flush=True)
        # Row 1, which the others start from and learn from, is trained before anything is measured.
        _seconds(place, ["--exp-id", "2", *settings])
        shutil.rmtree(place / "runs" / "Demo" / "2")
        alone, launched = [], []
        for _ in range(options.repeats):
            for times, jobs in ((alone, []), (launched, ["--jobs", "1"])):
                times.append(_seconds(place, ["--exp-id", "2", *settings, *jobs]))
                shutil.rmtree(place / "runs" / "Demo" / "2")
        one, other = statistics.median(alone), statistics.median(launched)
        print(f"{other - one:+.2f} s, {100 * (other / one - 1):+.1f} %  a row of {one:.1f} s launched", flush=True)
        times = []
        for jobs in ([], ["--jobs", "2"]):
            times.append(_seconds(place, ["--exp-id", *_ROWS, *settings, *jobs]))
            for row in _ROWS:
                shutil.rmtree(place / "runs" / "Demo" / row)
        print(f"{times[0] / times[1]:.2f} ×  8 demo rows with --jobs 2 ({times[0]:.0f} s, {times[1]:.0f} s)")


def _seconds(place: Path, arguments: list[str]) -> float:
    start = time.perf_counter()
    script = str(_ROOT / "scripts" / "run_from_sheet.py")
    subprocess.run([sys.executable, script, *arguments], cwd=place, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _dry_run(place: Path) -> float:
    """Seconds of a ``--dry-run`` of a workbook of 200 rows, the median of three."""
    from openpyxl import load_workbook

    path = place / "sheet.xlsx"
    book = load_workbook(_ROOT / "hparams" / "hyperparameters.xlsx")
    for name in book.sheetnames:
        if name not in ("SQuAD", "Columns"):
            del book[name]
    sheet = book["SQuAD"]
    (heading,) = (cell.row for column in sheet.iter_cols(max_row=5) for cell in column if cell.value == "exp_id")
    columns = {str(cell.value): cell.column for cell in sheet[heading]}
    model = [cell.value for cell in sheet[heading + 3]]
    for number in range(200):
        for column, value in enumerate(model, start=1):
            sheet.cell(heading + 1 + number, column, value)
        sheet.cell(heading + 1 + number, columns["exp_id"], 1000 + number)
        for reference in ("teacher_type", "teacher_name_or_path"):
            sheet.cell(heading + 1 + number, columns[reference]).value = None
    book.save(path)
    words = ["--workbook", str(path), "--sheet", "SQuAD", "--exp-id", "1000-1199", "--dry-run"]
    return statistics.median(_seconds(place, words) for _ in range(3))


if __name__ == "__main__":
    main()
