"""A pruned checkpoint becomes a healed one: train, judge before and after and the dense model, measure, save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from splora.checkpoints.checkpoint import load_checkpoint
from splora.errors import InputError
from splora.export.card import pruned_card, write_card
from splora.export.folder import WEIGHTS, save_pruned
from splora.export.storage import dtype_of, is_held_by, name_of, round_off, weight_bytes
from splora.files import replacing_folder, write_json
from splora.json_values import read_or_refuse, table, text
from splora.machine import versions
from splora.posttraining.core.compute import find_device
from splora.posttraining.core.evaluation import Predictions, divergence, predict
from splora.posttraining.core.request import RESULT
from splora.posttraining.core.stages import Report, silent
from splora.tasks.data_module import TaskDataModule
from splora.training.heal_request import METHOD, WEIGHTS_OF, HealRequest
from splora.training.result_file import read_result
from splora.training.saving import MODEL


def heal(request: HealRequest, report: Report = silent) -> dict[str, Any]:
    """Carry out a request and return its result, which is also written to `result.json`.

    Raises:
        InputError: something that the person gave does not work; nothing is written then.
    """
    with request.claimed():
        return _heal(request, report)


def _heal(request: HealRequest, report: Report) -> dict[str, Any]:
    from splora.training.run import run

    request.check()
    _refuse_another_start(request)
    run(request.specification(), request.training, force=request.force, trainer=trainer_on(request.device))
    trained = read_result(request.training)
    data, device = _data(trained), find_device(request.device)
    own = _data(trained, request.teacher)
    teacher, pruned = (load_checkpoint(name, request.task) for name in (request.teacher, request.model))
    predictions = {
        "dense": _in_order(_predicted("dense", teacher, own, device, report), own, data),
        "pruned": _predicted("pruned", pruned, data, device, report),
    }
    healed = load_checkpoint(str(request.training / MODEL), request.task)
    dtype = dtype_of("auto", request.model)
    if not is_held_by(healed, dtype):  # stored in what it came in, unless its weights have grown too large
        dtype = torch.float32
    round_off(healed, dtype)  # what is judged is what will be stored
    predictions["healed"] = _predicted("healed", healed, data, device, report)
    result = _describe(request, trained, data, predictions)
    result["dtype"] = name_of(dtype)
    _save(request, result, healed.cpu(), data.tokenizer, dtype)
    return result


def trainer_on(device: str) -> dict[str, Any]:
    """The Trainer's settings for a device as `--device` names it."""
    if device == "auto":
        return {}
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return {"accelerator": "cpu"}
    return {"accelerator": "gpu"} | ({"devices": [int(number)]} if number else {})


def _refuse_another_start(request: HealRequest) -> None:
    """A training that was begun on other weights under the same name is not gone on with.

    Raises:
        InputError: it was, and --force does not say to start anew.
    """
    from splora.training.run import SPECIFICATION

    begun = read_or_refuse(request.training / SPECIFICATION) or {}
    if not request.force and WEIGHTS_OF in text(begun.get("model")) and begun["model"] != request.shows:
        raise InputError(
            f"{request.training}: was trained from other weights of {request.model} than lie there now; give --force "
            f"to heal these."
        )


def _data(trained: dict[str, Any], model: str | None = None) -> TaskDataModule:
    """The data module that a run was scored by, or that of a model whose labels may stand in another order."""
    from splora.tasks.sources import make_data_module

    settings = dict(table(table(trained["settings"])["data"]))
    task, own = settings.pop("task"), settings.pop("model_name_or_path")
    return make_data_module(task, own if model is None else model, **settings)


def _in_order(predictions: Predictions, own: Any, data: Any) -> Predictions:
    """Predictions by one data module's numbers of labels, by those of another one, where there are labels."""
    labels: dict[str, int] = getattr(data, "label2id", None) or {}
    if not labels or own.label2id == labels:
        return predictions
    order = [own.label2id[name] for name in sorted(labels, key=labels.__getitem__)]
    return replace(predictions, logits={name: values[:, order] for name, values in predictions.logits.items()})


def _predicted(name: str, model: nn.Module, data: TaskDataModule, device: torch.device, report: Report) -> Predictions:
    return predict(
        model.to(device),
        data,
        progress=lambda done, total: report(f"evaluate {name}", f"batch {done} of {total}", done / total),
    )


def _describe(
    request: HealRequest, trained: dict[str, Any], data: TaskDataModule, of: dict[str, Predictions]
) -> dict[str, Any]:
    """What `result.json` says: the form of a pruning's, so that tables and reports take both."""
    metric = data.primary_metric
    scores = {name: predictions.metrics[metric] for name, predictions in of.items()}
    parameters = trained["parameters"]
    return {
        "method": METHOD,
        "adapter": request.options["adapter"],
        "model": request.model,
        "teacher": request.teacher,
        "task": request.task,
        "metric": metric,
        "dense": scores["dense"],
        "pruned": scores["healed"],
        "stages": {"pruned": scores["pruned"], "healed": scores["healed"]},
        "kl_divergence": {name: divergence(of["dense"], of[name]) for name in ("pruned", "healed")},
        "metrics": {name: predictions.metrics for name, predictions in of.items()},
        "is_healed": trained["chosen"]["step"] != 0,
        "chosen": trained["chosen"],
        **{name: trained[name] for name in ("macs_kept", "macs_counted_at_tokens", "heads_kept", "neurons_kept")},
        "parameters": {"dense": parameters["dense"], "pruned": parameters["kept"]},
        "learned_weights_percent": trained["learned_weights_percent"],
        "adapter_bytes": trained["adapter_bytes"],
        "latency_ms": trained["latency_ms"],
        "steps": trained["steps"],
        "seconds": trained["seconds"],
        "seconds_of": {METHOD: trained["seconds"]},
        "samples": len(data.features("train")),
        "seed": request.seed,
        "precision": trained["settings"]["trainer"]["precision"],
        "device": trained["settings"]["trainer"]["accelerator"],
        "threads": trained["settings"]["trainer"]["threads"],
        "peak_memory_bytes": trained["peak_memory_bytes"],
        "notes": {},
        "versions": versions(),
        "training": str(request.training),
        "settings": request.settings(),
    }


def _save(request: HealRequest, result: dict[str, Any], model: nn.Module, tokenizer: Any, dtype: torch.dtype) -> None:
    """Put the healed model with its result in place of the output folder; the training's folder stays beside it."""
    with replacing_folder(request.output) as beside:
        save_pruned(model, tokenizer, beside, dtype=dtype)
        result["bytes"] = {"dense": weight_bytes(request.teacher), "pruned": (Path(beside) / WEIGHTS).stat().st_size}
        write_card(Path(beside), pruned_card(result))
        write_json(Path(beside) / RESULT, result)
