"""A transformer layer taken apart: what meets its two output projections, and what becomes of what they put out.

    context   = attention_context(layer, hidden, keep)         (batch, tokens, heads · head_size)
    hidden    = attention_close(layer, hidden, W_o context + b_o)
    activated = activated_neurons(layer, hidden)               (batch, tokens, neurons)
    hidden    = feed_forward_close(layer, hidden, W_2 activated + b_2)

One definition serves BERT, RoBERTa, DistilBERT (norms after the residual sums) and OPT (norms before, causal), and
layers that have lost heads or neurons. Post-training methods change W_o and W_2 between the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Layer


def attention_input(layer: Layer, hidden: Tensor) -> Tensor:
    """What query, key and value get, (batch, tokens, hidden)."""
    return _normed(layer.attention_norm, hidden) if layer.norm_first else hidden


def attention_context(layer: Layer, hidden: Tensor, keep: Tensor | None) -> Tensor:
    """What the attention output projection gets.

    Args:
        hidden: hidden states that enter the layer, (batch, tokens, hidden).
        keep: True for tokens that are no padding, bool (batch, tokens); None: all are.

    Returns:
        Contexts of the heads side by side, (batch, tokens, heads · head_size).
    """
    x = attention_input(layer, hidden)
    batch, tokens, _ = x.shape
    if layer.heads == 0:
        return x.new_empty(batch, tokens, 0)
    query, key, value = (
        layer.linears[role](x).view(batch, tokens, layer.heads, layer.head_size).transpose(1, 2)
        for role in ("query", "key", "value")
    )
    mask = None if keep is None or bool(keep.all()) else keep[:, None, None, :]
    if mask is not None and layer.causal:
        mask = mask & torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).tril()
    context = F.scaled_dot_product_attention(query, key, value, mask, is_causal=layer.causal and mask is None)
    return context.transpose(1, 2).reshape(batch, tokens, layer.heads * layer.head_size)


def attention_close(layer: Layer, hidden: Tensor, projected: Tensor) -> Tensor:
    """Residual sum and norm after the attention output projection; shapes (batch, tokens, hidden)."""
    total = hidden + projected
    return total if layer.norm_first else _normed(layer.attention_norm, total)


def feed_forward_input(layer: Layer, hidden: Tensor) -> Tensor:
    """What the first feed-forward linear gets, (batch, tokens, hidden)."""
    return _normed(layer.ffn_norm, hidden) if layer.norm_first else hidden


def activated_neurons(layer: Layer, hidden: Tensor) -> Tensor:
    """What the second feed-forward linear gets, (batch, tokens, neurons)."""
    activated: Tensor = layer.activation(layer.linears["ffn_in"](feed_forward_input(layer, hidden)))
    return activated


def feed_forward_close(layer: Layer, hidden: Tensor, projected: Tensor) -> Tensor:
    """Residual sum and norm after the second feed-forward linear; shapes (batch, tokens, hidden)."""
    total = hidden + projected
    return total if layer.norm_first else _normed(layer.ffn_norm, total)


def forward_layer(layer: Layer, hidden: Tensor, keep: Tensor | None) -> Tensor:
    """The whole layer, in evaluation mode; (batch, tokens, hidden)."""
    hidden = attention_close(layer, hidden, layer.linears["attention_output"](attention_context(layer, hidden, keep)))
    return feed_forward_close(layer, hidden, layer.linears["ffn_out"](activated_neurons(layer, hidden)))


@dataclass(frozen=True)
class Part:
    """One of the two sub-layers of a layer, by what meets its output projection.

    Attributes:
        name: `heads` or `neurons`.
        role: the output projection.
        inputs: the projections before it.
        enter: from (layer, hidden states) to what these get.
        inner: from (layer, hidden states, kept tokens) to what the projection gets.
        close: from (layer, hidden states, what it puts out) to the hidden states after it.
    """

    name: str
    role: str
    inputs: tuple[str, ...]
    enter: Callable[[Layer, Tensor], Tensor]
    inner: Callable[[Layer, Tensor, Tensor | None], Tensor]
    close: Callable[[Layer, Tensor, Tensor], Tensor]

    def size(self, layer: Layer) -> int:
        """Channels of one head, or of one neuron."""
        return layer.head_size if self.name == "heads" else 1


#: The sub-layers in the order in which data meets them.
PARTS = (
    Part("heads", "attention_output", ("query", "key", "value"), attention_input, attention_context, attention_close),
    Part(
        "neurons",
        "ffn_out",
        ("ffn_in",),
        feed_forward_input,
        lambda layer, hidden, keep: activated_neurons(layer, hidden),
        feed_forward_close,
    ),
)


class _Reached(Exception):
    """The forward pass came to the first layer."""


def embedded(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The hidden states that enter the first layer, (batch, tokens, hidden); nothing beyond is computed."""
    captured: list[Tensor] = []

    def stop(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        captured.append(arguments[0] if arguments else named["hidden_states"])
        raise _Reached

    handle = anatomy.layers(model)[0].module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch})
    except _Reached:
        pass
    finally:
        handle.remove()
    return captured[0]


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = norm(x)
    return normed
