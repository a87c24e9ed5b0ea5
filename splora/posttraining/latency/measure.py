"""Measuring latency tables: blocks of every size and the whole model by turns, so that noise meets all of them."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Layer
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.calls import Call as LayerCall
from splora.posttraining.core.calls import record
from splora.posttraining.core.sublayers import activated_neurons, attention_close, attention_context, feed_forward_close
from splora.posttraining.latency.conditions import conditions
from splora.posttraining.latency.table import KINDS, Kind, LatencyTable

Call = Callable[[], object]
#: Milliseconds of one call, waiting for the device included.
Stopwatch = Callable[[Call], float]
#: Told after each round: rounds done, and rounds in all.
Progress = Callable[[int, int], None]
Key = TypeVar("Key", bound=Hashable)


def measure(
    model: nn.Module,
    batch_size: int,
    length: int,
    *,
    step: int | None = None,
    repeats: int = 10,
    warmup: int = 2,
    seed: int = 0,
    stopwatch: Stopwatch | None = None,
    progress: Progress | None = None,
) -> tuple[LatencyTable, LatencyTable]:
    """Latencies of attention and feed-forward blocks of every size, of the dense model and of its overhead.

    Blocks are the model's first layer cut to each size, as export cuts it, run on random hidden states of shape
    (batch, length, hidden). The model gets random tokens without padding.

    Args:
        model: a bare task model whose layers are all alike; in evaluation mode while measured.
        batch_size: sequences per batch.
        length: tokens per sequence.
        step: distance of the measured numbers of neurons; default a 24th of all.
        repeats: rounds whose median counts.
        warmup: rounds before them that do not count.
        seed: of inputs and of the order within each round.
        stopwatch: replaces the clock.

    Returns:
        The tables of kind `mha` and `ffn`.

    Raises:
        InputError: an unsupported family or task, or layers of different sizes.
    """
    held, layer = conditions(model, batch_size, length, seed), anatomy.layers(model)[0]
    sizes: dict[Kind, list[int]] = {
        "mha": list(range(layer.heads + 1)),
        "ffn": grid(layer.neurons, step or max(round(layer.neurons / 24), 1)),
    }
    nothing = Plan(((),) * held.layers, ((),) * held.layers)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            calls: dict[tuple[str, int], Call] = {
                (name, 0): model_call(measured, batch_size, length, seed)
                for name, measured in (("model", model), ("overhead", cut(model, nothing)))
            }
            hidden = _random_hidden(layer, batch_size, length, seed)
            _, called = record(model, _random_tokens(model, batch_size, length, seed))
            calls |= {
                (kind, size): _block_call(model, kind, size, hidden, called[0])
                for kind in KINDS
                for size in sizes[kind]
            }
            watch = stopwatch or clock(hidden.device)
            medians = median_times(calls, repeats, warmup, seed, watch, progress)
    finally:
        model.train(training)
    whole, overhead = medians["model", 0], medians["overhead", 0]
    tables = [
        LatencyTable(
            kind, tuple(sizes[kind]), tuple(medians[kind, size] for size in sizes[kind]), whole, overhead, held
        )
        for kind in KINDS
    ]
    return tables[0], tables[1]


def grid(full: int, step: int) -> list[int]:
    """Numbers of neurons to measure: 0, every `step`, and all."""
    return sorted({*range(0, full, max(step, 1)), full})


def median_times(
    calls: Mapping[Key, Call],
    repeats: int,
    warmup: int,
    seed: int,
    stopwatch: Stopwatch,
    progress: Progress | None = None,
) -> dict[Key, float]:
    """Median milliseconds of each call over rounds in which each is made once, in an order drawn anew.

    A machine's slow minutes then fall on all calls, and none always follows the same other one.
    """
    order, drawn = list(calls), random.Random(seed)
    times: dict[Key, list[float]] = {key: [] for key in order}
    for done in range(warmup + repeats):
        drawn.shuffle(order)
        for key in order:
            spent = stopwatch(calls[key])
            if done >= warmup:
                times[key].append(spent)
        if progress is not None:
            progress(done + 1, warmup + repeats)
    return {key: statistics.median(times[key]) for key in calls}


def clock(device: torch.device) -> Stopwatch:
    """Milliseconds by the clock on the wall; on a CUDA device until all its work is done."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def milliseconds(call: Call) -> float:
        wait()
        start = time.perf_counter()
        call()
        wait()
        return (time.perf_counter() - start) * 1000

    return milliseconds


def sized(model: nn.Module, heads: int, neurons: int) -> Layer:
    """The model's first layer with its first `heads` heads and `neurons` neurons, as export cuts it."""
    nothing: tuple[tuple[int, ...], ...] = ((),) * (len(anatomy.layers(model)) - 1)
    plan = Plan((tuple(range(heads)), *nothing), (tuple(range(neurons)), *nothing))
    return anatomy.layers(cut(model, plan))[0]


def attention_block(layer: Layer, hidden: Tensor, call: LayerCall) -> Tensor:
    """The attention part of a layer with residual sum and norm; (batch, tokens, hidden)."""
    context = attention_context(layer, hidden, call)
    return attention_close(layer, hidden, layer.linears["attention_output"](context))


def feed_forward_block(layer: Layer, hidden: Tensor) -> Tensor:
    """The feed-forward part of a layer with residual sum and norm; (batch, tokens, hidden)."""
    return feed_forward_close(layer, hidden, layer.linears["ffn_out"](activated_neurons(layer, hidden)))


def _block_call(model: nn.Module, kind: Kind, size: int, hidden: Tensor, call: LayerCall) -> Call:
    # What the other kind keeps does not matter; nothing takes no memory.
    if kind == "mha":
        smaller = sized(model, size, 0)
        return lambda: attention_block(smaller, hidden, call)
    narrower = sized(model, 0, size)
    return lambda: feed_forward_block(narrower, hidden)


def model_call(model: nn.Module, batch_size: int, length: int, seed: int) -> Call:
    """A forward pass of the model with random tokens (batch, length), none of them padding."""
    batch = _random_tokens(model, batch_size, length, seed)
    return lambda: model(**batch)


def _random_tokens(model: nn.Module, batch_size: int, length: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    bare: Any = model
    config = bare.config
    # No token is padding, whatever number padding has: RoBERTa would give it another position.
    tokens = torch.randint(config.vocab_size - 1, (batch_size, length), generator=generator)
    padding = config.pad_token_id if getattr(config, "pad_token_id", None) is not None else config.vocab_size
    tokens = (tokens + (tokens >= padding)).to(device)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def _random_hidden(layer: Layer, batch_size: int, length: int, seed: int) -> Tensor:
    weight, generator = layer.linears["query"].weight, torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, length, weight.shape[1], generator=generator).to(weight.device, weight.dtype)
