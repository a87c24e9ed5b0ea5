"""What the precisions `bf16-true` and `16-true` mean here: what is frozen is stored in half, what trains in fp32."""

from __future__ import annotations

from typing import Literal

import torch
from lightning import Trainer
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision
from torch import nn

from splora.errors import InputError

_STORED = {"bf16-true": torch.bfloat16, "16-true": torch.float16}
#: Lightning's other precisions that store all weights in half or less.
_CAST_EVERYTHING = ("bf16-true", "16-true", "transformer-engine", "transformer-engine-float16")


class HalfBase(MixedPrecision):
    """Frozen parameters in half precision, trained ones in fp32; products run in half precision by autocast.

    Lightning's own `HalfPrecision` casts everything. The neighbours of a bf16 weight of 0.05 are 2⁻¹² away from it, so
    steps of 3e-5 round to nothing: nine weights in ten never move, and scores and adapters are rounded along.

    Args:
        precision: `bf16-true`, or `16-true`, whose loss is scaled as for `16-mixed`.
        device: type of the device that is trained on.
    """

    def __init__(self, precision: str, device: str) -> None:
        mixed: Literal["16-mixed", "bf16-mixed"] = "bf16-mixed" if precision == "bf16-true" else "16-mixed"
        super().__init__(mixed, device)
        self.precision = precision  # as asked for: results and checkpoints name it
        self.stored = _STORED[precision]

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Cast what is frozen, in place."""
        for parameter in module.parameters():
            if not parameter.requires_grad and parameter.is_floating_point():
                parameter.data = parameter.data.to(self.stored)
        return module

    def autocast_context_manager(self) -> torch.autocast:
        """Products in the type that weights are stored in."""
        return torch.autocast(self.device, dtype=self.stored, cache_enabled=False)


def keep_trained_in_single(trainer: Trainer) -> None:
    """Put `HalfBase` in the place of Lightning's `HalfPrecision`; call it before the network is built.

    Raises:
        InputError: the strategy, or the precision, casts what trains by means of its own.
    """
    precision = str(trainer.precision)
    plugin = trainer.precision_plugin
    if isinstance(plugin, HalfBase) or precision not in _CAST_EVERYTHING:
        return
    if type(plugin) is not HalfPrecision:
        strategy = type(trainer.strategy).__name__
        raise InputError(
            f"trainer.precision: is {precision!r}, which with {strategy} stores what trains in half precision, where "
            "small steps round to nothing; bf16-mixed is allowed."
        )
    trainer.strategy.precision_plugin = HalfBase(precision, trainer.strategy.root_device.type)
