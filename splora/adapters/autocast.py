"""Which precision a hand-written autograd function computes in, and how it says so."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """The type matrix products run in: autocast's for the device of `x` where it is on, else the weight's own."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which nothing is cast behind the function's back: it has chosen its types already."""
    return torch.autocast(x.device.type, enabled=False)
