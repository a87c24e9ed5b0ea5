"""How a model is quantized, and what can be found wrong with it beforehand. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from splora.errors import InputError, problems_of
from splora.posttraining.core.choices import BITS, Quantizer, Storage, states_option
from splora.posttraining.core.options import at_least, option, wrong_values

#: Neighbouring weights that share a step, where nobody says how many.
GROUP_SIZE = 128
#: A smaller group than this would spend more bits on its step than it saves.
SMALLEST_GROUP = 8


@dataclass(frozen=True)
class GridOptions:
    """Which grid.

    Attributes:
        bits: per weight: 2, 3, 4 or 8.
        group_size: neighbouring inputs of an output row that share a step; None: the whole row does. The last group
            of a row may be smaller.
        symmetric: zero is the grid's middle; else the grid runs from the smallest to the largest weight and holds zero.
    """

    bits: int = option(4, "per weight", "--bits", allowed=BITS)
    group_size: int | None = None
    symmetric: bool = option(False, "zero is the middle of the grid (default: where it fits)", "--symmetric")

    @property
    def highest(self) -> int:
        """Largest code."""
        return (1 << self.bits) - 1

    def check(self, widest: int) -> None:
        """Find options that do not fit a model.

        Args:
            widest: inputs of the widest linear layer to be quantized.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = wrong_values(self, as_flags=True)
        if self.group_size is not None and (self.group_size < SMALLEST_GROUP or self.group_size % SMALLEST_GROUP):
            problems.append(
                f"--group-size is {self.group_size}; it must be a multiple of {SMALLEST_GROUP}, or -1 for whole rows."
            )
        elif self.group_size is not None and self.group_size > widest:
            problems.append(
                f"--group-size is {self.group_size}, but the widest row has {widest} weights; give less, or -1 for "
                f"whole rows."
            )
        if problems:
            raise InputError(problems)

    def width(self, inputs: int) -> int:
        """Inputs of a group in rows of `inputs`."""
        return max(1, inputs if self.group_size is None else min(self.group_size, inputs))

    def groups(self, inputs: int) -> int:
        """Groups of a row."""
        return -(-inputs // self.width(inputs))


@dataclass(frozen=True)
class QuantizeOptions:
    """How a model is quantized.

    Attributes:
        grid: bits, groups, symmetry.
        method: `gptq`, or `rtn`: each weight to the nearest value, the baseline, which needs no samples.
        act_order: round inputs of large mean square first.
        damping: added to the Hessian's diagonal, as a fraction of its mean.
        storage: where hidden states are kept between layers.
    """

    grid: GridOptions = field(default_factory=GridOptions)
    method: Quantizer = option("gptq", "rtn rounds each weight to the nearest: a baseline", "--method")
    act_order: bool = option(False, "round inputs of large mean square first", "--act-order")
    damping: float = option(
        0.01, "added to the Hessian's diagonal, as a fraction of its mean", "--damping", **at_least(0)
    )
    storage: Storage = states_option()

    def check(self, widest: int | None = None) -> None:
        """Find values that are not allowed.

        Args:
            widest: inputs of the model's widest linear; None: not known yet.

        Raises:
            InputError: one sentence for each finding.
        """
        size = widest if widest is not None else self.grid.group_size or 0
        problems = problems_of(lambda: self.grid.check(size)) + wrong_values(self, as_flags=True)
        if problems:
            raise InputError(problems)
