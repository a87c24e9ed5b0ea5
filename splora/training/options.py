"""The parts of a run's settings, as the Lightning configuration groups them; imports no torch.

Defaults, meanings and choices are those of the sheet's columns, said once in `specification`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from splora.errors import InputError, nearest
from splora.masks.criteria import Criterion, named
from splora.training.specification import FIELDS, parsed_weights

T = TypeVar("T")


def option(*columns: str, help: str | None = None, required: bool = False) -> Any:
    """A field that one column of the sheet stands for, or a pair of them.

    Args:
        columns: the column; of a pair such as (rows, cols), both.
        help: what the option means, where the column's own text says something else.
        required: the field has no default.
    """
    known = [FIELDS[name] for name in columns]
    default = known[0].default if len(known) == 1 else tuple(each.default for each in known)
    metadata = {**known[0].metadata, **({"help": help} if help else {})}
    return field(default=MISSING if required else default, metadata=metadata)


def meaning(metadata: Mapping[str, Any]) -> str:
    """What an option means and what it may be, in one line."""
    choices = metadata.get("choices")
    return str(metadata["help"]) + (f" Allowed: {', '.join(choices)}." if choices else "")


def wrong_choices(section: str, options: Any) -> list[str]:
    """A sentence for each field of a dataclass of options that is none of its choices."""
    problems = []
    for each in fields(options):
        value, allowed = getattr(options, each.name), each.metadata.get("choices")
        if allowed and value != each.default and value not in allowed:
            close = nearest(value, allowed) or "."
            problems.append(f"{section}.{each.name} is {value!r}; allowed are {', '.join(allowed)}{close}")
    return problems


def layer_weights(text: str | None, layers: int) -> list[float]:
    """Weights of so many layers, as `hidden_weights` says them; all the same where it is empty.

    Raises:
        InputError: they are no numbers from 0 on with one above 0, or not as many as layers.
    """
    if text is None:
        return [1.0] * layers
    weights = parsed_weights(text)
    if len(weights) != layers:
        raise InputError(f"hidden_weights is {text!r}, of {len(weights)} layers; the model has {layers}.")
    return weights


def described(**columns: str) -> Callable[[type[T]], type[T]]:
    """Adds options to a class's docstring, where `help` and jsonargparse's ``--help`` read what they mean.

    Args:
        columns: parameters of the class by the sheet's column that says what they mean. The fields of a dataclass bring
            their own meaning.
    """

    def describe(cls: type[T]) -> type[T]:
        entries = {name: FIELDS[column].metadata for name, column in columns.items()}
        if not entries:
            entries = {each.name: each.metadata for each in fields(cls)}  # type: ignore[arg-type]
        lines = "".join(f"    {name}: {meaning(metadata)}\n" for name, metadata in entries.items())
        begin, _, others = inspect.cleandoc(cls.__doc__ or "").partition("\nArgs:\n")
        cls.__doc__ = f"{begin.rstrip()}\n\nArgs:\n{lines}{others}"
        return cls

    return describe


@described()
@dataclass(frozen=True)
class AdapterOptions:
    """ΔW: `kind` is none (the weights themselves are trained), splopa, splora or lora."""

    kind: str = option("adapter")
    num_prototypes: int = option("num_splopa_prototypes")
    prototype_rank: int = option("splopa_prototype_rank")
    init_range: float = option("splopa_init_range", help="Initial range of SPLoPA's prototypes or of SPLoRA's A.")
    shared_prototypes: bool = option("splopa_shared_prototypes")
    shared_position_weights: bool = option("splopa_shared_pos_weights")
    rank: float = option("splora_rank", help="SPLoRA's rank; below 1 it is a fraction of out_features.")
    lora_rank: int = option("lora_rank")
    lora_alpha: float = option("lora_alpha")


@described()
@dataclass(frozen=True)
class PruningOptions:
    """Masks: method, first scores and the block grids (rows, cols)."""

    method: str = option("pruning_method")
    mask_init: str = option("mask_init")
    mask_scale: float = option("mask_scale")
    attention_block: tuple[int, int] = option(
        "attention_block_rows", "attention_block_cols", help="Rows and columns of a block in attention weights."
    )
    ffn_block: tuple[int, int] = option(
        "ffn_block_rows", "ffn_block_cols", help="Rows and columns of a block in feed-forward weights."
    )
    regularization: str = option("regularization")
    units: str = option("pruning_units")
    threshold_of: str = option("threshold_of")

    @property
    def criterion(self) -> Criterion:
        """What decides which blocks or units stay."""
        return named(self.method)


@described()
@dataclass(frozen=True)
class PruneFirstOptions:
    """Pruning without training before the run: `method` is none, stat or fisher."""

    method: str = option("prune_first")
    budget: float = field(
        default=0.5, metadata={"help": "Fraction of the dense model's MACs that stays, above 0 and below 1."}
    )
    samples: int = option("prune_first_samples")


@described()
@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW with linear warm-up and linear decay; an empty rate means `learning_rate`."""

    learning_rate: float = option("learning_rate")
    mask_scores_learning_rate: float | None = option("mask_scores_learning_rate")
    position_weights_learning_rate: float | None = option("position_weights_learning_rate")
    adapter_learning_rate: float | None = option("adapter_learning_rate")
    weight_decay: float = option("weight_decay")
    warmup_steps: int = option("warmup_steps")
    schedule_total_steps: int | None = option("schedule_total_steps")


@described()
@dataclass(frozen=True)
class DistillationOptions:
    """A fine-tuned teacher, and how its loss is mixed in."""

    teacher_name_or_path: str = option(
        "teacher_name_or_path", help="Fine-tuned teacher: hub name or folder.", required=True
    )
    alpha_ce: float = option("alpha_ce")
    alpha_distil: float = option("alpha_distil")
    temperature: float = option("temperature")
    alpha_hidden: float = option("alpha_hidden")
    alpha_attention: float = option("alpha_attention")
    hidden_weights: str | None = option("hidden_weights")
    teacher_type: str | None = option(
        "teacher_type", help="Family the teacher is said to be of; checked against its configuration."
    )
