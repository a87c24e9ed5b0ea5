"""What decides which blocks or units stay: one object for each way to prune, and everything that is said of it.

To add one, write its class here and its instance into `CRITERIA`: the sheet's columns, the checks, masks in training,
help, charts and reports read nothing else. Torch is imported where a mask is made, not before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from splora.masks.block_mask import BlockMask

    Means = Callable[[], Tensor] | None

#: What masks lie over (see `splora.masks.units`).
UNITS = ("blocks", "heads_and_neurons", "hybrid", "hybrid_filled")
#: Penalties on scores, functions of `splora.masks.penalties`; `none` is none.
PENALTIES = ("none", "l0", "l1")
#: Scores that start from what is known of blocks or units (see `first_scores`); until then all are 0.
KNOWN_INITS = ("magnitude", "fisher", "stat")
#: First scores.
INITS = ("constant", "uniform", "kaiming", *KNOWN_INITS)


@dataclass(frozen=True)
class Range:
    """The thresholds that a criterion takes: in words, and as a test of a number."""

    words: str
    holds: Callable[[float], bool]


ANY = Range("any number", lambda v: True)
FRACTION = Range("a fraction of blocks above 0 and up to 1", lambda v: 0 < v <= 1)
PROBABILITY = Range("a probability from 0 up to, not including, 1", lambda v: 0 <= v < 1)
POSITIVE = Range("a number above 0", lambda v: v > 0)


@dataclass(frozen=True)
class Criterion(ABC):
    """A way to prune while training; subclasses say how scores become a mask.

    Attributes:
        name: in the column `pruning_method`.
        label: in charts and tables.
        aliases: what people call it, in small letters without hyphens.
        same_as: name of the criterion of which this is another spelling; empty for most.
        threshold: what v may be.
        is_fraction: whether v is the fraction that stays.
        has_scores: whether scores are learned.
        units: what its masks may lie over, of `UNITS`.
        penalties: of `PENALTIES`, those that its scores may have.
    """

    name: str
    label: str
    aliases: tuple[str, ...] = ()
    same_as: str = ""
    threshold: Range = ANY
    is_fraction: bool = False
    has_scores: bool = True
    units: tuple[str, ...] = UNITS
    penalties: tuple[str, ...] = PENALTIES

    @property
    def prunes(self) -> bool:
        """Whether there are masks at all."""
        return self.name != "none"

    @property
    def is_global(self) -> bool:
        """Whether one ranking of all layers decides; v may then be a fraction of MACs."""
        return isinstance(self, GlobalCriterion)

    @abstractmethod
    def mask(self, mask: BlockMask, means: Means) -> Tensor:
        """The mask of this step, (R, C), with its gradient to the scores.

        Args:
            mask: has scores, threshold, and whether it trains.
            means: computes mean |W| of each block, (R, C).
        """

    def binary(self, mask: BlockMask, means: Means) -> Tensor:
        """The evaluation mask, bool (R, C)."""
        return self.mask(mask, means).bool()

    def first_scores(self, ranks: Tensor, scale: float) -> Tensor:
        """Scores that start from knowledge, of ranks between −1 and 1."""
        return scale * ranks


class LocalCriterion(Criterion):
    """Decides by the scores of one layer alone."""

    @abstractmethod
    def kept(self, scores: Tensor, v: float) -> Tensor:
        """The mask (R, C) of one layer's scores, 0 and 1, whose gradient reaches the scores."""

    def mask(self, mask: BlockMask, means: Means) -> Tensor:
        """Of the layer's scores."""
        assert mask.scores is not None
        return self.kept(mask.scores, mask.threshold)


class GlobalCriterion(Criterion):
    """Decides by the scores of all layers at once."""

    @abstractmethod
    def across(self, scores: Sequence[Tensor], costs: Sequence[float], v: float) -> list[Tensor]:
        """The masks, bool (R, C), of all layers, from their scores and, where known, what one unit of each costs."""

    def mask(self, mask: BlockMask, means: Means) -> Tensor:
        """As `update_global_cutoffs` left it."""
        from splora.masks.binarize import straight_through

        assert mask.scores is not None
        return straight_through(mask.scores, mask.global_mask)


class Everything(Criterion):
    """Prunes nothing."""

    def mask(self, mask: BlockMask, means: Means) -> Tensor:
        """Ones (R, C)."""
        import torch

        return torch.ones(mask.grid)


class Magnitude(Criterion):
    """Keeps the v fraction of blocks with the largest mean |W|."""

    def mask(self, mask: BlockMask, means: Means) -> Tensor:
        """No gradient: there are no scores."""
        import torch

        from splora.masks.binarize import magnitude

        # Not kept for the next call: no counter tells that W is the same (fused optimizers change it unseen).
        with torch.no_grad():
            return magnitude(mask.mean_magnitudes(means), mask.threshold)


class TopK(LocalCriterion):
    """Movement pruning within each layer."""

    def kept(self, scores: Tensor, v: float) -> Tensor:
        """See `binarize.topk`."""
        from splora.masks.binarize import topk

        return topk(scores, v)


class TopKGlobal(GlobalCriterion):
    """Movement pruning over all layers at once."""

    def across(self, scores: Sequence[Tensor], costs: Sequence[float], v: float) -> list[Tensor]:
        """See `binarize.keep_largest_global` and `keep_within`."""
        from splora.masks.binarize import keep_largest_global, keep_within

        return keep_within(scores, costs, v) if costs else keep_largest_global(scores, v)


class Threshold(LocalCriterion):
    """Keeps scores above v."""

    def kept(self, scores: Tensor, v: float) -> Tensor:
        """See `binarize.threshold`."""
        from splora.masks.binarize import threshold

        return threshold(scores, v)


class SigmoidThreshold(LocalCriterion):
    """Soft movement pruning: keeps σ(score) above v."""

    def kept(self, scores: Tensor, v: float) -> Tensor:
        """See `binarize.sigmoid_threshold`."""
        from splora.masks.binarize import sigmoid_threshold

        return sigmoid_threshold(scores, v)


class HardConcrete(Criterion):
    """L0 regularization: gates are sampled while training, and bits in evaluation."""

    def mask(self, mask: BlockMask, means: Means) -> Tensor:
        """A sample while training; see `binarize.hard_concrete`."""
        from splora.masks.binarize import hard_concrete

        assert mask.scores is not None
        return hard_concrete(mask.scores, mask.noise() if mask.training else None)

    def binary(self, mask: BlockMask, means: Means) -> Tensor:
        """Gates whose deterministic value is at least 1/2."""
        from splora.masks.binarize import hard_concrete

        assert mask.scores is not None
        return hard_concrete(mask.scores, None).bool()

    def first_scores(self, ranks: Tensor, scale: float) -> Tensor:
        """Gates open at 0: scores start between 0 and twice the scale."""
        return scale * ranks + scale


#: Every way to prune, in the order of lists and looks; `sigmoied_threshold` is the spelling of the published workbooks.
CRITERIA: dict[str, Criterion] = {
    each.name: each
    for each in (
        Everything("none", "dense", ("dense",), has_scores=False, penalties=("none",)),
        Magnitude(
            *("magnitude", "magnitude", ("magnitude pruning",)),
            threshold=FRACTION,
            is_fraction=True,
            has_scores=False,
            penalties=("none",),
        ),
        TopK(
            *("topK", "movement", ("movement", "local movement", "movement local", "movement pruning")),
            threshold=FRACTION,
            is_fraction=True,
        ),
        TopKGlobal(
            *("topK_global", "global movement", ("global movement", "movement global")),
            threshold=FRACTION,
            is_fraction=True,
        ),
        Threshold("threshold", "threshold"),
        SigmoidThreshold(
            *("sigmoied_threshold", "soft movement", ("soft movement", "soft movement pruning")), threshold=PROBABILITY
        ),
        SigmoidThreshold(
            *("sigmoid_threshold", "soft movement", ("sigmoid",), "sigmoied_threshold"), threshold=PROBABILITY
        ),
        HardConcrete("l0", "L0", ("l0 regularization", "hard concrete"), threshold=POSITIVE),
    )
}


def methods() -> tuple[str, ...]:
    """Names of the criteria that prune."""
    return tuple(name for name, each in CRITERIA.items() if each.prunes)


def aliases() -> dict[str, str]:
    """What people call the criteria, and what they mean."""
    return {alias: each.name for each in CRITERIA.values() for alias in each.aliases}


def named(name: str) -> Criterion:
    """The criterion of a name; that of `none` where there is none, which the checks of a run tell."""
    return CRITERIA.get(name, CRITERIA["none"])


def label_of(name: str) -> str:
    """What it is called in charts and tables; unknown names as they are."""
    return CRITERIA[name].label if name in CRITERIA else name


def look_of(name: str) -> int:
    """Number of its colour and shape in charts: spellings of one criterion share it, unknown names the last."""
    distinct = [each.name for each in CRITERIA.values() if not each.same_as]
    name = CRITERIA[name].same_as or name if name in CRITERIA else name
    return distinct.index(name) if name in distinct else len(distinct)
