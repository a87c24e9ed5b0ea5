"""One layer's block mask: its scores, its threshold, and the mask they make at this step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from splora.errors import InputError, nearest
from splora.masks import binarize
from splora.masks.criteria import CRITERIA, INITS, KNOWN_INITS, Criterion, GlobalCriterion, methods
from splora.masks.grid import BlockShape, grid_shape


class BlockMask(nn.Module):
    """The mask of one weight, recomputed at each call.

    Attributes:
        grid: blocks (R, C) of the weight.
        block: rows and cols (p, q) of one block.
        method: a criterion that prunes, by its name in `CRITERIA`.
        scores: parameter (R, C), or None for magnitude.
        index: the layer's number among the masked layers; tells its L0 noise from that of other layers.
        unit: what one value stands for: `block`, `head` or `neuron`. Global methods let like compete with like.
    """

    threshold_value: Tensor
    global_mask: Tensor
    fixed: Tensor | None

    def __init__(
        self,
        weight_shape: tuple[int, int],
        block: BlockShape,
        method: str,
        mask_init: str = "constant",
        mask_scale: float = 0.0,
        *,
        index: int = 0,
        where: str = "",
        unit: str = "block",
    ) -> None:
        """
        Args:
            weight_shape: (out, in) of the weight.
            mask_init: `constant` (all scores are mask_scale), `uniform` (between ∓mask_scale), `kaiming` (uniform
                between ∓1/√C, as nn.Linear's weights start), or one of `KNOWN_INITS`.
            where: the layer's name, for messages.

        Raises:
            InputError: an unknown method or mask_init, or blocks that do not divide the weight.
        """
        super().__init__()
        _one_of(method, methods(), "pruning_method", where)
        _one_of(mask_init, INITS, "mask_init", where)
        self.grid = grid_shape(weight_shape, block, where)
        self.block = block
        self.method = method
        self.criterion: Criterion = CRITERIA[method]
        self.mask_init = mask_init
        self.mask_scale = mask_scale
        self.index = index
        self.unit = unit
        #: What one value costs, in MACs; where it is known, all values of such masks compete within one budget.
        self.cost: float | None = None
        #: Mean |W| of each of its units in every linear that has a part of them; empty: in its own alone.
        self.members: list[Callable[[], Tensor]] = []
        self.scores: nn.Parameter | None
        self.register_parameter("scores", nn.Parameter(torch.empty(self.grid)) if self.criterion.has_scores else None)
        self.reset_scores()
        # The number lives on the host, where reading it waits for no GPU; the buffer carries it through checkpoints.
        self._threshold = 1.0
        self.register_buffer("threshold_value", torch.tensor(1.0, dtype=torch.float64))
        if self.criterion.is_global:
            self.register_buffer("global_mask", torch.ones(self.grid, dtype=torch.bool))
        self._seed: tuple[int, int] | None = None
        # What stays fixed once a schedule has ended; as long as nothing is, a checkpoint holds none of it.
        self.register_buffer("fixed", None)

    @torch.no_grad()
    def reset_scores(self) -> None:
        """Give the scores their initial values again."""
        if self.scores is None:
            return
        if self.mask_init == "constant" or self.mask_init in KNOWN_INITS:
            self.scores.fill_(self.mask_scale if self.mask_init == "constant" else 0.0)
        elif self.mask_init == "uniform":
            self.scores.uniform_(-self.mask_scale, self.mask_scale)
        else:
            nn.init.kaiming_uniform_(self.scores, a=math.sqrt(5))

    @property
    def rivals(self) -> str:
        """What a global criterion ranks it with: units of its kind, or all whose cost is known."""
        return self.unit if self.cost is None else "all"

    @property
    def threshold(self) -> float:
        """v of the method: a fraction of blocks, a score or a probability."""
        return self._threshold

    def set_threshold(self, v: float) -> None:
        """Set v for the steps from now on; masks of a global criterion follow at the next `update_global_cutoffs`."""
        v = float(v)
        if not math.isfinite(v):
            raise InputError(f"threshold is {v}; a finite number is needed.")
        self._threshold = v
        self.threshold_value.fill_(v)

    def seed(self, seed: int, step: int) -> None:
        """Fix the L0 noise of the coming step: the same (seed, step) draws the same gates on every process and device.

        A mask that was never seeded draws from torch's default generator, as dropout does.
        """
        self._seed = (int(seed), int(step))

    def forward(self, block_means: Callable[[], Tensor] | None = None) -> Tensor:
        """The mask of this step, (R, C), with its gradient to the scores.

        Args:
            block_means: computes the mean |W| of each block, (R, C); called for magnitude only.

        Raises:
            ValueError: magnitude without `block_means`.
        """
        if self.fixed is not None:
            # Scores get their gradient all the same: processes that train together expect one.
            return self.fixed.float() if self.scores is None else binarize.straight_through(self.scores, self.fixed)
        return self.criterion.mask(self, block_means)

    @torch.no_grad()
    def binary(self, block_means: Callable[[], Tensor] | None = None) -> Tensor:
        """The evaluation mask, bool (R, C): the blocks that stay (L0: deterministic gate at least 1/2)."""
        if self.fixed is not None:
            return self.fixed
        return self.criterion.binary(self, block_means)

    def mean_magnitudes(self, block_means: Callable[[], Tensor] | None) -> Tensor:
        """Mean |W| of each block, (R, C), over all linears that have a part of it.

        Args:
            block_means: those of its own linear, where it is alone.
        """
        if self.members:
            # Of a fused weight, the parts of several roles, one after another.
            return torch.cat([means().reshape(-1, *self.grid) for means in self.members]).mean(0)
        if block_means is None:
            raise ValueError("A magnitude mask needs block_means, the mean |W| of each block.")
        return block_means()

    @torch.no_grad()
    def fix(self, kept: Tensor) -> None:
        """Let the mask be `kept`, bool (R, C), from now on, whatever scores and threshold say."""
        self.fixed = kept.to(self.threshold_value.device).clone()

    def noise(self) -> Tensor:
        """Uniform numbers strictly inside (0, 1), fp32, (R, C), on the device of the scores."""
        assert self.scores is not None
        generator = None
        if self._seed is not None:
            # Drawn on the CPU, whose generator gives the same numbers on every machine.
            digest = hashlib.blake2b(repr((*self._seed, self.index)).encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        tiny = torch.finfo(torch.float32).eps
        noise = torch.rand(self.grid, generator=generator).clamp_(tiny, 1 - tiny)
        return noise.to(self.scores.device, non_blocking=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BlockMask:
        super()._apply(fn, recurse)
        # model.half() would round the threshold; a move may leave it uninitialized (meta devices).
        self.threshold_value = torch.tensor(self._threshold, dtype=torch.float64, device=self.threshold_value.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "fixed" in state_dict and self.fixed is None:
            self.fixed = torch.ones(self.grid, dtype=torch.bool, device=self.threshold_value.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + "threshold_value" in state_dict:
            self._threshold = float(self.threshold_value)

    def extra_repr(self) -> str:
        rows, cols = self.grid
        return f"{self.method}, {rows} × {cols} blocks of {self.block[0]} × {self.block[1]}, v={self._threshold:g}"


@torch.no_grad()
def update_global_cutoffs(masks: Sequence[BlockMask]) -> None:
    """Make the masks of all layers with a global criterion among `masks`, from their scores and their common threshold.

    Blocks compete with blocks, heads with heads, neurons with neurons: so the fraction kept of each kind is the
    threshold, and that of the MACs is, too. Masks that know what their units cost compete together, and the threshold
    is the fraction of all their costs.

    Called once per optimizer step and before an evaluation; in between the layers only read their mask. Other
    methods' masks are left alone.

    Raises:
        ValueError: the layers' thresholds differ.
    """
    layers = [mask for mask in masks if mask.criterion.is_global and mask.scores is not None]
    for method in dict.fromkeys(mask.method for mask in layers):
        thresholds = {mask.threshold for mask in layers if mask.method == method}
        if len(thresholds) > 1:
            raise ValueError(f"{method} has one threshold for all layers, found {sorted(thresholds)}.")
    for rivals in dict.fromkeys((mask.method, mask.rivals) for mask in layers):
        like = [mask for mask in layers if (mask.method, mask.rivals) == rivals]
        scores = [mask.scores for mask in like if mask.scores is not None]
        costs = [mask.cost for mask in like if mask.cost is not None]
        criterion = like[0].criterion
        assert isinstance(criterion, GlobalCriterion)
        for mask, kept in zip(like, criterion.across(scores, costs, like[0].threshold), strict=True):
            mask.global_mask.copy_(kept)


def _one_of(found: str, allowed: tuple[str, ...], option: str, where: str) -> None:
    if found not in allowed:
        place = f"{where}: " if where else ""
        raise InputError(f"{place}{option} is {found!r}; allowed are {', '.join(allowed)}{nearest(found, allowed)}.")
