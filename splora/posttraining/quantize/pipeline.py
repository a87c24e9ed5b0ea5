"""A checkpoint becomes a quantized checkpoint: load, evaluate, calibrate, quantize, evaluate, save packed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from splora.errors import InputError
from splora.export.card import pruned_card, write_card
from splora.export.packing import WEIGHTS
from splora.export.plan import Plan
from splora.export.quantized import save_quantized
from splora.export.storage import dtype_of, is_held_by, name_of, weight_bytes
from splora.files import replacing_folder, write_json
from splora.machine import peak_memory_bytes
from splora.posttraining.core.compute import use_threads
from splora.posttraining.core.outcome import append_line, describe
from splora.posttraining.core.pruning import check_samples
from splora.posttraining.core.request import RESULT
from splora.posttraining.core.stages import Report, Stage, silent
from splora.posttraining.core.subject import Subject
from splora.posttraining.pipeline import predicted, predicted_dense, prepare
from splora.posttraining.quantize.grid import QuantizedWeight
from splora.posttraining.quantize.model import quantized_copy
from splora.posttraining.quantize.request import QuantizeRequest


def quantize(request: QuantizeRequest, report: Report = silent) -> dict[str, Any]:
    """Carry out a request and return its result, which is also written to `result.json`.

    Raises:
        InputError: something that the person gave does not work; nothing is written then.
    """
    with request.claimed():
        return _quantize(request, report)


def _quantize(request: QuantizeRequest, report: Report) -> dict[str, Any]:
    request.check()
    use_threads(request.threads)
    request.check_rows(request.model)
    subject = prepare(request, report)
    dtype = dtype_of("fp16" if request.options["half"] else request.dtype, request.model)
    asked = request.options["half"] or request.dtype != "auto"
    if asked and not is_held_by(subject.model, dtype):
        raise InputError(
            f"{request.model}: holds values that are too large for {name_of(dtype)}; "
            f"leave out {'--half' if request.options['half'] else '--dtype'}."
        )
    if request.method != "rtn":  # which looks at no samples
        check_samples(subject.model, subject.calibration)
    dense = predicted_dense(request.model, subject, report)

    begin = time.perf_counter()
    model, weights = quantized_copy(
        subject.model,
        list(subject.calibration),
        request.quantization(),
        dtype=dtype if asked else None,
        precision=subject.precision,
        report=report,
    )
    stage = Stage("quantize", model, Plan.dense(model), time.perf_counter() - begin)
    predictions = predicted("quantized", model, subject, report)

    result = describe(request, subject, dense, [(stage, predictions)])
    result["quantized"] = result["pruned"]
    result["bits_per_weight"] = _bits_per_weight(weights)
    result["peak_memory_bytes"] = peak_memory_bytes()
    result["dtype"] = name_of(dtype)
    _save(request, subject, model, weights, dtype, result)
    return result


def summary_line(result: dict[str, Any], output: Path) -> str:
    """The line of `output/opt/<model>.txt` or `output/<model>/<task>.txt`."""
    settings, sizes = result["settings"], result["bytes"]
    groups = "whole rows" if settings["group_size"] == -1 else f"groups of {settings['group_size']}"
    return (
        f"{result['task']} {result['method']} {settings['bits']} bits, {groups}, seed={result['seed']} "
        f"samples={result['samples']}: {result['metric']} {result['quantized']:.2f} (dense {result['dense']:.2f}), "
        f"KL {result['kl_divergence']['quantize']:.4f}, {sizes['quantized'] / 2**20:.2f} of "
        f"{sizes['dense'] / 2**20:.2f} MiB, {result['seconds']:.1f} s, {output}"
    )


def _save(
    request: QuantizeRequest,
    subject: Subject,
    model: nn.Module,
    weights: dict[str, QuantizedWeight],
    dtype: torch.dtype,
    result: dict[str, Any],
) -> None:
    """Write model and result in place of the output folder, then the line of the summary; adds `bytes`."""
    grid = request.quantization().grid
    notes = {name: request.settings()[name] for name in ("method", "act_order", "damping", "samples", "seed")}
    with replacing_folder(request.output) as beside:
        save_quantized(model, weights, grid, subject.data.tokenizer, beside, dtype=dtype, notes=notes)
        result["bytes"] = {"dense": weight_bytes(request.model), "quantized": (beside / WEIGHTS).stat().st_size}
        write_card(beside, pruned_card(result))
        write_json(beside / RESULT, result)
    if request.summary is not None:
        append_line(request.summary, summary_line(result, request.output))


def _bits_per_weight(weights: dict[str, QuantizedWeight]) -> float:
    """Bits of codes, steps and zeros per quantized weight."""
    bits = count = 0
    for weight in weights.values():
        grid = weight.options
        of_group = 16 + (0 if grid.symmetric else grid.bits)
        bits += weight.codes.numel() * grid.bits + weight.steps.numel() * of_group
        count += weight.codes.numel()
    return bits / max(1, count)
