"""Columns of a run that contradict each other: what is learned from whom, and what is pruned before and while training.

Imports neither torch nor lightning.
"""

from __future__ import annotations

import itertools
import math

from splora.errors import InputError, cut
from splora.masks.criteria import CRITERIA, KNOWN_INITS, PENALTIES, UNITS
from splora.posttraining.core.method import commands
from splora.training.columns import DIVERGENCE, Problem, RunSpecification


def contradictions(spec: RunSpecification) -> list[Problem]:
    """Settings that make no sense together, a sentence each."""
    checks = (_criterion, _distillation, _labelled, _judged_by, _known_scores, _prune_first)
    return [problem for check in checks for problem in check(spec)]


def parsed_weights(text: str) -> list[float]:
    """Numbers of a list as `hidden_weights` holds it.

    Raises:
        InputError: something else stands there, or no weight is above 0.
    """
    try:
        weights = [float(part) for part in str(text).split(",")]
    except ValueError:
        weights = []
    if not weights or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise InputError(f"is {cut(text)}; numbers from 0 on are needed, one for each layer, as 1,1,2")
    return weights


def _distillation(spec: RunSpecification) -> list[Problem]:
    """States are learned from a teacher; without one their weights would say nothing."""
    weights = {name: getattr(spec, name) for name in ("alpha_hidden", "alpha_attention")}
    problems = []
    if spec.teacher_name_or_path is None:
        told = "but teacher_name_or_path is empty: there are no states to learn from"
        problems += [Problem(name, f"is {value:g}, {told}") for name, value in weights.items() if value]
    elif not any((spec.alpha_ce, spec.alpha_distil, *weights.values())):
        problems.append(Problem("alpha_ce", "is 0, as are all other weights of the loss: nothing would be learned"))
    if spec.hidden_weights is not None:
        try:
            parsed_weights(spec.hidden_weights)
        except InputError as error:
            problems.append(Problem("hidden_weights", error.problems[0]))
    return problems


def _labelled(spec: RunSpecification) -> list[Problem]:
    """Without labels there must be a teacher, and nothing else may ask for them."""
    if spec.labelled:
        return []
    if spec.teacher_name_or_path is None:
        return [
            Problem(
                "labelled",
                "is FALSE, but teacher_name_or_path is empty: there is nothing to learn from; name a teacher",
            )
        ]
    problems = []
    if spec.alpha_ce:
        told = f"is {spec.alpha_ce:g}, but labelled is FALSE: there is no loss of the task; set alpha_ce to 0"
        problems.append(Problem("alpha_ce", told))
    if spec.mask_init == "fisher" and spec.criterion.has_scores:
        told = "is fisher, whose gradients are of the task's loss, but labelled is FALSE; stat looks at no labels"
        problems.append(Problem("mask_init", told))
    return problems


def _judged_by(spec: RunSpecification) -> list[Problem]:
    """A divergence is one from a teacher, on examples that are held out."""
    if spec.judged_by != DIVERGENCE or not (spec.best_checkpoint or spec.early_stopping):
        return []
    missing = [name for name in ("teacher_name_or_path", "held_out") if not getattr(spec, name)]
    told = f"is {DIVERGENCE}, from a teacher's predictions on held-out examples, but {' and '.join(missing)} is empty"
    return [Problem("judged_by", told)] if missing else []


def _criterion(spec: RunSpecification) -> list[Problem]:
    """What a criterion takes; MACs are shared out by a ranking of all heads and neurons."""
    criterion, name = spec.criterion, spec.pruning_method
    problems = [
        Problem(field, f"is {value}; {name} takes {criterion.threshold.words}")
        for field in ("initial_threshold", "final_threshold")
        if criterion.prunes and not criterion.threshold.holds(value := getattr(spec, field))
    ]
    if criterion.has_scores and spec.mask_scores_learning_rate is None:
        problems.append(Problem("mask_scores_learning_rate", f"is empty, but {name} learns mask scores"))
    if name in CRITERIA and spec.regularization in PENALTIES and spec.regularization not in criterion.penalties:
        why = "has no scores to penalize" if not criterion.has_scores else f"takes {', '.join(criterion.penalties)}"
        problems.append(Problem("regularization", f"is {spec.regularization}, but {name} {why}"))
    if criterion.prunes and spec.pruning_units in UNITS and spec.pruning_units not in criterion.units:
        told = f"is {spec.pruning_units}, but masks of {name} lie over {', '.join(criterion.units)}"
        problems.append(Problem("pruning_units", told))
    if spec.threshold_of == "macs" and name != "none":
        able = " or ".join(each.name for each in CRITERIA.values() if each.is_global)
        told = f"and threshold_of macs needs {able} over heads_and_neurons, whose ranking is one for the whole encoder"
        fits = {"pruning_method": criterion.is_global, "pruning_units": spec.pruning_units == "heads_and_neurons"}
        problems += [
            Problem(field, f"is {getattr(spec, field)}, {told}") for field, is_fit in fits.items() if not is_fit
        ]
    return problems


def _known_scores(spec: RunSpecification) -> list[Problem]:
    """Scores that start by rank need a range to be spread over."""
    if spec.mask_init in KNOWN_INITS and spec.criterion.has_scores and not spec.mask_scale > 0:
        told = f"is {spec.mask_scale:g}, and {spec.mask_init} spreads scores over it; a number above 0 is needed"
        return [Problem("mask_scale", told)]
    return []


def _prune_first(spec: RunSpecification) -> list[Problem]:
    """What is pruned before training leaves what the masks can hold, and more than they keep."""
    name, text = "prune_first_budget", spec.prune_first_budget
    if spec.prune_first == "none":
        return [] if text is None else [Problem(name, f"is {cut(text)}, but prune_first is none")]
    budgets, kept = spec.budgets, spec.kept_by_masks
    falling = all(later < earlier * kept for earlier, later in itertools.pairwise(budgets))
    if not budgets or not falling or not all(0 < budget < 1 for budget in budgets):
        told = "is empty" if text is None else f"is {cut(text)}"
        own = f" times the {kept:g} that the row's masks keep of it" * (kept < 1 and len(budgets) > 1)
        return [Problem(name, f"{told}; fractions between 0 and 1 are needed, each smaller than the one before{own}")]
    if spec.prune_first not in commands():
        return _prune_blocks_first(spec)
    if spec.pruning_method != "none" and spec.pruning_units == "blocks":
        told = f"is blocks, which need not divide what prune_first {spec.prune_first} leaves; heads_and_neurons can"
        return [Problem("pruning_units", told)]
    return []


def _prune_blocks_first(spec: RunSpecification) -> list[Problem]:
    """Zeros in blocks stay where masks of the row keep them."""
    if spec.pruning_method == "none" or spec.pruning_units != "blocks":
        told = f"is {spec.pruning_method}, and only masks of blocks keep the zeros that prune_first blocks leaves"
        return [Problem("pruning_method", told)]
    if spec.criterion.has_scores and spec.mask_init not in ("magnitude", "stat"):
        told = f"is {spec.mask_init}, and only magnitude and stat rank the zeros that prune_first blocks leaves lowest"
        return [Problem("mask_init", told)]
    if len(spec.budgets) > 1:
        told = f"is {spec.prune_first_budget}, and the masks of a row keep one fraction of its blocks; give one budget"
        return [Problem("prune_first_budget", told)]
    return [
        Problem(
            field,
            f"is {getattr(spec, field):g}, and prune_first blocks leaves {spec.budgets[0]:g} of the blocks: what it "
            f"chose would train back; set {field} to that",
        )
        for field in ("initial_threshold", "final_threshold")
        if spec.criterion.is_fraction and getattr(spec, field) > spec.budgets[0]
    ]
