"""Slicing by rotations, after SliceGPT (Ashkboos et al. 2024, arXiv 2401.15024), written from its mathematics.

A norm that only divides by the root of the mean square does not see a rotation Q of what it gets: norm(x Q) =
norm(x) Q. So every signal between two parts of a decoder may be written in a basis of its own, its weights absorbing Q,
and of the basis of its principal components the last are left out: hidden states become narrower, all else stays.

- Scales (and biases) of norms are folded into the linears behind them. LayerNorm also subtracts the mean: this is
  folded into what writes to the hidden states, which makes it such a norm too.
- Signals are the hidden states before attention, before the feed-forward part, and after the last layer, Q_0 … Q_2L:
  eigenvectors of their second moments over calibration text, in fp64, each measured behind the slices before it.
- A residual connection from signal i to i + 1 is multiplied by Q_iᵀ Q_{i+1}, (k, k). The layers run as transformers
  wrote them: a hook adds x (Q_iᵀ Q_{i+1} − I) to what an output projection puts out.
- All signals have one width k, the largest that a budget of MACs allows, counted as for pruning (embeddings and head
  left out), with the 2 k² operations per token and layer of the residual connections or, `residuals=False`, without.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.posttraining.core.layer_grams import arguments_of
from splora.posttraining.core.states import States
from splora.posttraining.core.sublayers import PARTS

if TYPE_CHECKING:
    from comparison import Draw


class Rms(nn.Module):
    """x / sqrt(Σ x² / width + eps), width that of the dense model, however many components x has left."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: Tensor) -> Tensor:
        """Of the last dimension."""
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) / self.width + self.eps)


class Shortcut:
    """A residual connection with a matrix: catches what enters a norm, corrects what an output projection puts out."""

    def __init__(self, norm: nn.Module, output: nn.Module, matrix: Tensor) -> None:
        output.register_buffer("shortcut", matrix - torch.eye(len(matrix), dtype=matrix.dtype))
        self._entered: Tensor | None = None
        norm.register_forward_pre_hook(self._catch)
        output.register_forward_hook(self._add)

    def _catch(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._entered = inputs[0]

    def _add(self, module: nn.Module, _: Any, output: Tensor) -> Tensor:
        assert self._entered is not None
        difference = module.get_buffer("shortcut")
        return output + (self._entered @ difference).view(output.shape)


@dataclass(frozen=True)
class Ends:
    """What a decoder has around its layers."""

    embeddings: list[nn.Embedding]
    norm: nn.Module
    norm_name: str
    holder: nn.Module

    @classmethod
    def of(cls, model: nn.Module) -> Ends:
        """Of a causal language model."""
        holder = model.get_submodule(anatomy.family_of(anatomy.config_of(model)).layers.rpartition(".")[0])
        name = "norm" if hasattr(holder, "norm") else "final_layer_norm"
        embeddings = [module for module in holder.children() if isinstance(module, nn.Embedding)]
        return cls(embeddings, getattr(holder, name), name, holder)


def slice_model(drawn: Draw, budget: float, residuals: bool = True) -> tuple[nn.Module, float]:
    """The sliced model of a budget of MACs, and the seconds that it took."""
    begin = time.perf_counter()
    tokens = round(drawn.calibration.mean_tokens)
    width = width_of(drawn.model, tokens, budget * drawn.whole, residuals)
    return sliced(drawn.model, arguments_of(list(drawn.calibration)), width), time.perf_counter() - begin


def macs(model: nn.Module, tokens: int, width: int, residuals: bool = True) -> int:
    """Multiply-accumulate operations of a model's layers for one sequence, its hidden states `width` wide."""
    total = 0
    for layer in anatomy.layers(model):
        channels = layer.linears["attention_output"].in_features
        rows = channels + sum(
            linear.out_features for role, linear in layer.linears.items() if role not in ("attention_output", "ffn_out")
        )
        total += tokens * width * (rows + layer.neurons) + 2 * tokens**2 * channels
        total += 2 * tokens * width**2 if residuals else 0
    return total


def width_of(model: nn.Module, tokens: int, most: float, residuals: bool = True) -> int:
    """The largest width whose MACs are at most `most`; 1 where none is."""
    whole = anatomy.layers(model)[0].linears["query"].in_features
    return max([1, *(width for width in range(1, whole + 1) if macs(model, tokens, width, residuals) <= most)])


def sliced(model: nn.Module, batches: Sequence[dict[str, Tensor]], width: int) -> nn.Module:
    """A copy of a decoder whose hidden states have `width` components."""
    plain = canonical(model)
    bases = principal_bases(copy.deepcopy(plain).float(), batches, width)
    ends = Ends.of(plain)
    for embedding in ends.embeddings:
        embedding.weight = _parameter(embedding.weight @ bases[0])
    pairs = iter(pairwise(bases))
    for layer in anatomy.layers(plain):
        for part, norm in zip(PARTS, (layer.attention_norm, layer.ffn_norm), strict=True):
            entering, leaving = next(pairs)
            for role in part.inputs:
                if role in layer.linears:
                    _set(layer.linears[role], layer.linears[role].weight @ entering)
            output = layer.linears[part.role]
            _set(output, leaving.T @ output.weight, None if output.bias is None else leaving.T @ output.bias)
            Shortcut(norm, output, entering.T @ leaving)  # type: ignore[arg-type]
    head: Any = plain.get_output_embeddings()  # type: ignore[operator]
    _set(head, head.weight @ bases[-1])
    return plain.float().eval()


@torch.no_grad()
def canonical(model: nn.Module) -> nn.Module:
    """A copy in fp64 that computes the same with norms that only divide, its head no longer tied to its embeddings."""
    plain: Any = copy.deepcopy(model).double()
    ends, layers = Ends.of(plain), anatomy.layers(plain)
    assert all(layer.norm_first for layer in layers), "norms after the residual sums are not for slicing"
    old = plain.get_output_embeddings()
    head = nn.Linear(old.in_features, old.out_features).double()
    head.weight.copy_(old.weight)
    head.bias.zero_()
    plain.set_output_embeddings(head)
    if isinstance(ends.norm, nn.LayerNorm):
        for embedding in ends.embeddings:
            embedding.weight.sub_(embedding.weight.mean(1, keepdim=True))
        for layer in layers:
            for part in PARTS:
                output: Any = layer.linears[part.role]
                output.weight.sub_(output.weight.mean(0))
                if output.bias is not None:
                    output.bias.sub_(output.bias.mean())
    for layer in layers:
        names = {id(module): name for name, module in layer.module.named_modules()}
        for part, norm in zip(PARTS, (layer.attention_norm, layer.ffn_norm), strict=True):
            readers = [layer.linears[role] for role in part.inputs if role in layer.linears]
            layer.module.set_submodule(names[id(norm)], _folded(norm, readers))
    setattr(ends.holder, ends.norm_name, _folded(ends.norm, [head]))
    return plain  # type: ignore[no-any-return]


@torch.no_grad()
def principal_bases(model: nn.Module, batches: Sequence[dict[str, Tensor]], width: int) -> list[Tensor]:
    """Of each signal, float64 (hidden, width): eigenvectors of its second moment, those of large eigenvalues.

    Args:
        model: canonical.
        batches: model arguments.
    """
    states = States(model, batches)
    bases = [_project(states, width)]
    for number, layer in enumerate(anatomy.layers(model)):
        for part in PARTS:
            output = layer.linears[part.role]
            for batch in range(len(states)):
                hidden = states[batch]
                inner = part.inner(layer, hidden, states.call(batch, number))
                states[batch] = part.close(layer, hidden, output(inner))
            bases.append(_project(states, width))
    return bases


def _project(states: States, width: int) -> Tensor:
    """The basis of a signal; what lies outside of it is taken out of the states."""
    moment: Any = 0
    for batch in range(len(states)):
        rows = states[batch].flatten(0, 1).double()
        moment = moment + rows.T @ rows
    basis = torch.linalg.eigh(moment).eigenvectors.flip(1)[:, :width]
    for batch in range(len(states)):
        states[batch] = (states[batch].double() @ basis @ basis.T).float()
    return basis


def _folded(norm: Any, readers: Sequence[Any]) -> Rms:
    """The norm without scale and bias, which the linears that read it take over."""
    eps = norm.eps if isinstance(norm, nn.LayerNorm) else norm.variance_epsilon
    bias = getattr(norm, "bias", None)
    for linear in readers:
        if bias is not None:
            added = linear.weight @ bias
            linear.bias = _parameter(added if linear.bias is None else linear.bias + added)
        linear.weight = _parameter(linear.weight * norm.weight)
    return Rms(len(norm.weight), eps)


def _set(linear: Any, weight: Tensor, bias: Tensor | None = None) -> None:
    linear.weight = _parameter(weight)
    linear.out_features, linear.in_features = weight.shape
    if bias is not None:
        linear.bias = _parameter(bias)


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().contiguous(), requires_grad=False)
