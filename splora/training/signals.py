"""What a model says on its way to its logits: hidden states after each layer, and after each attention part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.tasks.model_inputs import SEGMENTS
from splora.training.losses import logits_of

#: The column of a training batch with the segments that a teacher's own tokenizer makes.
TEACHER_SEGMENTS = f"teacher_{SEGMENTS}"
#: What a batch holds besides the model's inputs.
_NOT_INPUTS = ("index", "labels", "start_positions", "end_positions", TEACHER_SEGMENTS)


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a batch the model takes."""
    return {name: value for name, value in batch.items() if name not in _NOT_INPUTS}


class Signals(NamedTuple):
    """A forward pass, as a distillation compares it.

    Attributes:
        logits: by name, see `losses.logits_of`.
        hidden: states after each layer, (batch, tokens, hidden); empty where not asked for.
        attention: states after each layer's attention part, residual sum and norm included; likewise.
    """

    logits: dict[str, Tensor]
    hidden: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] = ()


def signals(network: nn.Module, inputs: Mapping[str, Tensor], *, hidden: bool, attention: bool) -> Signals:
    """Run a task model, wrapped or not, and keep what its layers put out.

    Args:
        network: a task model of a known family, dense, pruned or with an adapter.
        inputs: what it takes.
        hidden, attention: which states are kept.
    """
    with _kept(network, attention, inputs["attention_mask"].shape) as states:
        outputs = network(**inputs, output_hidden_states=True) if hidden else network(**inputs)
    found = tuple(outputs["hidden_states"][1:]) if hidden else ()  # the first are the embeddings
    return Signals(logits_of(outputs), found, tuple(states))


@contextmanager
def _kept(network: nn.Module, attention: bool, shape: torch.Size) -> Iterator[list[Tensor]]:
    """The states that leave each attention part while the block runs, (*shape, hidden)."""
    states: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        states.append(output)

    def keep_input(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        states.append(arguments[0].view(*shape, -1))  # OPT's feed-forward part has tokens in a row

    handles: list[Any] = []
    if attention:
        norms, enter = anatomy.after_attention(network)
        handles = [
            norm.register_forward_pre_hook(keep_input) if enter else norm.register_forward_hook(keep) for norm in norms
        ]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
