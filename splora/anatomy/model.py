"""Where a model keeps its parts, bare or inside something that wraps it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from splora.anatomy.configuration import family_of, head_rows, head_size, is_norm_first
from splora.anatomy.families import FAMILIES
from splora.anatomy.family import ATTENTION_ROLES, Family
from splora.anatomy.projections import Linear, Projection, shares
from splora.errors import InputError


@dataclass(frozen=True)
class Place:
    """Where a prunable linear layer stands: its transformer layer (from 0) and its role, the first of a fused one."""

    layer: int
    role: str

    @property
    def in_attention(self) -> bool:
        """Whether the layer belongs to the attention (else to the feed-forward part)."""
        return self.role in ATTENTION_ROLES


@dataclass(frozen=True)
class Layer:
    """One transformer layer and its parts, whatever its family calls them.

    Attributes:
        linears: the prunable linear functions by role.
        matrices: the same by the weights that hold them: of a fused one under its first role, with all its rows.
        attention_norm: norm of the attention part: after its residual sum, or before it where `norm_first`.
        ffn_norm: the same of the feed-forward part.
        activation: what is applied to the output of `ffn_in`.
        feed_forward: the modules that the feed-forward part runs, up to its output projection or through it.
        head_size: channels per head, of all its queries where they are grouped.
    """

    module: nn.Module
    linears: dict[str, Linear]
    matrices: dict[str, Linear]
    attention_norm: nn.Module
    ffn_norm: nn.Module
    activation: nn.Module
    feed_forward: tuple[nn.Module, ...]
    head_size: int
    norm_first: bool
    causal: bool

    @property
    def heads(self) -> int:
        """Heads that the layer has now."""
        return self.linears["attention_output"].in_features // self.head_size

    def rows_of_head(self, role: str) -> int:
        """Rows of one head in the linear of a role before the context; 1 in a layer that has no heads."""
        return self.linears[role].out_features // self.heads if self.heads else 1

    @property
    def neurons(self) -> int:
        """Neurons that the layer has now."""
        return self.linears["ffn_in"].out_features


def is_supported(model: nn.Module) -> bool:
    """Whether `model` holds a transformers model of a family of this file."""
    return any(getattr(getattr(m, "config", None), "model_type", None) in FAMILIES for m in model.modules())


def encoder_linears(model: nn.Module) -> dict[str, Place]:
    """Full module name → place of every prunable linear layer, whether or not something wraps it.

    Works on the bare task model and on anything that contains it (a PEFT model, a LightningModule).
    """
    family = family_of(config_of(model))
    roles = {path: roles[0] for path, roles in family.matrices().items()}
    pattern = re.compile(
        rf"(?:.*\.)?{re.escape(family.layers)}\.(\d+)\.({'|'.join(re.escape(path) for path in roles)})$"
    )
    found = {
        name: Place(int(match[1]), roles[match[2]])
        for name, _ in model.named_modules()
        if (match := pattern.match(name)) is not None
    }
    if not found:
        raise InputError(f"{type(model).__name__} has no layers at {family.layers}; nothing could be pruned.")
    return found


def layers(model: nn.Module) -> list[Layer]:
    """The transformer layers of a bare task model, from the first to the last.

    Raises:
        InputError: the family is not supported, or the model has no layers where its family keeps them.
    """
    config = config_of(model)
    family = family_of(config)
    try:
        found: Any = model.get_submodule(family.layers)
    except AttributeError:
        raise InputError(f"{type(model).__name__} has no layers at {family.layers}; nothing could be pruned.") from None
    size, rows, norm_first = head_size(config), head_rows(config), is_norm_first(config)
    return [
        Layer(
            module,
            *_linears(module, family, rows),
            module.get_submodule(family.layer_norms[0]),
            module.get_submodule(family.layer_norms[1]),
            module.get_submodule(family.activation),
            tuple(module.get_submodule(path) for path in family.feed_forward),
            size,
            norm_first,
            family.causal,
        )
        for module in found
    ]


def after_attention(model: nn.Module) -> tuple[list[nn.Module], bool]:
    """Norms at which the states after the attention part of each layer are seen, and whether these enter them.

    They are what the attention's norm puts out where norms come after the residual sums, and else what enters the norm
    of the feed-forward part.

    Args:
        model: a task model, or anything that contains it.
    """
    config = config_of(model)
    family = family_of(config)
    enters = is_norm_first(config)
    path = rf"{re.escape(family.layers)}\.(\d+)\.{re.escape(family.layer_norms[int(enters)])}$"
    pattern = re.compile(rf"(?:.*\.)?{path}")
    return [module for name, module in model.named_modules() if pattern.match(name)], enters


def config_of(model: nn.Module) -> Any:
    """The configuration of the transformers model that `model` is or holds.

    Raises:
        InputError: it holds none.
    """
    for module in model.modules():
        config = getattr(module, "config", None)
        if getattr(config, "model_type", None) is not None:
            return config
    raise InputError(f"{type(model).__name__} holds no transformers model.")


def reads_first_token(model: nn.Module) -> bool:
    """Whether the task head of a bare model looks at the first token alone: an encoder's that classifies sequences."""
    config = config_of(model)
    family = family_of(config)
    first = family.pooling is None or getattr(config, family.pooling) == "cls"
    return first and not family.causal and type(model).__name__.endswith("ForSequenceClassification")


def head_names(model: nn.Module) -> list[str]:
    """Names (last components) of the task-head modules that this model has."""
    return _present(model, family_of(config_of(model)).heads)


def norm_names(model: nn.Module) -> list[str]:
    """Names (last components) of the normalization modules that this model has."""
    return _present(model, family_of(config_of(model)).norms)


def _linears(module: nn.Module, family: Family, rows: dict[str, int]) -> tuple[dict[str, Linear], dict[str, Linear]]:
    """By role, and by the first role of each weight."""
    linears, matrices = dict[str, Linear](), dict[str, Linear]()
    for path, roles in family.matrices().items():
        holder = module.get_submodule(path)
        if not family.transposed:
            assert isinstance(holder, nn.Linear), path
        whole = holder if isinstance(holder, nn.Linear) else Projection(holder, transposed=family.transposed)
        matrices[roles[0]] = linears[roles[0]] = whole
        if len(roles) > 1:
            parts = shares(roles, rows, whole.out_features)
            linears |= {role: Projection(holder, part, transposed=family.transposed) for role, part in parts.items()}
    return linears, matrices


def _present(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    last = {name.rpartition(".")[2] for name, module in model.named_modules() if module is not None}
    return [name for name in names if name in last]
