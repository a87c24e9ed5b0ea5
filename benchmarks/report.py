"""The report of 500 runs with 1,000 logged points each: seconds and bytes. Target: below 10 s and 5 MB.

The runs are made up: seven methods with and without an adapter, scores beside reported ones, curves with noise, and
adapters with the masks of a BERT-base in blocks of 32 × 32. Making them is not counted; `splora report` is timed as a
whole process, start included. Run by hand::

    python benchmarks/report.py [--runs 500] [--points 1000] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splora.errors import exit_on_input_error

METHODS = ("none", "magnitude", "topK", "topK_global", "threshold", "sigmoied_threshold", "l0")
LAYERS, HIDDEN, NEURONS, SIDE = 12, 768, 3072, 32
SIZES = {
    "attention.self.query": (HIDDEN, HIDDEN),
    "attention.self.key": (HIDDEN, HIDDEN),
    "attention.self.value": (HIDDEN, HIDDEN),
    "attention.output.dense": (HIDDEN, HIDDEN),
    "intermediate.dense": (NEURONS, HIDDEN),
    "output.dense": (HIDDEN, NEURONS),
}
VERSIONS = {"python": "3.11.7", "splora": "0.1.0", "torch": "2.13.0", "lightning": "2.6.6", "transformers": "5.23.0"}


def main() -> None:
    """Make the runs, make the report, print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--keep", metavar="FOLDER", help="make the runs here and leave them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary)
        generator = np.random.default_rng(0)
        write_base(folder / "base")
        for number in range(1, options.runs + 1):
            write_run(folder / "runs" / "SQuAD" / str(number), number, options.points, generator, folder / "base")
        output = folder / "report.html"
        start = time.perf_counter()
        command = [sys.executable, "-m", "splora.scripts.cli", "report", str(folder / "runs"), "--output", str(output)]
        subprocess.run(command, check=True, cwd=Path(__file__).resolve().parents[1])
        seconds, size = time.perf_counter() - start, output.stat().st_size
    print(
        f"{options.runs} runs of {options.points} points: {seconds:.1f} s (target 10), {size / 1e6:.2f} MB (target 5)"
    )


def write_base(folder: Path) -> None:
    """The configuration of the model that all adapters belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "bert", "hidden_size": HIDDEN, "num_attention_heads": 12}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_run(folder: Path, number: int, points: int, generator: np.random.Generator, base: Path) -> None:
    """A finished run as the training leaves it, without what the report does not read."""
    folder.mkdir(parents=True, exist_ok=True)
    method, adapter = METHODS[number % len(METHODS)], ("splopa", "none")[number // len(METHODS) % 2]
    density = 1.0 if method == "none" else float(generator.uniform(0.05, 0.95))
    f1 = 90 - 60 * (1 - density) ** 3 + float(generator.normal(0, 1))
    spec = {"exp_id": number, "sheet": "SQuAD", "model": f"made up, {method}", "task": "squad", "seed": 92}
    spec |= {"pruning_method": method, "adapter": adapter, "final_threshold": density, "learning_rate": 3e-4}
    pruning = {"attention_block": [SIDE, SIDE], "ffn_block": [SIDE, SIDE]}
    trainer = {"accelerator": "CUDAAccelerator", "devices": 1, "nodes": 1, "precision": "bf16-mixed", "threads": 8}
    data = {"train_file": "train.json", "predict_file": "dev.json"}
    result = {
        **{name: spec[name] for name in ("exp_id", "sheet", "task", "seed", "adapter")},
        "method": method,
        "reported": {"f1": 90 - 60 * (1 - density) ** 3, "density": 100 * density},
        "metrics": {"f1": f1, "exact_match": f1 - 8},
        "remaining_weights_percent": 100 * density,
        "learned_weights_percent": 6 * density if adapter == "splopa" else 100 + 20 * density,
        "adapter_bytes": int(4e6 * density),
        "steps": 10 * points,
        "seconds": 5000.0,
        "peak_memory_bytes": 9 * 2**30,
        "versions": VERSIONS,
        "settings": {
            "model": {"model_name_or_path": str(base), "pruning": pruning},
            "data": data,
            "trainer": trainer,
        },
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "config.yaml").write_text("{}\n", encoding="utf-8")
    write_log(folder / "metrics.csv", points, density, generator)
    if adapter == "splopa":
        write_adapter(folder / "adapter", density, generator)


def write_log(path: Path, points: int, density: float, generator: np.random.Generator) -> None:
    """Curves as the callbacks log them."""
    lines = ["step,density,epoch,lambda,learned_weights_percent,loss,threshold,train/distillation_loss,val/f1"]
    noise = generator.normal(0, 0.2, points)
    for number in range(points):
        share = number / points
        v = density + (1 - density) * (1 - share) ** 3
        loss = 3 * math.exp(-4 * share) + 0.5 + float(noise[number])
        kept = min(1.0, v + 0.002 * float(noise[number]))
        lines.append(f"{10 * number + 9},{kept!r},0.0,{40 * v!r},,{loss!r},{v!r},{loss / 2!r},")
    lines.append(f"{10 * points},,1.0,,3.0,,,,80.0")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_adapter(folder: Path, density: float, generator: np.random.Generator) -> None:
    """Masks with as many whole heads as real ones have, biases and norms; no position weights, which nobody reads."""
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {}
    blocks: dict[str, list[int]] = {}
    for layer in range(LAYERS):
        prefix = f"base_model.model.bert.encoder.layer.{layer}"
        tensors[f"{prefix}.output.LayerNorm.weight"] = np.ones(HIDDEN, np.float32)
        for name, (out, inner) in SIZES.items():
            rows, cols = out // SIDE, inner // SIDE
            mask = generator.random((rows, cols)) < density * generator.uniform(0, 2, (rows, 1))
            tensors[f"{prefix}.{name}.splopa_mask"] = np.packbits(mask.reshape(-1))
            tensors[f"{prefix}.{name}.splopa_bias"] = np.zeros(out, np.float32)
            blocks[f"bert.encoder.layer.{layer}.{name}"] = [SIDE, SIDE]
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"block_shapes": blocks}), encoding="utf-8")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
