"""How fast the sheet commands answer: medians of whole processes, in seconds. Target: below 1.

Run by hand: ``python benchmarks/sheet_commands.py [repeats]``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_COMMANDS = (["--list"], ["--check"], ["--exp-id", "12", "14-18", "--dry-run"])
_PUBLISHED = _ROOT.parent / "shared" / "sheets" / "original-hyperparameters.xlsx"


def main() -> None:
    """Print one line per command."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    commands = [*_COMMANDS]
    if _PUBLISHED.is_file():
        commands.append(["--workbook", str(_PUBLISHED), "--sheet", "Details - SQuAD", "--list"])
    for command in commands:
        print(f"{statistics.median(_seconds(command) for _ in range(repeats)):.2f} s  {' '.join(command)}")


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    script = str(_ROOT / "scripts" / "run_from_sheet.py")
    subprocess.run([sys.executable, script, *command], cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
