"""Grids of evenly spaced values: how a weight matrix is rounded to a few bits, and what it is afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splora.export.packing import dequantize
from splora.posttraining.core.choices import BITS as BITS
from splora.posttraining.quantize.options import GridOptions as GridOptions

#: Smallest and largest step that fp16 holds: steps are stored so.
STEPS = (2.0**-24, 65504.0)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight matrix on a grid.

    Attributes:
        codes: uint8 (out, in), from 0 to 2^bits − 1.
        steps: distance of neighbouring values, float16 (out, groups).
        zeros: codes of the value zero, uint8 (out, groups).
    """

    codes: Tensor
    steps: Tensor
    zeros: Tensor
    options: GridOptions

    def dequantize(self) -> Tensor:
        """(code − zero) · step, float32 (out, in); the same numbers wherever they are computed."""
        return dequantize(self.codes, self.steps, self.zeros, self.options.width(self.codes.shape[1]))

    def split(self, rows: list[int]) -> list[QuantizedWeight]:
        """Parts of these numbers of output rows."""
        parts = zip(self.codes.split(rows), self.steps.split(rows), self.zeros.split(rows), strict=True)
        return [QuantizedWeight(codes.contiguous(), steps, zeros, self.options) for codes, steps, zeros in parts]


def fit_grid(weight: Tensor, options: GridOptions) -> tuple[Tensor, Tensor]:
    """Step and zero of one group of each output row, from its smallest and largest weight.

    Args:
        weight: float32 (in, out): transposed, as GPTQ works on inputs.

    Returns:
        Steps, float32 (out,), of values that fp16 holds; codes of zero, float32 (out,).
    """
    low, high = weight.amin(0).clamp(max=0), weight.amax(0).clamp(min=0)
    if options.symmetric:
        high = torch.maximum(high, -low)
        low = -high
    step = (high - low) / options.highest
    # A row of zeros: any step will do.
    step = torch.where(step > 0, step, 1.0).clamp(*STEPS).half().float()
    if options.symmetric:
        return step, torch.full_like(step, (options.highest + 1) // 2)
    return step, (-low / step).round().clamp(0, options.highest)


def to_codes(weight: Tensor, step: Tensor, zero: Tensor, options: GridOptions) -> Tensor:
    """Codes of the nearest grid values, float32, of the shape of `weight` (in, out) or (out,)."""
    return (weight / step).round_().add_(zero).clamp_(0, options.highest)


def round_to_nearest(weight: Tensor, options: GridOptions) -> QuantizedWeight:
    """Each weight to the nearest value of its group's grid: the baseline.

    Args:
        weight: (out, in).
    """
    columns = weight.detach().float().T
    width = options.width(len(columns))
    codes, steps, zeros = torch.empty_like(columns), [], []
    for start in range(0, len(columns), width):
        group = columns[start : start + width]
        step, zero = fit_grid(group, options)
        codes[start : start + width] = to_codes(group, step, zero, options)
        steps.append(step)
        zeros.append(zero)
    return assemble(codes, steps, zeros, options)


def assemble(codes: Tensor, steps: list[Tensor], zeros: list[Tensor], options: GridOptions) -> QuantizedWeight:
    """A quantized weight of codes (in, out) and of the steps and zeros (out,) of each group, all float32."""
    return QuantizedWeight(
        codes.T.to(torch.uint8).contiguous(),
        torch.stack(steps, 1).half(),
        torch.stack(zeros, 1).to(torch.uint8),
        options,
    )
