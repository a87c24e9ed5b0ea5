"""Folders of runs as the training and the pruning leave them, made up for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VERSIONS = {"python": "3.11.7", "splora": "0.1.0", "torch": "2.13.0"}


def write(path: Path, value: Any) -> None:
    """A JSON file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def spec_of(exp_id: int | str, **changes: Any) -> dict[str, Any]:
    """A specification."""
    known = {"exp_id": exp_id, "sheet": "SQuAD", "model": f"row {exp_id}", "task": "squad", "seed": 92}
    return known | {"pruning_method": "topK", "adapter": "splopa", "learning_rate": 0.0005} | changes


def training_run(folder: Path, exp_id: int | str, points: int = 30, **changes: Any) -> Path:
    """A finished run: `changes` are of its result."""
    result = {
        "exp_id": exp_id,
        "sheet": "SQuAD",
        "method": "topK",
        "adapter": "splopa",
        "task": "squad",
        "seed": 92,
        "reported": {"f1": 71.5, "density": 50.0},
        "metrics": {"f1": 70.125, "exact_match": 60.0},
        "remaining_weights_percent": 50.0,
        "learned_weights_percent": 3.25,
        "adapter_bytes": 2**20,
        "steps": 10 * points,
        "seconds": 90,
        "peak_memory_bytes": 2**30,
        "versions": VERSIONS,
        "settings": {
            "model": {"model_name_or_path": "base", "pruning": {"attention_block": [6, 6], "ffn_block": [4, 6]}},
            "data": {"train_file": "train.json", "predict_file": "dev.json"},
            "trainer": {
                "accelerator": "CPUAccelerator",
                "devices": 1,
                "nodes": 1,
                "precision": "32-true",
                "threads": 2,
            },
        },
    }
    write(folder / "result.json", result | changes)
    known = {"pruning_method": changes.get("method", "topK"), "adapter": changes.get("adapter", "splopa")}
    write(folder / "spec.json", spec_of(exp_id, **known))
    lines = ["step,density,lambda,loss,threshold,val/f1"]
    lines += [f"{10 * n + 9},{1 - n / 2 / points},0.0,{5 / (n + 1)},{1 - n / 2 / points}," for n in range(points)]
    (folder / "metrics.csv").write_text("\n".join([*lines, f"{10 * points},,,,,70.125"]) + "\n", encoding="utf-8")
    return folder


def pruning(folder: Path, budget: float, score: float, latency: float, **changes: Any) -> Path:
    """What `splora prune` leaves."""
    result = {
        "method": "fisher",
        "model": "models/minilm-sst2",
        "task": "sst2",
        "metric": "accuracy",
        "dense": 90.0,
        "pruned": score,
        "stages": {"search": score - 2, "rescale": score},
        "macs_kept": budget,
        "parameters": {"dense": 22_000_000, "pruned": 17_000_000},
        "latency_ms": {"dense": 100.0, "pruned": latency, "batch_size": 32, "tokens": 128},
        "seconds": 13.0,
        "samples": 2048,
        "seed": 3,
        "precision": "bf16",
        "device": "cpu",
        "threads": 2,
        "versions": VERSIONS,
        "settings": {
            "method": "fisher",
            "model": "models/minilm-sst2",
            "task": "sst2",
            "data": "data/sst 2",
            "budget": f"mac={budget:g}",
            "samples": 2048,
            "seed": 3,
            "tokens": None,
            "max_seq_length": None,
            "doc_stride": 128,
            "precision": "bf16",
            "device": "auto",
            "tables": None,
            "columns": {"label": "gold"},
            "gradient_batch_size": 0,
            "labels": "model",
            "teacher": "dense",
            "damping": 1.0,
            "storage": "fp32",
        },
    }
    write(folder / "result.json", result | changes)
    layer = {"heads_kept": 2, "heads_of": 4, "neurons_kept": 30, "neurons_of": 40, "heads": [0, 3], "neurons": []}
    write(folder / "plan.json", {"layers": [layer, layer | {"heads": [], "heads_kept": 0}]})
    return folder
