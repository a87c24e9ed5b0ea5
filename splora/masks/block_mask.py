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
from splora.masks.grid import BlockShape, grid_shape

#: Methods that need nothing but a layer's scores and v; a new one is a function in `binarize` and a line here.
LOCAL: dict[str, Callable[[Tensor, float], Tensor]] = {
    "topK": binarize.topk,
    "threshold": binarize.threshold,
    "sigmoied_threshold": binarize.sigmoid_threshold,
    "sigmoid_threshold": binarize.sigmoid_threshold,
}
METHODS = ("magnitude", "topK_global", "l0", *LOCAL)
INITS = ("constant", "uniform", "kaiming", "magnitude", "fisher", "stat")
#: Those that start from what is known of the blocks (see `first_scores`); until then all scores are 0.
KNOWN_INITS = INITS[3:]


class BlockMask(nn.Module):
    """The mask of one weight, recomputed at each call.

    Attributes:
        grid: blocks (R, C) of the weight.
        block: rows and cols (p, q) of one block.
        method: one of `METHODS`.
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
        _one_of(method, METHODS, "pruning_method", where)
        _one_of(mask_init, INITS, "mask_init", where)
        self.grid = grid_shape(weight_shape, block, where)
        self.block = block
        self.method = method
        self.mask_init = mask_init
        self.mask_scale = mask_scale
        self.index = index
        self.unit = unit
        #: What one value costs, in MACs; where it is known, all values of such masks compete within one budget.
        self.cost: float | None = None
        #: Mean |W| of each of its units in every linear that has a part of them; empty: in its own alone.
        self.members: list[Callable[[], Tensor]] = []
        self.scores: nn.Parameter | None
        if method == "magnitude":
            self.register_parameter("scores", None)
        else:
            self.scores = nn.Parameter(torch.empty(self.grid))
            self.reset_scores()
        # The number lives on the host, where reading it waits for no GPU; the buffer carries it through checkpoints.
        self._threshold = 1.0
        self.register_buffer("threshold_value", torch.tensor(1.0, dtype=torch.float64))
        if method == "topK_global":
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
        """What `topK_global` ranks it with: units of its kind, or all whose cost is known."""
        return self.unit if self.cost is None else "all"

    @property
    def threshold(self) -> float:
        """v of the method: a fraction of blocks, a score or a probability."""
        return self._threshold

    def set_threshold(self, v: float) -> None:
        """Set v for the steps from now on; topK_global's masks follow at the next `update_global_cutoffs`."""
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
        if self.scores is None:
            # Not kept for the next call: no counter tells that W is the same (fused optimizers change it unseen).
            with torch.no_grad():
                return binarize.magnitude(self.mean_magnitudes(block_means), self._threshold)
        if self.method == "topK_global":
            return binarize.straight_through(self.scores, self.global_mask)
        if self.method == "l0":
            return binarize.hard_concrete(self.scores, self._noise() if self.training else None)
        return LOCAL[self.method](self.scores, self._threshold)

    @torch.no_grad()
    def binary(self, block_means: Callable[[], Tensor] | None = None) -> Tensor:
        """The evaluation mask, bool (R, C): the blocks that stay (L0: deterministic gate at least 1/2)."""
        if self.fixed is not None:
            return self.fixed
        if self.method == "l0" and self.scores is not None:
            return binarize.hard_concrete(self.scores, None).bool()
        return self.forward(block_means).bool()

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

    def _noise(self) -> Tensor:
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
    """Make the masks of all `topK_global` layers among `masks`, from their scores and their common threshold.

    Blocks compete with blocks, heads with heads, neurons with neurons: so the fraction kept of each kind is the
    threshold, and that of the MACs is, too. Masks that know what their units cost compete together, and the threshold
    is the fraction of all their costs.

    Called once per optimizer step and before an evaluation; in between the layers only read their mask. Other
    methods' masks are left alone.

    Raises:
        ValueError: the layers' thresholds differ.
    """
    layers = [mask for mask in masks if mask.method == "topK_global" and mask.scores is not None]
    thresholds = {mask.threshold for mask in layers}
    if len(thresholds) > 1:
        raise ValueError(f"topK_global has one threshold for all layers, found {sorted(thresholds)}.")
    for rivals in dict.fromkeys(mask.rivals for mask in layers):
        like = [mask for mask in layers if mask.rivals == rivals]
        scores = [mask.scores for mask in like if mask.scores is not None]
        costs = [mask.cost for mask in like if mask.cost is not None]
        if costs:
            chosen = binarize.keep_within(scores, costs, like[0].threshold)
        else:
            chosen = binarize.keep_largest_global(scores, like[0].threshold)
        for mask, kept in zip(like, chosen, strict=True):
            mask.global_mask.copy_(kept)


def _one_of(found: str, allowed: tuple[str, ...], option: str, where: str) -> None:
    if found not in allowed:
        place = f"{where}: " if where else ""
        raise InputError(f"{place}{option} is {found!r}; allowed are {', '.join(allowed)}{nearest(found, allowed)}.")
