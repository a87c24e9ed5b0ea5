"""AdamW with one group per kind of parameter, linear warm-up and linear decay."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from splora import anatomy
from splora.training.options import OptimizerOptions


def kind_of(name: str, parameter: nn.Parameter, norms: tuple[str, ...]) -> str:
    """Which group a parameter belongs to: scores, position_weights, adapter, no_decay or weights."""
    parts = name.split(".")
    if "block_mask" in name and parts[-1] == "scores":
        return "scores"
    if "position_weights" in name:
        return "position_weights"
    if any(part.startswith(("splopa_bias", "splora_bias")) for part in parts) or parameter.ndim < 2:
        return "no_decay"
    if any(part in norms for part in parts):
        return "no_decay"
    return "adapter" if any(part.startswith(("splopa_", "splora_", "lora_")) for part in parts) else "weights"


def parameter_groups(model: nn.Module, options: OptimizerOptions) -> list[dict[str, Any]]:
    """Optimizer groups of all trained parameters: a rate and a weight decay for each kind (DESIGN, learning rates)."""
    norms = tuple(anatomy.norm_names(model))
    rates = {
        "scores": options.mask_scores_learning_rate,
        "position_weights": options.position_weights_learning_rate,
        "adapter": options.adapter_learning_rate,
    }
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(kind_of(name, parameter, norms), []).append(parameter)
    return [
        {
            "name": kind,
            "params": parameters,
            "lr": options.learning_rate if rates.get(kind) is None else rates[kind],
            "weight_decay": 0.0 if kind in ("scores", "no_decay") else options.weight_decay,
        }
        for kind, parameters in sorted(groups.items())
    ]


def rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Factor of the rates at an optimizer step: 0 → 1 over `warmup_steps`, then linearly to 0 at `total_steps`."""
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def make_optimizer(
    model: nn.Module, options: OptimizerOptions, warmup_steps: int, total_steps: int, fused: bool = True
) -> tuple[Optimizer, LambdaLR]:
    """The optimizer, and its schedule to be stepped once per optimizer step.

    Args:
        fused: one pass over each parameter instead of a dozen; not for fp16, whose loss scale it would hide.
    """
    optimizer = AdamW(parameter_groups(model, options), lr=options.learning_rate, eps=1e-8, fused=fused)
    return optimizer, LambdaLR(optimizer, lambda step: rate_factor(step, warmup_steps, total_steps))
