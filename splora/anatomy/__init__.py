"""Where a transformer keeps its parts: the only room that knows module names of model families.

`families/` has one file per family; `configuration` reads configurations, `model` finds parts. What looks at models
brings torch along, and is loaded when it is asked for: the workbook's checks know families without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splora.anatomy.configuration import (
    check_trained,
    dense_sizes,
    family_of,
    head_rows,
    head_size,
    set_dropout,
    task_models,
)
from splora.anatomy.families import FAMILIES
from splora.anatomy.family import ATTENTION_ROLES, ROLES, Family

if TYPE_CHECKING:
    from splora.anatomy.model import (
        Layer,
        Place,
        after_attention,
        config_of,
        encoder_linears,
        head_names,
        is_supported,
        layers,
        norm_names,
        reads_first_token,
    )
    from splora.anatomy.projections import Linear

__all__ = [
    "ATTENTION_ROLES",
    "FAMILIES",
    "ROLES",
    "Family",
    "Layer",
    "Linear",
    "Place",
    "after_attention",
    "check_trained",
    "config_of",
    "dense_sizes",
    "encoder_linears",
    "family_of",
    "head_names",
    "head_rows",
    "head_size",
    "is_supported",
    "layers",
    "norm_names",
    "reads_first_token",
    "set_dropout",
    "task_models",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from splora.anatomy import model

    return getattr(model, name)
