"""A transformer layer's two parts: what meets their output projections, and what becomes of what these put out.

    context   = what meets the attention's output projection W_o    (batch, tokens, heads · head_size)
    hidden    = attention_close(layer, hidden, W_o context + b_o)
    activated = what meets the feed-forward part's, W_2              (batch, tokens, neurons)
    hidden    = feed_forward_close(layer, hidden, W_2 activated + b_2)

Nothing of a family's arithmetic is repeated: its own modules run, called as the model calls them (`calls`), up to the
output projection. What is left is the residual sum and its norm, before or after; a test compares with the layers of
every family. Post-training methods change W_o and W_2 between the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from splora.anatomy import Layer, Linear
from splora.posttraining.core.calls import Call, Reached


def attention_input(layer: Layer, hidden: Tensor) -> Tensor:
    """What query, key and value get, (batch, tokens, hidden)."""
    return _normed(layer.attention_norm, hidden) if layer.norm_first else hidden


def attention_context(layer: Layer, hidden: Tensor, call: Call) -> Tensor:
    """What the attention output projection gets.

    Args:
        hidden: hidden states that enter the layer, (batch, tokens, hidden).
        call: what else the model gives the layer.

    Returns:
        Contexts of the heads side by side, (batch, tokens, heads · head_size).
    """
    return _met(layer.linears["attention_output"], hidden, lambda: call(layer.module, hidden))


def attention_close(layer: Layer, hidden: Tensor, projected: Tensor) -> Tensor:
    """Residual sum and norm after the attention output projection; shapes (batch, tokens, hidden)."""
    total = hidden + projected
    return total if layer.norm_first else _normed(layer.attention_norm, total)


def feed_forward_input(layer: Layer, hidden: Tensor) -> Tensor:
    """What the first feed-forward linear gets, (batch, tokens, hidden)."""
    return _normed(layer.ffn_norm, hidden) if layer.norm_first else hidden


def activated_neurons(layer: Layer, hidden: Tensor) -> Tensor:
    """What the second feed-forward linear gets, (batch, tokens, neurons)."""

    def run() -> Tensor:
        values = feed_forward_input(layer, hidden)
        for module in layer.feed_forward:
            values = module(values)
        return values

    return _met(layer.linears["ffn_out"], hidden, run)


def feed_forward_close(layer: Layer, hidden: Tensor, projected: Tensor) -> Tensor:
    """Residual sum and norm after the second feed-forward linear; shapes (batch, tokens, hidden)."""
    total = hidden + projected
    return total if layer.norm_first else _normed(layer.ffn_norm, total)


def forward_layer(layer: Layer, hidden: Tensor, call: Call) -> Tensor:
    """The whole layer by its parts, in evaluation mode; (batch, tokens, hidden)."""
    hidden = attention_close(layer, hidden, layer.linears["attention_output"](attention_context(layer, hidden, call)))
    return feed_forward_close(layer, hidden, layer.linears["ffn_out"](activated_neurons(layer, hidden)))


@dataclass(frozen=True)
class Part:
    """One of the two sub-layers of a layer, by what meets its output projection.

    Attributes:
        name: `heads` or `neurons`.
        role: the output projection.
        inputs: the projections before it; not all families have all of them.
        enter: from (layer, hidden states) to what these get.
        inner: from (layer, hidden states, call) to what the projection gets.
        close: from (layer, hidden states, what it puts out) to the hidden states after it.
    """

    name: str
    role: str
    inputs: tuple[str, ...]
    enter: Callable[[Layer, Tensor], Tensor]
    inner: Callable[[Layer, Tensor, Call], Tensor]
    close: Callable[[Layer, Tensor, Tensor], Tensor]

    def inputs_of(self, layer: Layer) -> tuple[str, ...]:
        """Those of `inputs` that name a weight of the layer: of a fused one the first."""
        return tuple(role for role in self.inputs if role in layer.matrices)

    def size(self, layer: Layer) -> int:
        """Channels of one head, or of one neuron."""
        return layer.head_size if self.name == "heads" else 1


#: The sub-layers in the order in which data meets them.
PARTS = (
    Part("heads", "attention_output", ("query", "key", "value"), attention_input, attention_context, attention_close),
    Part(
        "neurons",
        "ffn_out",
        ("ffn_gate", "ffn_in"),
        feed_forward_input,
        lambda layer, hidden, _: activated_neurons(layer, hidden),
        feed_forward_close,
    ),
)


def _met(linear: Linear, hidden: Tensor, run: Callable[[], Any]) -> Tensor:
    """What meets a linear layer when something runs, of which nothing beyond that is computed.

    What runs may also end right before the layer, with what it gets.
    """
    captured: list[Tensor] = []

    def stop(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        captured.append(arguments[0])
        raise Reached

    handle = linear.register_forward_pre_hook(stop)
    try:
        with suppress(Reached):
            captured.append(run())
    finally:
        handle.remove()
    # OPT's feed-forward part has tokens in a row.
    return captured[0].view(*hidden.shape[:-1], linear.in_features)


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = norm(x)
    return normed
