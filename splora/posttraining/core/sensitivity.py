"""How much an error in the output of each sub-layer moves the model's predictions; needs no labels.

To second order the divergence of predictions that an error δ of a token's sub-layer output makes is ½ δᵀ F δ with
F = Jᵀ (diag p − p pᵀ) J, p the predicted probabilities and J the derivative of the logits. As diag p − p pᵀ = B Bᵀ with
B = diag √p − p √pᵀ, gradients g of logitsᵀ B u for random signs u have E[g gᵀ] = F: one backward pass to the
activations, none to the weights. Of two classes, diag p − p pᵀ = p₀ p₁ (1, −1)ᵀ (1, −1): nothing is left to chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from splora import anatomy
from splora.offload import device_of, is_offloaded, keeper, present
from splora.posttraining.core.calibration import to_device
from splora.posttraining.core.calls import Calls, finish, in_turn, layer_modules
from splora.posttraining.core.directions import direction
from splora.posttraining.core.layer_grams import Batch, regrouped
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.states import last_hidden
from splora.posttraining.core.sublayers import PARTS
from splora.scratch import Held, Scratch, Slot

#: Names under which task heads return logits.
LOGITS = ("logits", "start_logits", "end_logits")
#: Tokens, padding included, whose activations one backward pass holds.
BACKWARD_TOKENS = 1024
#: The same of a language model, whose logits over the vocabulary outweigh all else; and of a text, how much is read.
TEXT_TOKENS = 512
#: Tokens of a sequence up to which attention's backward pass is quicker (up to 10 times) in separate products.
SHORT = 128
#: Part of its mean diagonal that is added to F before it is factorized: above the rounding of its products.
JITTER = 1e-5
#: Of a language model, every so many tokens' predictions are compared: neighbours say much the same.
STRIDE = 4

#: By layer, and there by `heads` and `neurons`: F, summed over the tokens of a sequence, float64 (hidden, hidden).
Metrics = list[dict[str, Held | Slot]]
#: By layer and role, what linears put out in the pass that is on.
Outputs = dict[tuple[int, str], Tensor]


def output_metrics(model: nn.Module, batches: Sequence[Batch], seed: int, precision: Precision) -> Metrics:
    """F of the output of each output projection, on average over sequences.

    Args:
        model: a task model in evaluation mode; its parameters need no gradients, and get none.
        batches: model arguments without labels.
        seed: of the random directions u.
        precision: what forward passes compute in.
    """
    device, keep = device_of(model), keeper(model)
    found: Metrics = [{} for _ in anatomy.layers(model)]
    sums: dict[tuple[int, str], Tensor] = {}
    names = {part.role: part.name for part in PARTS}

    def finished(but: int | None = None) -> None:
        for number, role in [place for place in sums if place[0] != but]:
            found[number][names[role]] = keep(sums.pop((number, role)).div_(_sequences(batches)))

    for place, rows in _gradients(model, batches, seed, precision, tuple(names)):
        if is_offloaded(model):
            finished(but=place[0])  # they come layer by layer
        if place not in sums:
            sums[place] = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=device)
        with precision.products(device):
            sums[place] += rows.T @ rows
    finished()
    return found


def output_squares(
    model: nn.Module, batches: Sequence[Batch], seed: int, precision: Precision
) -> dict[tuple[int, str], Tensor]:
    """The diagonal of F of what each prunable linear puts out, on average over sequences: float64 (outputs,).

    Args:
        model: a task model in evaluation mode.
        batches: model arguments without labels.
        seed: of the random directions u.
        precision: what forward passes compute in.

    Returns:
        By layer and role (of a fused weight the first); linears that hold no weights are left out.
    """
    found: dict[tuple[int, str], Tensor] = {}
    roles = tuple(anatomy.layers(model)[0].matrices)
    for place, rows in _gradients(model, batches, seed, precision, roles):
        squares = rows.double().square().sum(0) / _sequences(batches)
        found[place] = found[place] + squares if place in found else squares
    return found


def _sequences(batches: Sequence[Batch]) -> int:
    return max(1, sum(len(batch["attention_mask"]) for batch in batches))


def _gradients(
    model: nn.Module, batches: Sequence[Batch], seed: int, precision: Precision, roles: Sequence[str]
) -> Iterator[tuple[tuple[int, str], Tensor]]:
    """Gradients of the predictions along B u by what linears of these roles put out, batch by batch.

    Yields:
        Layer and role, and gradients of all tokens that are no padding, float (tokens, outputs).
    """
    layers, whole = anatomy.layers(model), not is_offloaded(model)
    outputs: dict[tuple[int, str], Tensor] = {}
    handles = [layers[0].module.register_forward_pre_hook(_follow, with_kwargs=True)] if whole else []
    for number, layer in enumerate(layers):
        handles += [
            layer.matrices[role].register_forward_hook(_keeper(outputs, (number, role)))
            for role in roles
            if layer.matrices[role].out_features
        ]
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    at_once = TEXT_TOKENS if is_language_model(model) else BACKWARD_TOKENS
    try:
        model.requires_grad_(False)
        passes = _at_once if whole else _by_layers
        yield from passes(model, list(regrouped(batches, at_once)), outputs, seed, precision)
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])


def _at_once(
    model: nn.Module, batches: Sequence[Batch], outputs: Outputs, seed: int, precision: Precision
) -> Iterator[tuple[tuple[int, str], Tensor]]:
    """`_gradients` by one backward pass of a batch through the whole model; hooks put into `outputs`."""
    device, generator = device_of(model), torch.Generator().manual_seed(seed)
    for batch in batches:
        batch = to_device(batch, device)
        keep = batch["attention_mask"].bool()
        with torch.enable_grad(), precision.forward(device), _attention(keep):
            result = model(**batch)
        gradients = _backward(result, list(outputs.values()), keep, generator)
        places = list(outputs)
        outputs.clear()
        del result  # no two batches' activations side by side
        for place, gradient in zip(places, gradients, strict=True):
            # OPT's feed-forward part has tokens in a row.
            yield place, gradient.reshape(*keep.shape, -1)[keep].float()
        del gradients


def _by_layers(
    model: nn.Module, batches: Sequence[Batch], outputs: Outputs, seed: int, precision: Precision
) -> Iterator[tuple[tuple[int, str], Tensor]]:
    """The same, all batches through one layer after another and back: what enters layers lies in a file."""
    device, generator = device_of(model), torch.Generator().manual_seed(seed)
    batches = [to_device(batch, device) for batch in batches]
    keeps = [batch["attention_mask"].bool() for batch in batches]
    layers, calls, put = anatomy.layers(model), Calls(model, batches), Scratch().put

    def run(number: int, index: int, hidden: Tensor) -> Tensor:
        with precision.forward(device), _attention(keeps[index]):
            return calls[index, number](layers[number].module, hidden)

    with present(model, without=layer_modules(model)):
        entered = [[put(calls.begin(index)) for index in range(len(batches))]]
    with torch.no_grad():
        for number, _ in enumerate(in_turn(layers)):
            entered.append([put(run(number, index, slot())) for index, slot in enumerate(entered[-1])])
            outputs.clear()
    above = []
    with present(model, without=layer_modules(model)):
        for batch, slot, keep in zip(batches, entered.pop(), keeps, strict=True):
            hidden = slot().requires_grad_(True)
            with torch.enable_grad(), precision.forward(device):
                result = finish(model, model, batch, hidden)
            above.append(put(_backward(result, [hidden], keep, generator)[0]))
            del result
    for number in reversed(range(len(layers))):
        with present(layers[number].module):
            for index, slot in enumerate(entered.pop()):
                hidden = slot().requires_grad_(True)
                with torch.enable_grad():
                    output = run(number, index, hidden)
                below, *gradients = torch.autograd.grad(output, [hidden, *outputs.values()], above[index]())
                places = list(outputs)
                outputs.clear()
                del output
                above[index].fill(below)
                for place, gradient in zip(places, gradients, strict=True):
                    yield place, gradient.reshape(*keeps[index].shape, -1)[keeps[index]].float()


def _backward(result: Any, inputs: Sequence[Tensor], keep: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Gradients of what a model returned, along B u, by some tensors."""
    logits = [result[name] for name in LOGITS if name in result]
    directions = [_direction(one.detach(), keep, generator) for one in logits]
    return torch.autograd.grad(logits, inputs, directions)


def root(metric: Tensor) -> Tensor:
    """R with RᵀR = F, float64 (hidden, hidden); up to `JITTER` of F's mean diagonal."""
    # A triangle costs a tenth of the eigenvectors. F has fewer directions than channels where there are few sequences.
    damped = metric.clone()
    damped.diagonal().add_(JITTER * metric.diagonal().mean())
    scaled: Tensor
    scaled, failed = torch.linalg.cholesky_ex(damped, upper=True)
    if not int(failed):
        return scaled
    values, vectors = torch.linalg.eigh(metric)
    scaled = values.clamp_min(0).sqrt()[:, None] * vectors.T
    return scaled


def divergences(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> Tensor:
    """Kullback–Leibler divergence KL(ours ‖ theirs) of every prediction, float64 (predictions,).

    Args:
        ours: logits, each (rows, classes). One class is a regression: half the squared difference.
        theirs: the other model's, in the same order.
    """
    found = []
    for mine, other in zip(ours, theirs, strict=True):
        if mine.shape[-1] == 1:
            found.append(0.5 * (mine.double() - other.double()).square().sum(-1))
        else:
            log, other_log = mine.double().log_softmax(-1), other.double().log_softmax(-1)
            found.append((log.exp() * (log - other_log)).sum(-1))
    return torch.cat(found)


@torch.no_grad()
def logits(model: nn.Module, batches: Sequence[Batch], precision: Precision) -> list[Tensor]:
    """Logits of each batch, of tokens that are no padding where each token has a prediction of its own.

    Of a language model only every `STRIDE`-th token's: those of all would fill any memory.
    """
    device, found = device_of(model), []
    network: Any = model
    if is_language_model(model):
        for batch, hidden in zip(batches, last_hidden(model, batches, precision), strict=True):
            rows = hidden[batch["attention_mask"].bool().to(device)][STRIDE - 1 :: STRIDE]
            with precision.forward(device):
                found.append(network.get_output_embeddings()(rows))
        return found
    for batch in batches:
        batch = to_device(batch, device)
        with precision.forward(device):
            result = model(**batch)
        for name in LOGITS:
            if name in result:
                one = result[name]
                found.append(one[batch["attention_mask"].bool()] if one.dim() == 3 else one)
    return found


def is_language_model(model: nn.Module) -> bool:
    """Whether each token's prediction is of the next one, over the vocabulary."""
    network: Any = model
    return anatomy.family_of(network.config).causal and network.get_output_embeddings() is not None


def _attention(keep: Tensor) -> AbstractContextManager[None]:
    """The kernel whose backward pass is the quicker one: on CPUs, for short sequences, not the fused one."""
    short = keep.device.type == "cpu" and keep.shape[1] <= SHORT
    return sdpa_kernel(SDPBackend.MATH) if short else nullcontext()


def _direction(logits: Tensor, keep: Tensor, generator: torch.Generator) -> Tensor:
    """B u for each prediction, none for padding, in the logits' shape and type."""
    found = direction(logits, generator, many=logits.dim() == 3)
    return (found * keep[:, :, None] if logits.dim() == 3 else found).to(logits.dtype)


def _follow(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let gradients begin at the hidden states that enter the first layer."""
    if arguments:
        return (arguments[0].detach().requires_grad_(True), *arguments[1:]), named
    return arguments, {**named, "hidden_states": named["hidden_states"].detach().requires_grad_(True)}


def _keeper(outputs: Outputs, place: tuple[int, str]) -> Any:
    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        # That of a layer without heads is its bias, which depends on nothing.
        outputs[place] = output if output.requires_grad else output.requires_grad_(True)
        return outputs[place]

    return keep
