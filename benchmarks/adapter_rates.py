"""What an adapter needs to learn: row 2 of the demo with one setting changed at a time, beside plain fine-pruning.

python benchmarks/adapter_rates.py --seeds 92 93 --output-dir runs/adapter_rates

Prints the table of docs/results.md. Runs that are finished in the folder are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import warnings
from pathlib import Path
from typing import Any

from splora.hparams.workbook import OWN, read_workbook
from splora.quiet import quiet_libraries
from splora.training.preflight import with_resolved
from splora.training.run import run
from splora.training.specification import RunSpecification

_SLOW: dict[str, Any] = {"learning_rate": 3e-5, "position_weights_learning_rate": 3e-5}
_FAST: dict[str, Any] = {"learning_rate": 1e-3, "position_weights_learning_rate": 1e-3}
#: What is told of a variant → what it changes in row 2.
VARIANTS: dict[str, dict[str, Any]] = {
    "published range and rates: range 1e-4, all rates 3e-5, scores 1e-2": {"splopa_init_range": 1e-4} | _SLOW,
    "range 1e-4, rates 1e-3": {"splopa_init_range": 1e-4} | _FAST,
    "range 0.02, all rates 3e-5": _SLOW,
    "row 2: range 0.02, rates 1e-3, position weights 2e-3": {},
    "row 2, range 0.1": {"splopa_init_range": 0.1},
    "row 2, position weights 5e-3": {"position_weights_learning_rate": 5e-3},
    "row 2, scores 1e-1": {"mask_scores_learning_rate": 1e-1},
    "row 2, scores 1e-3": {"mask_scores_learning_rate": 1e-3},
    "row 2, 64 prototypes": {"num_splopa_prototypes": 64},
    "row 2, without distillation": {"teacher_name_or_path": None, "teacher_type": None},
    "row 2, without warm-up and cool-down of the threshold": {"initial_warmup": 0.0, "final_warmup": 0.0},
    "plain fine-pruning, rate 1e-3": {"adapter": "none"},
    "plain fine-pruning, rate 2e-4": {"adapter": "none", "learning_rate": 2e-4},
}


def measure(spec: RunSpecification, folder: Path) -> dict[str, Any]:
    """The result of a run, which is made unless it is there."""
    run(spec, folder)
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[92])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/adapter_rates"))
    options = parser.parse_args()
    quiet_libraries()
    warnings.simplefilter("ignore")
    rows = {row.spec.exp_id: row.spec for row in read_workbook(OWN).rows}
    dense = measure(rows[1], options.output_dir / "dense")
    print(f"dense: {dense['metrics']['f1']:.1f} F1\n\n| change | F1 | learned % |\n|---|---:|---:|", flush=True)
    model = {"1": str(options.output_dir / "dense" / "model")}
    for number, (told, changes) in enumerate(VARIANTS.items()):
        results = [
            measure(
                dataclasses.replace(with_resolved(rows[2], model), seed=seed, **changes),
                options.output_dir / f"{number}-{seed}",
            )
            for seed in options.seeds
        ]
        scores = [result["metrics"]["f1"] for result in results]
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        learned = results[0]["learned_weights_percent"]
        print(f"| {told} | {statistics.mean(scores):.1f}{spread} | {learned:.1f} |", flush=True)


if __name__ == "__main__":
    main()
