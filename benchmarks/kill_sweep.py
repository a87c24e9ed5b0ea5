"""A sweep of 8 rows whose workers and drivers are killed at random moments ends like one that nobody disturbed.

Run by hand: ``python benchmarks/kill_sweep.py [--kills 20] [--seed 0] [--steps 1000]``. Each kill is ``kill -9`` of the
driver or of one worker; whenever the driver is gone, the same command is given again. At the end all rows must be
finished, with the scores of the quiet sweep, without half-written files. Exit status 0 says that they are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_ROWS = range(2, 10)


def main() -> int:
    """Run both sweeps and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=len(_ROWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000, help="of every row; more leave more time to kill")
    parser.add_argument("--wait", type=float, nargs=2, default=(1.0, 20.0), help="seconds between two kills")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    rows = list(_ROWS)[: options.rows]
    with tempfile.TemporaryDirectory() as name:
        quiet, killed = Path(name, "quiet"), Path(name, "killed")
        for place in (quiet, killed):
            place.mkdir()
        process = _start(quiet, rows, options.steps)
        if process.wait() != 0:
            print("the quiet sweep failed")
            return 1
        print("the quiet sweep is done", flush=True)
        kills = _disturb(killed, rows, options, chance)
        for _ in range(3):
            status = _start(killed, rows, options.steps).wait()
            if status == 0:
                break
        same = [row for row in rows if _scores(quiet, row) == _scores(killed, row) is not None]
        for row in sorted({*rows} - {*same}):
            state = _read(killed / "runs" / "Demo" / str(row) / "state.json")
            told = f"{state.get('state')} ({state.get('reason')})"
            print(f"EXP ID {row}: {told}, {_scores(killed, row)} instead of {_scores(quiet, row)}")
        half = [path for ending in ("tmp", "old") for path in killed.rglob(f".*.{ending}")]
        print(f"{sum(kills.values())} kills ({kills['driver']} drivers, {kills['worker']} workers)")
        print(f"{len(same)} of {len(rows)} rows finished with the quiet sweep's scores; {len(half)} half files")
        enough = sum(kills.values()) == options.kills
        if not enough:
            print(f"the sweep was over before {options.kills} kills; raise --steps")
        return int(status != 0 or len(same) < len(rows) or bool(half) or not enough)


def _disturb(place: Path, rows: list[int], options: argparse.Namespace, chance: random.Random) -> dict[str, int]:
    kills = {"driver": 0, "worker": 0}
    process = _start(place, rows, options.steps)
    while sum(kills.values()) < options.kills:
        try:
            # Soon, or after a while in which rows come further.
            process.wait(chance.uniform(*options.wait))
        except subprocess.TimeoutExpired:
            victims = _workers(place)
            if victims and chance.random() < 0.5:
                os.kill(chance.choice(victims), signal.SIGKILL)
                kills["worker"] += 1
            else:
                process.kill()
                process.wait()
                kills["driver"] += 1
                process = _start(place, rows, options.steps)
            print(f"kill {sum(kills.values())}: {_counts(place)}", flush=True)
        else:
            if process.returncode == 0:
                break
            process = _start(place, rows, options.steps)
    if process.poll() is None:
        process.wait()
    return kills


def _start(place: Path, rows: list[int], steps: int) -> subprocess.Popen[bytes]:
    settings = {"max_steps": steps, "max_train_examples": 1000, "per_gpu_train_batch_size": 4, "warmup_steps": 10}
    settings |= {"checkpoint_every_n_steps": 20, "schedule_total_steps": steps}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    script = str(_ROOT / "scripts" / "run_from_sheet.py")
    command = [sys.executable, script, "--exp-id", *map(str, rows), "--jobs", "2", *words]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL)


def _workers(place: Path) -> list[int]:
    states = [_read(path) for path in place.glob("runs/Demo/*/state.json")]
    alive = [int(state["pid"]) for state in states if state.get("state") == "running"]
    return [pid for pid in alive if _is_worker(pid, place)]


def _is_worker(pid: int, place: Path) -> bool:
    """A process id in a file may belong to somebody else by now: only this sweep's own processes are killed."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"splora.launch." in command and Path(f"/proc/{pid}/cwd").resolve() == place.resolve()
    except OSError:
        return False


def _counts(place: Path) -> str:
    states = [str(_read(path).get("state")) for path in place.glob("runs/Demo/*/state.json")]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def _scores(place: Path, row: int) -> Any:
    return _read(place / "runs" / "Demo" / str(row) / "result.json").get("metrics")


def _read(path: Path) -> dict[str, Any]:
    # A file that is there is whole: this is what is tested.
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
