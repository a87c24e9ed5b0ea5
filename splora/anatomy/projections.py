"""A linear function that does not stand alone in a module: a part of a fused one, or one whose weight is transposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle


class Projection:
    """Reads like the `nn.Linear` it stands for; what is written into its weight and bias stands in the module's.

    Args:
        module: holds a weight, and maybe a bias.
        rows: of its outputs, those that are meant; None: all.
        transposed: whether its weight is (in, out), as that of transformers' `Conv1D`.
    """

    def __init__(self, module: nn.Module, rows: slice | None = None, *, transposed: bool = False) -> None:
        self.module: Any = module
        self.rows, self.transposed = rows, transposed

    @property
    def weight(self) -> Tensor:
        """(out, in), a view of the module's."""
        weight: Tensor = self.module.weight.T if self.transposed else self.module.weight
        return weight if self.rows is None else weight[self.rows]

    @weight.setter
    def weight(self, value: nn.Parameter) -> None:
        assert self.rows is None, "a part of a weight is written into, not replaced"
        own = value.detach().T.contiguous() if self.transposed else value.detach()
        self.module.weight = nn.Parameter(own, requires_grad=value.requires_grad)

    @property
    def bias(self) -> Any:
        """(out,), a view of the module's; None where it has none."""
        bias = self.module.bias
        return bias if bias is None or self.rows is None else bias[self.rows]

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return int(self.weight.shape[0])

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        if self.rows is None:
            whole: Tensor = self.module(x)
            return whole
        return F.linear(x, self.weight, self.bias)

    def register_forward_pre_hook(self, hook: Any, **options: Any) -> RemovableHandle:
        """On the module, which gets what this part gets."""
        handle: RemovableHandle = self.module.register_forward_pre_hook(hook, **options)
        return handle

    def register_forward_hook(self, hook: Any, **options: Any) -> RemovableHandle:
        """On the module, all of whose outputs must be meant."""
        assert self.rows is None, "what a part puts out is no tensor of its own"
        handle: RemovableHandle = self.module.register_forward_hook(hook, **options)
        return handle


#: What computes a linear function.
Linear = nn.Linear | Projection


def shares(roles: Sequence[str], rows: Mapping[str, int], total: int) -> dict[str, slice]:
    """The rows of each of the roles that one weight holds, one after another.

    Args:
        rows: how many a unit has in a role, where that is not one.
        total: rows of the weight.
    """
    parts = [rows.get(role, 1) for role in roles]
    ends = list(accumulate(total * part // sum(parts) for part in parts))
    return {role: slice(start, end) for role, start, end in zip(roles, [0, *ends], ends, strict=False)}
