"""Where a transformer keeps its parts: the only file that knows module names of model families.

A new family is one more `Family` in `FAMILIES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from splora.errors import InputError, nearest

#: The prunable linear layers of one transformer layer, in the order in which data meets them.
ROLES = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")
ATTENTION_ROLES = ROLES[:4]


@dataclass(frozen=True)
class Family:
    """Module names of one model family, relative to a layer where not said otherwise."""

    model_type: str
    #: Path of the list of layers below the task model, e.g. ``bert.encoder.layer``.
    layers: str
    #: Path of each role's `nn.Linear` below a layer.
    linears: dict[str, str]
    #: Names of normalization modules anywhere in the model.
    norms: tuple[str, ...]
    #: Names of modules that a task trains in full: its head, and a pooler on the way to it.
    heads: tuple[str, ...]


_BERT_LINEARS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("bert", "bert.encoder.layer", _BERT_LINEARS, ("LayerNorm",), ("pooler", "classifier", "qa_outputs")),
        Family("roberta", "roberta.encoder.layer", _BERT_LINEARS, ("LayerNorm",), ("classifier", "qa_outputs")),
        Family(
            "distilbert",
            "distilbert.transformer.layer",
            {
                "query": "attention.q_lin",
                "key": "attention.k_lin",
                "value": "attention.v_lin",
                "attention_output": "attention.out_lin",
                "ffn_in": "ffn.lin1",
                "ffn_out": "ffn.lin2",
            },
            ("LayerNorm", "sa_layer_norm", "output_layer_norm"),
            ("pre_classifier", "classifier", "qa_outputs"),
        ),
        Family(
            "opt",
            "model.decoder.layers",
            {
                "query": "self_attn.q_proj",
                "key": "self_attn.k_proj",
                "value": "self_attn.v_proj",
                "attention_output": "self_attn.out_proj",
                "ffn_in": "fc1",
                "ffn_out": "fc2",
            },
            ("self_attn_layer_norm", "final_layer_norm"),
            ("score", "qa_outputs"),
        ),
    )
}


@dataclass(frozen=True)
class Place:
    """Where a prunable linear layer stands: its transformer layer (from 0) and its role."""

    layer: int
    role: str

    @property
    def in_attention(self) -> bool:
        """Whether the layer belongs to the attention (else to the feed-forward part)."""
        return self.role in ATTENTION_ROLES


def family_of(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        InputError: the family is not supported; the message says which are.
    """
    model_type = getattr(config, "model_type", None)
    if model_type not in FAMILIES:
        raise InputError(
            f"model type {model_type!r} is not supported; supported are {', '.join(FAMILIES)}"
            f"{nearest(model_type, FAMILIES)}."
        )
    return FAMILIES[model_type]


def encoder_linears(model: nn.Module) -> dict[str, Place]:
    """Full module name → place of every prunable linear layer, whether or not something wraps it.

    Works on the bare task model and on anything that contains it (a PEFT model, a LightningModule).
    """
    family = family_of(_config(model))
    roles = {path: role for role, path in family.linears.items()}
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


def head_names(model: nn.Module) -> list[str]:
    """Names (last components) of the task-head modules that this model has."""
    return _present(model, family_of(_config(model)).heads)


def norm_names(model: nn.Module) -> list[str]:
    """Names (last components) of the normalization modules that this model has."""
    return _present(model, family_of(_config(model)).norms)


def head_size(config: Any) -> int:
    """Channels of one attention head."""
    heads = int(config.num_attention_heads)
    return int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def _present(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    last = {name.rpartition(".")[2] for name, module in model.named_modules() if module is not None}
    return [name for name in names if name in last]


def _config(model: nn.Module) -> Any:
    for module in model.modules():
        config = getattr(module, "config", None)
        if getattr(config, "model_type", None) is not None:
            return config
    raise InputError(f"{type(model).__name__} holds no transformers model.")
