"""Whether predictions are clearly worse than chance: then outputs stand in another order than their names say."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from splora.errors import InputError
from splora.tasks.glue_tasks import GlueTask

#: By so much another order of the outputs must have the better mean recall, or a correlation must be negative ...
MARGIN = 0.2
#: ... and by so many standard errors.
CERTAIN = 5.0


def check_sense(
    name: str, logits: npt.NDArray[Any], labels: npt.NDArray[Any], names: dict[str, int], task: GlueTask
) -> None:
    """Refuse a fine-tuned model that is clearly worse than chance on examples of its own task.

    Judged by the mean recall of the labels, which is the same for every model that always says the same.

    Args:
        name: the model's, for the message.
        logits: float (examples, outputs).
        labels: numbers of outputs, or scores, (examples,).
        names: number of each label's output by name; empty of a regression.

    Raises:
        InputError: it is.
    """
    if not names:
        correlation = _correlation(logits[:, 0], labels)
        if correlation < -MARGIN and correlation * math.sqrt(len(labels)) < -CERTAIN:
            raise InputError(
                f"{name}: its scores go down where the data's go up (correlation {correlation:.2f}), clearly worse "
                f"than chance; it is a model of something else."
            )
        return
    predicted = logits.argmax(1)
    own = float((predicted == labels).mean())
    best = max(permutations(range(len(names))), key=lambda order: _gain(predicted, labels, order)[0])
    gain, error = _gain(predicted, labels, best)
    if gain > MARGIN and gain > CERTAIN * error:
        found = float((np.array(best)[labels] == predicted).mean())
        order = ", ".join(sorted(names, key=lambda label: names[label]))
        raise InputError(
            f"{name}: {100 * own:.1f} % of its predictions are right, clearly below chance; its outputs were taken for "
            f"{order}, and in another order {100 * found:.1f} % are right: name each output by its label in id2label "
            f"of config.json."
        )


def _gain(predicted: npt.NDArray[Any], labels: npt.NDArray[Any], order: tuple[int, ...]) -> tuple[float, float]:
    """By how much mean recall grows where label i is told by output `order[i]`, and its standard error."""
    gains, variances = [], []
    for label, output in enumerate(order):
        rows = predicted[labels == label]
        if len(rows):
            change = (rows == output).astype(float) - (rows == label)
            gains.append(change.mean())
            variances.append((change.var() + 1 / len(rows)) / len(rows))  # of few rows, never nothing
    return float(np.mean(gains)), math.sqrt(sum(variances)) / len(gains)


def _correlation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Pearson's, 0 where one of them does not vary."""
    if len(first) < 2 or not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
