"""How a model is quantized, and what can be found wrong with it beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field

from splora.errors import InputError, nearest
from splora.posttraining.core.choices import QUANTIZERS, STORAGES, Quantizer, Storage
from splora.posttraining.quantize.grid import GridOptions


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
    method: Quantizer = "gptq"
    act_order: bool = False
    damping: float = 0.01
    storage: Storage = "auto"

    def check(self, widest: int | None = None) -> None:
        """Find values that are not allowed.

        Args:
            widest: inputs of the model's widest linear; None: not known yet.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = []
        try:
            self.grid.check(widest if widest is not None else self.grid.group_size or 0)
        except InputError as error:
            problems += error.problems
        for option, value, allowed in (("--method", self.method, QUANTIZERS), ("--states", self.storage, STORAGES)):
            if value not in allowed:
                problems.append(
                    f"{option} is {value!r}; allowed are {', '.join(allowed)}{nearest(value, allowed) or '.'}"
                )
        if not 0 <= self.damping < float("inf"):
            problems.append(f"--damping is {self.damping:g}; it must be 0 or larger.")
        if problems:
            raise InputError(problems)
