"""Whether a row's blocks fit a model of which the configuration alone is known. Imports no torch."""

from __future__ import annotations

from typing import Any

from splora.anatomy import FAMILIES
from splora.masks.blocks import SIDES, has_blocks, leaves_rest, within_heads
from splora.training.specification import Problem, RunSpecification


def block_problems(spec: RunSpecification, config: dict[str, Any], name: str, *, fewer_heads: bool) -> list[Problem]:
    """Blocks that do not divide weights, or lie across heads where they may not.

    Args:
        config: the model's; its sizes are numbers.
        name: the model's, for sentences.
        fewer_heads: whether the run that the row starts from leaves layers with fewer heads.
    """
    # Masks have whole blocks. Those of an adapter alone may reach beyond a weight, as they must in a pruned model.
    is_cut, is_masked = isinstance(config.get("per_layer_config"), dict), spec.pruning_method != "none"
    alone = not is_masked and spec.adapter == "splopa" and not is_cut
    problems = _across_heads(spec, config, name, fewer_heads) if is_masked else []
    for part, sizes in weight_sizes(config).items():
        if alone or (is_masked and has_blocks(spec.pruning_units, part == "attention")):
            blocks = {f"{part}_block_{side}": getattr(spec, f"{part}_block_{side}") for side in SIDES}
            problems += [
                Problem(field, f"is {own}; blocks of that size do not divide {size} of {name}")
                for field, own in blocks.items()
                for size in sizes
                if own > 0 and leaves_rest(size, own)  # a block below 1 is told by its own limit
            ]
    return problems


def _across_heads(spec: RunSpecification, config: dict[str, Any], name: str, fewer_heads: bool) -> list[Problem]:
    family, units = FAMILIES[config["model_type"]], spec.pruning_units
    heads = config.get(family.sizes[0])
    if not within_heads(units, fewer_heads) or not isinstance(heads, int) or heads < 1:
        return []
    size = int(config[family.width]) // heads
    why = "hybrid_filled fills" if units == "hybrid_filled" else "blocks must fit into what is left of"
    told = f"and {why} heads of {size} channels in {name}; a divisor of {size} is needed"
    blocks = {f"attention_block_{side}": getattr(spec, f"attention_block_{side}") for side in SIDES}
    return [Problem(field, f"is {own}, {told}") for field, own in blocks.items() if own > 0 and leaves_rest(size, own)]


def weight_sizes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Sizes of the weights of attention and feed-forward parts, as they are where layers were made smaller.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError: the configuration lacks a size.
    """
    family = FAMILIES[config["model_type"]]
    hidden, neurons = int(config[family.width]), int(config[family.sizes[1]])
    layers = config.get("per_layer_config")
    if not isinstance(layers, dict):
        return {"attention": [hidden], "ffn": list(dict.fromkeys((neurons, hidden)))}
    heads_name, neurons_name = family.sizes
    heads = int(config[heads_name])
    wide = [int(of.get(heads_name, heads)) * (hidden // heads) for of in layers.values()]
    thick = [int(of.get(neurons_name, neurons)) for of in layers.values()]
    return {"attention": list(dict.fromkeys((hidden, *wide))), "ffn": list(dict.fromkeys((*thick, hidden)))}
