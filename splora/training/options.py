"""The parts of a run's settings, as the Lightning configuration groups them; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdapterOptions:
    """ΔW: `kind` is none (the weights themselves are trained), splopa or splora."""

    kind: str = "none"
    num_prototypes: int = 64
    prototype_rank: int = 2
    init_range: float = 2e-2
    shared_prototypes: bool = True
    shared_position_weights: bool = False
    #: SPLoRA's rank; below 1 it is a fraction of out_features.
    rank: float = 8.0


@dataclass(frozen=True)
class PruningOptions:
    """Masks: method, first scores and the block grids (rows, cols)."""

    method: str = "none"
    mask_init: str = "constant"
    mask_scale: float = 0.0
    attention_block: tuple[int, int] = (32, 32)
    ffn_block: tuple[int, int] = (32, 32)
    regularization: str = "none"


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW with linear warm-up and linear decay; an empty rate means `learning_rate`."""

    learning_rate: float = 3e-5
    mask_scores_learning_rate: float | None = None
    position_weights_learning_rate: float | None = None
    adapter_learning_rate: float | None = None
    weight_decay: float = 0.0
    warmup_steps: int = 0
    #: Length of the run that `warmup_steps` was chosen for; other lengths scale it.
    schedule_total_steps: int | None = None


@dataclass(frozen=True)
class DistillationOptions:
    """A fine-tuned teacher, and how its loss is mixed in."""

    teacher_name_or_path: str
    alpha_ce: float = 0.5
    alpha_distil: float = 0.5
    temperature: float = 2.0
    #: Family the teacher is said to be of; checked against its configuration.
    teacher_type: str | None = None
