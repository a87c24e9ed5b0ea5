"""GPTQ: rounding a weight matrix so that its outputs change least (Frantar et al., arXiv 2210.17323).

For outputs W x over calibration inputs x, the squared error of rounded weights Q is tr((W − Q) H (W − Q)ᵀ) with
H = 2 Σ x xᵀ. Inputs are rounded in turn; what rounding one of them loses is made up for by those that are not rounded
yet, as the inverse of H says (section 3.3 of the paper). With the Cholesky factor H⁻¹ = Uᵀ U, U upper triangular, row i
of U holds all that step i needs: the error is e = (w_i − q_i) / U_ii, and inputs j > i lose e U_ij.

Within a block of inputs corrections are applied at once, to all later inputs in one matrix product when the block is
done. All errors together satisfy W − Q = E U, so that the damped error is simply ‖E‖².
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splora.posttraining.core.products import Products
from splora.posttraining.quantize.grid import (
    GridOptions,
    QuantizedWeight,
    assemble,
    fit_grid,
    round_to_nearest,
    to_codes,
)

#: Inputs of a block, at most.
BLOCK = 128
#: By how much damping grows where it was too little for a Cholesky factor, and how often that is tried.
GROWTH, ATTEMPTS = 10.0, 8


class Hessian:
    """H = 2 Σ x xᵀ of a linear layer's inputs, added up over batches, float32 (in, in)."""

    def __init__(self, inputs: int, device: torch.device) -> None:
        self._products = Products(inputs, device)
        self.tokens = 0

    def add(self, inputs: Tensor) -> None:
        """Add inputs of some tokens, (tokens, in)."""
        self._products.add(inputs.float())
        self.tokens += len(inputs)

    def matrix(self) -> Tensor:
        """H, divided by the number of tokens, which changes no result; float32 (in, in)."""
        return self._products.matrix() * (2.0 / max(1, self.tokens))


@dataclass(frozen=True)
class Factor:
    """What all weights that share inputs have in common.

    Attributes:
        upper: U with (H + damping · I)⁻¹ = Uᵀ U in the order of rounding, float32 (in, in).
        order: inputs in the order of rounding, int64 (in,); None: as they stand.
        damping: added to the diagonal.
    """

    upper: Tensor
    order: Tensor | None
    damping: float


def factorize(hessian: Tensor, damping: float = 0.01, act_order: bool = False) -> Factor:
    """The Cholesky factor of the damped inverse.

    Args:
        hessian: H, (in, in).
        damping: as a fraction of H's mean diagonal; where it is too little for a factor, it grows tenfold until it is
            enough.
        act_order: round inputs of large mean square first.
    """
    exact = hessian.double()
    order = exact.diagonal().argsort(descending=True, stable=True) if act_order else None
    if order is not None:
        exact = exact[order][:, order]
    unit = float(exact.diagonal().mean()) if len(exact) else 0.0
    added = damping * unit if unit > 0 else 1.0  # inputs that are all zero: nothing is to be made up for
    identity = torch.eye(len(exact), dtype=exact.dtype, device=exact.device)
    for attempt in range(ATTEMPTS + 1):
        damped = exact.flip(0, 1)
        damped.diagonal().add_(added)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            # Turned back, it is an upper triangle R with H = R Rᵀ: U is R⁻¹, and H⁻¹ itself is not needed.
            upper = torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
            return Factor(upper.float(), order, added)
        added = max(added * GROWTH, 1e-6 * unit) if attempt < ATTEMPTS - 1 else unit
    return Factor(identity.float(), order, added)


def gptq(weight: Tensor, factor: Factor, options: GridOptions) -> QuantizedWeight:
    """Round a weight matrix.

    A row for which rounding to nearest happens to give the smaller output error is rounded to nearest: the rule is
    greedy, and rows do not depend on one another. With `act_order`, grids are those of the original weights, so that
    groups are neighbours in storage; else a group's grid fits its weights as corrected so far.

    Args:
        weight: (out, in).
        factor: of the layer's inputs.
    """
    nearest = round_to_nearest(weight, options)
    # Always a copy: the transpose of a single row would be contiguous as it is.
    columns = weight.detach().float().T.clone(memory_format=torch.contiguous_format)
    width, block = options.width(len(columns)), block_size(options, len(columns))
    order, upper = factor.order, factor.upper
    if order is not None:
        columns = columns[order]
        grids = [(step.float(), zero.float()) for step, zero in zip(nearest.steps.T, nearest.zeros.T, strict=True)]
    else:
        grids = []
    where = range(len(columns)) if order is None else order.tolist()
    codes, errors = torch.empty_like(columns), torch.empty_like(columns)
    for start in range(0, len(columns), block):
        end = min(start + block, len(columns))
        own, local = columns[start:end], upper[start:end, start:end]
        diagonal = local.diagonal().tolist()
        for i, row in enumerate(own.unbind()):
            if order is None and (start + i) % width == 0:
                # Blocks end where groups do, or begin where they do: nothing of the group awaits a correction.
                grids.append(fit_grid(columns[start + i : start + i + width], options))
            step, zero = grids[where[start + i] // width]
            code = to_codes(row, step, zero, options)
            error = (row - (code - zero) * step).div_(diagonal[i])
            # Not `addr_`, which makes another matrix of its size.
            own[i + 1 :].addcmul_(local[i, i + 1 :, None], error, value=-1)
            codes[start + i], errors[start + i] = code, error
        columns[end:].addmm_(upper[start:end, end:].T, errors[start:end], alpha=-1)
    if order is not None:
        codes = codes[order.argsort()]
    steps, zeros = zip(*grids, strict=True)
    found = assemble(codes, list(steps), list(zeros), options)
    return _better_rows(weight, factor, found, nearest, errors)


def block_size(options: GridOptions, inputs: int) -> int:
    """Inputs of a block: whole groups, or a whole part of a group; at most `BLOCK`."""
    width = options.width(inputs)
    if width <= BLOCK:
        return BLOCK // width * width
    if options.group_size is None or width == inputs:
        return BLOCK
    return max(size for size in range(1, BLOCK + 1) if width % size == 0)


def output_errors(difference: Tensor, hessian: Tensor) -> Tensor:
    """(w − q) H (w − q)ᵀ of each output row: `difference` (out, in), H (in, in); float64 (out,)."""
    exact = difference.double()
    return ((exact @ hessian.double()) * exact).sum(1)


def _better_rows(
    weight: Tensor, factor: Factor, found: QuantizedWeight, nearest: QuantizedWeight, errors: Tensor
) -> QuantizedWeight:
    """Of each output row, the version with the smaller error without damping; `errors`: E, (in, out)."""
    away, near = weight.float() - found.dequantize(), weight.float() - nearest.dequantize()
    ordered = near if factor.order is None else near[:, factor.order]
    theirs = torch.linalg.solve_triangular(factor.upper, ordered, upper=True, left=False)
    ours = errors.square().sum(0) - factor.damping * away.square().sum(1)
    keep = (ours <= theirs.square().sum(1) - factor.damping * near.square().sum(1))[:, None]
    return QuantizedWeight(
        torch.where(keep, found.codes, nearest.codes),
        torch.where(keep, found.steps, nearest.steps),
        torch.where(keep, found.zeros, nearest.zeros),
        found.options,
    )
