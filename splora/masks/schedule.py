"""How the threshold v and the penalty's weight λ move over a run: pure functions of the step.

The cubic schedule of Zhu & Gupta (1710.01878, eq. 1), with the warm-up and cool-down of Sanh et al. (2005.07683).
"""

from __future__ import annotations

from splora.errors import InputError


def threshold_at(
    step: int,
    total_steps: int,
    initial: float,
    final: float,
    warmup: float,
    initial_warmup: float,
    final_warmup: float,
) -> float:
    """v at optimizer step `step`, 0 … total_steps.

    `initial` while step ≤ initial_warmup · warmup, `final` when step > total_steps − final_warmup · warmup, and
    between them final + (initial − final)(1 − progress)³. Where the warm-ups take longer than the run, v jumps.

    Args:
        warmup: the unit of both warm-ups, in steps.
    """
    start = initial_warmup * warmup
    end = total_steps - final_warmup * warmup
    if step <= start:
        return initial
    # At the end itself the cubic has arrived; beyond it, as for warm-ups that overlap, nothing is left to divide by.
    if step >= end:
        return final
    left = 1 - (step - start) / (end - start)
    return final + (initial - final) * left**3


def lambda_at(threshold: float, final_threshold: float, final_lambda: float) -> float:
    """λ at threshold v: final_lambda · v / final_threshold.

    Raises:
        InputError: final_threshold is 0 and final_lambda is not.
    """
    if final_lambda == 0:
        return 0.0
    if final_threshold == 0:
        raise InputError("final_threshold is 0, but λ is scheduled as final_lambda · v / final_threshold.")
    return final_lambda * threshold / final_threshold
