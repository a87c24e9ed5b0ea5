"""What a transformers configuration says of a model, whatever its family calls it. Imports no torch."""

from __future__ import annotations

from typing import Any

from splora.anatomy.families import FAMILIES
from splora.anatomy.family import Family
from splora.errors import InputError, nearest


def family_of(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        InputError: the family, or this kind of it, is not supported; the message says which are, or why.
    """
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InputError(
            f"model type {model_type!r} is not supported; supported are {', '.join(FAMILIES)}"
            f" (a file in splora/anatomy/families/ describes another){nearest(model_type, FAMILIES) or '.'}"
        )
    family = FAMILIES[model_type]
    for name, why in family.excluded.items():
        if getattr(config, name, None):
            raise InputError(
                f"{model_type} models with {name} ({getattr(config, name)} here) are not supported: {why}."
            )
    return family


def check_trained(config: Any) -> None:
    """Refuse what rows do not train.

    Raises:
        InputError: of another family, or one that is only pruned without training.
    """
    family = family_of(config)
    if not family.is_trained:
        trained = ", ".join(name for name, other in FAMILIES.items() if other.is_trained)
        why = "whose weights are transposed" if family.transposed else "whose heads share keys and values"
        raise InputError(
            f"{family.model_type} models, {why}, are pruned and quantized without training "
            f"(splora prune stat, splora quantize); rows train {trained}."
        )


def task_models() -> list[str]:
    """Names of the transformers classes that can be trained, pruned and cut, of all families."""
    return [name for family in FAMILIES.values() for name in family.task_models]


def is_norm_first(config: Any) -> bool:
    """Whether norms come before the parts of a layer, instead of after the residual sums."""
    first = family_of(config).norm_first
    return bool(getattr(config, first) if isinstance(first, str) else first)


def head_size(config: Any) -> int:
    """Channels of one attention head; with grouped queries, of all queries of one head of key and value.

    Where layers differ, the configuration's own number of heads is that of the dense model; only its dictionary gives
    it out.
    """
    family = family_of(config)
    heads = int(vars(config)[family.sizes[0]])
    queries = int(vars(config)[family.query_heads or family.sizes[0]])
    return int(getattr(config, "head_dim", None) or config.hidden_size // queries) * (queries // heads)


def head_rows(config: Any) -> dict[str, int]:
    """Rows of one head in each linear that makes its context, by role."""
    family, size = family_of(config), head_size(config)
    group = int(vars(config)[family.query_heads or family.sizes[0]]) // int(vars(config)[family.sizes[0]])
    return {"query": size, "key": size // group, "value": size // group}


def dense_sizes(config: Any) -> tuple[list[int], list[int]]:
    """Heads and neurons of each layer before anything was cut.

    Where layers differ, the configuration's own numbers are those of the dense model; only its dictionary gives them
    out.
    """
    family = family_of(config)
    heads, neurons = (vars(config)[name] for name in family.sizes)
    neurons = 4 * int(getattr(config, family.width)) if neurons is None else neurons
    layers = int(getattr(config, family.depth))
    return [int(heads)] * layers, [int(neurons)] * layers


def set_dropout(config: Any, probability: float) -> None:
    """Replace every dropout probability of a configuration; with 0 no layer is skipped either."""
    family = family_of(config)
    for name in family.dropouts:
        setattr(config, name, probability)
    if family.layer_drop is not None and probability == 0:
        setattr(config, family.layer_drop, 0.0)
