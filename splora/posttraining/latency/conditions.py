"""Under what conditions a latency holds: it is true of one model's shape, on one device, with one size of batches."""

from __future__ import annotations

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from splora import anatomy
from splora.errors import InputError


@dataclass(frozen=True)
class Conditions:
    """What latencies were measured with.

    Attributes:
        device: kind and name of the device, e.g. ``cuda: NVIDIA H100``.
        threads: processor threads that torch computes with; without meaning on other devices.
        dtype: of weights and hidden states, e.g. ``float32``.
        batch_size: sequences per batch.
        sequence_length: tokens per sequence, none of them padding.
        heads: attention heads per layer of the dense model.
        neurons: feed-forward neurons per layer of the dense model.
        torch: version of torch.
        seed: of the order of measurements.
        date: day of the measurement, ISO 8601.
    """

    device: str
    threads: int
    dtype: str
    batch_size: int
    sequence_length: int
    model_type: str
    hidden_size: int
    head_size: int
    layers: int
    heads: int
    neurons: int
    torch: str
    seed: int = 0
    date: str = ""


#: What makes a table useless when it differs, in words.
_DECISIVE = {
    "device": "on the device",
    "threads": "with a number of threads of",
    "dtype": "with numbers of type",
    "batch_size": "with a batch size of",
    "sequence_length": "with a sequence length of",
    "model_type": "for a model of type",
    "hidden_size": "for a hidden size of",
    "head_size": "for a head size of",
    "layers": "for a number of layers of",
    "heads": "for a number of heads per layer of",
    "neurons": "for a number of neurons per layer of",
}


def conditions(model: nn.Module, batch_size: int, length: int, seed: int = 0) -> Conditions:
    """The conditions under which `model` would be measured here and now.

    Args:
        model: a bare task model with all its heads and neurons, on the device that counts.
        batch_size: sequences per batch.
        length: tokens per sequence.

    Raises:
        InputError: an unsupported family, or layers of different sizes: one table cannot hold for all of them.
    """
    layers = anatomy.layers(model)
    sizes = sorted({(layer.heads, layer.neurons) for layer in layers})
    if len(sizes) > 1:
        shown = ", ".join(f"{heads} and {neurons:,}" for heads, neurons in sizes)
        raise InputError(
            f"{type(model).__name__}: its layers have different numbers of heads and neurons ({shown}); "
            f"latency tables are made of a model whose layers are all alike."
        )
    weight, bare = layers[0].linears["query"].weight, cast(Any, model)
    return Conditions(
        device=device_name(weight.device),
        threads=torch.get_num_threads(),
        dtype=str(weight.dtype).removeprefix("torch."),
        batch_size=batch_size,
        sequence_length=length,
        model_type=str(bare.config.model_type),
        hidden_size=layers[0].linears["query"].in_features,
        head_size=layers[0].head_size,
        layers=len(layers),
        heads=layers[0].heads,
        neurons=layers[0].neurons,
        torch=torch.__version__,
        seed=seed,
        date=datetime.date.today().isoformat(),
    )


def differences(source: str, held: Conditions, now: Conditions) -> list[str]:
    """One sentence for each condition of a file's latencies that does not hold now; the version of torch is none."""
    on_processor = now.device.startswith("cpu")
    return [
        f"{source}: was measured {words} {getattr(held, name)!r}; here it is {getattr(now, name)!r}; "
        f"measure this model here with scripts/generate_lut.py."
        for name, words in _DECISIVE.items()
        if getattr(held, name) != getattr(now, name) and (name != "threads" or on_processor)
    ]


def version_warning(source: str, held: Conditions, now: Conditions) -> list[str]:
    """A sentence when another version of torch measured: latencies may have moved, but still say something."""
    if held.torch == now.torch:
        return []
    return [f"{source}: was measured with torch {held.torch}; here it is {now.torch}, and latencies may differ."]


def device_name(device: torch.device) -> str:
    """Kind and name of a device, as far as the system tells."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return device.type
    return f"cpu: {_processor()} ({torch.backends.cpu.get_cpu_capability()})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
