"""Perplexity as the GPTQ and OPT literature computes it.

A text is cut into windows of the model's length that share no token. Within a window each token but the first is
predicted from those before it. That literature takes each window's mean over its width − 1 predictions, times the
width, sums over windows and divides by windows · width before it takes the exponential: as windows are of one width,
the exponential of the mean over all predictions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt


def perplexity(losses: npt.NDArray[Any], width: int) -> float:
    """exp(mean negative log-likelihood per predicted token).

    Args:
        losses: negative log-likelihoods in nats, summed over each window's width − 1 predictions; (windows,).
        width: tokens per window.

    Returns:
        Infinity where the exponential is too large for a number.
    """
    mean = float(np.asarray(losses, np.float64).mean()) / (width - 1)
    return math.exp(mean) if mean < 700 else math.inf
