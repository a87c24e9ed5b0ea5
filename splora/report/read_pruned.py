"""A folder of `splora prune` or `splora quantize` as the report knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splora.json_values import number, numbers, one_line, read_object, table, text, texts, whole
from splora.posttraining.core.choices import QUANTIZERS
from splora.posttraining.core.method import commands
from splora.report.repeat import pruning_command
from splora.report.runs import Environment, Pruned
from splora.run_files import RESULT as RESULT

#: Layers, and heads of one, of which no model has more.
_MOST_LAYERS, _MOST_HEADS = 1000, 4096


def is_post_training(method: object) -> bool:
    """Whether a result's method is one of a model that no row trained."""
    return isinstance(method, str) and (method in commands() or method in (*QUANTIZERS, "heal", "export"))


def read_pruned(folder: Path, name: str, result: dict[str, Any], notices: list[str]) -> Pruned | None:
    """What a pruning left; None, and a notice, where its result lacks what it is about."""
    dense, pruned, metric = number(result.get("dense")), number(result.get("pruned")), text(result.get("metric"))
    settings = table(result.get("settings"))
    if dense is None or pruned is None or not metric or not settings:
        writer = text(table(result.get("versions")).get("splora"))
        named = f" (written by splora {writer})" if writer else ""
        notices.append(f"{folder / RESULT}: lacks the metric before or after pruning or its settings{named}.")
        return None
    latency = table(result.get("latency_ms"))
    times = number(latency.get("dense")), number(latency.get("pruned"))
    sizes = numbers(result.get("parameters"))
    macs = number(result.get("macs_kept"))
    command = text(result.get("command"))
    device, threads = text(result.get("device")), text(result.get("threads"))
    shape = f"batches of {text(latency.get('batch_size'))} × {text(latency.get('tokens'))} tokens"
    heads, neurons = _plan(folder / "plan.json", notices)
    return Pruned(
        folder=folder,
        name=name,
        label=f"{folder.name} {text(settings.get('budget'))}".strip(),
        method=text(result["method"]),
        model=text(result.get("model")),
        task=text(result.get("task")),
        metric=metric,
        dense=dense,
        pruned=pruned,
        stages=numbers(result.get("stages")),
        budget=text(settings.get("budget")),
        macs=None if macs is None else 100 * macs,
        latency=(times[0], times[1]) if times[0] is not None and times[1] is not None else None,
        latency_of=f"{shape} on {device or 'an unknown device'}, {threads or '?'} threads",
        parameters=(int(sizes["dense"]), int(sizes["pruned"])) if {"dense", "pruned"} <= set(sizes) else None,
        heads=heads,
        neurons=neurons,
        seconds=number(result.get("seconds")),
        samples=whole(result.get("samples")),
        seed=text(result.get("seed")),
        environment=Environment(
            tuple(texts(result.get("versions")).items()), text(result.get("precision")), device.upper(), "1", threads
        ),
        command=command or pruning_command({**result, "settings": settings}, folder),
        derived=not command,
    )


def _plan(path: Path, notices: list[str]) -> tuple[tuple[tuple[bool, ...], ...], tuple[float, ...]]:
    """Which heads of each layer stay, and the share of its neurons."""
    heads: list[tuple[bool, ...]] = []
    neurons: list[float] = []
    try:
        layers = (read_object(path) or {"layers": []})["layers"]
        if len(layers) > _MOST_LAYERS:
            raise ValueError(f"it has {len(layers):,} layers")
        for layer in layers:
            kept, of = set(layer["heads"]), int(layer["heads_of"])
            if not 0 <= of <= _MOST_HEADS:
                raise ValueError(f"a layer of {layer['heads_of']} heads")
            heads.append(tuple(head in kept for head in range(of)))
            neurons.append(min(1.0, max(0.0, int(layer["neurons_kept"]) / int(layer["neurons_of"]))))
    except (ValueError, KeyError, TypeError, ZeroDivisionError, OverflowError) as error:
        notices.append(f"{path}: is not a plan of heads and neurons ({one_line(str(error))}).")
        return (), ()
    return tuple(heads), tuple(neurons)
