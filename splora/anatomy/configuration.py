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
            f"{nearest(model_type, FAMILIES)}."
        )
    family = FAMILIES[model_type]
    for name, why in family.excluded.items():
        if getattr(config, name, None):
            raise InputError(
                f"{model_type} models with {name} ({getattr(config, name)} here) are not supported: {why}."
            )
    return family


def task_models() -> list[str]:
    """Names of the transformers classes that can be trained, pruned and cut, of all families."""
    return [name for family in FAMILIES.values() for name in family.task_models]


def head_size(config: Any) -> int:
    """Channels of one attention head.

    Where layers differ, the configuration's own number of heads is that of the dense model; only its dictionary gives
    it out.
    """
    heads = int(vars(config)[family_of(config).sizes[0]])
    return int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def dense_sizes(config: Any) -> tuple[list[int], list[int]]:
    """Heads and neurons of each layer before anything was cut.

    Where layers differ, the configuration's own numbers are those of the dense model; only its dictionary gives them
    out.
    """
    heads, neurons = (int(vars(config)[name]) for name in family_of(config).sizes)
    layers = int(getattr(config, family_of(config).depth))
    return [heads] * layers, [neurons] * layers


def set_dropout(config: Any, probability: float) -> None:
    """Replace every dropout probability of a configuration; with 0 no layer is skipped either."""
    family = family_of(config)
    for name in family.dropouts:
        setattr(config, name, probability)
    if family.layer_drop is not None and probability == 0:
        setattr(config, family.layer_drop, 0.0)
