"""Every figure of pruning and quantization without training that has a target, and Fisher against STAT on every task.

    python benchmarks/posttraining.py [--shared ../shared] [--qnli MODEL DATA] [--opt MODEL] [--log FILE]

Runs stat.py for each task, stat_memory.py and gptq.py one after the other (hours), and ends with one table over tasks.
With --log, what an earlier run has measured is not measured again. QNLI and WikiText-2 need checkpoints that the
project trains itself (docs/posttraining.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

#: Tables of these methods are put side by side.
COMPARED = ("fisher", "default")
#: Fisher pruning has no language models.
PLAIN = ("--methods", "exact", "default")
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Measure everything, and print the table over tasks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    parser.add_argument("--qnli", nargs=2, metavar=("MODEL", "DATA"))
    parser.add_argument("--opt", metavar="MODEL", help="a causal language model for WikiText-2")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = options.log or str(Path(folder) / "log.jsonl")
        for command in commands(options, log):
            print("\n$ python " + " ".join(command), flush=True)
            subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=True, cwd=HERE)
        print_tasks(Path(log))


def commands(options: argparse.Namespace, log: str) -> list[list[str]]:
    """Script and arguments of each measurement."""
    models, data = options.shared / "models", options.shared / "data"
    logged = ["--threads", options.threads, "--log", log]
    texts = ["--model", options.opt, "--data", f"{data}/wikitext2"] if options.opt else []

    def stat(task: str, model: str, of: str, *more: str) -> list[str]:
        return ["stat.py", "--task", task, "--model", model, "--data", of, *more, *logged]

    found = [
        stat("sst2", f"{models}/minilm-sst2", f"{data}/sst2"),
        stat("squad", f"{models}/minilm-squad", f"{data}/squad", "--max-seq-length", "256", "--doc-stride", "96"),
    ]
    if options.qnli:
        found.append(stat("qnli", *options.qnli))
    if options.opt:
        found.append(["stat.py", "--task", "wikitext2", *texts, "--samples", "128", *PLAIN, *logged])
    return [
        *found,
        ["stat_memory.py", "--samples", "512", "2048"],
        ["gptq.py", *texts, "--threads", options.threads],
    ]


def print_tasks(log: Path) -> None:
    """Score and divergence of Fisher pruning and of STAT at equal budgets, means over the seeds that both have."""
    seeds: dict[tuple[str, float, str], dict[int, dict[str, float]]] = defaultdict(dict)
    for line in log.read_text(encoding="utf-8").splitlines():
        measured = json.loads(line)
        cell = measured["cell"]
        seeds[cell["task"], cell["budget"], cell["method"]][cell["seed"]] = measured["found"]
    print("\n| task | MACs kept | " + " | ".join(f"{name}: score · KL" for name in COMPARED) + " |")
    print("|---|---|" + "---:|" * len(COMPARED))
    for task, budget in sorted({(task, -budget) for task, budget, _ in seeds}):
        columns = [seeds.get((task, -budget, name), {}) for name in COMPARED]
        shared = set.intersection(*(set(column) for column in columns))
        if not shared:
            continue
        told = [
            " · ".join(
                f"{statistics.fmean(column[seed][key] for seed in shared):.{digits}f}"
                for key, digits in (("metric", 2), ("kl", 4))
            )
            for column in columns
        ]
        print(f"| {task} | {-budget} | " + " | ".join(told) + " |")


if __name__ == "__main__":
    main()
