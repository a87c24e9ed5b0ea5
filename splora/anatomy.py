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
    #: Path below a layer of the module that turns hidden states into the context of all heads.
    attention: str
    #: Paths below a layer of the norms that belong to its attention and to its feed-forward part.
    layer_norms: tuple[str, str]
    #: Path below a layer of the activation function.
    activation: str
    #: Paths below a layer of the modules that what enters the feed-forward part goes through, one after another, up to
    #: the output projection or through it.
    feed_forward: tuple[str, ...]
    #: Names in the configuration of every dropout probability, the task heads' among them.
    dropouts: tuple[str, ...]
    #: Names in the configuration of a layer's number of heads and of neurons.
    sizes: tuple[str, str] = ("num_attention_heads", "intermediate_size")
    #: Whether a token sees only tokens before it.
    causal: bool = False
    #: Whether a layer gives a tuple, its hidden states first, instead of the hidden states.
    gives_tuple: bool = False
    #: Name in the configuration of the probability that training skips a whole layer.
    layer_drop: str | None = None

    @property
    def task_heads(self) -> tuple[str, ...]:
        """Those of `heads` that only fine-tuning makes: pretrained encoders have a pooler, too."""
        return tuple(name for name in self.heads if name != "pooler")


_BERT_PARTS: dict[str, Any] = {
    "attention": "attention.self",
    "layer_norms": ("attention.output.LayerNorm", "output.LayerNorm"),
    "activation": "intermediate.intermediate_act_fn",
    "feed_forward": ("intermediate",),
    "dropouts": ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
}
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
        Family(
            "bert",
            "bert.encoder.layer",
            _BERT_LINEARS,
            ("LayerNorm",),
            ("pooler", "classifier", "qa_outputs"),
            **_BERT_PARTS,
        ),
        Family(
            "roberta",
            "roberta.encoder.layer",
            _BERT_LINEARS,
            ("LayerNorm",),
            ("classifier", "qa_outputs"),
            **_BERT_PARTS,
        ),
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
            attention="attention",
            layer_norms=("sa_layer_norm", "output_layer_norm"),
            activation="ffn.activation",
            feed_forward=("ffn",),
            dropouts=("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
            sizes=("n_heads", "hidden_dim"),
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
            attention="self_attn",
            layer_norms=("self_attn_layer_norm", "final_layer_norm"),
            activation="activation_fn",
            feed_forward=("fc1", "activation_fn"),
            dropouts=("dropout", "attention_dropout"),
            sizes=("num_attention_heads", "ffn_dim"),
            causal=True,
            layer_drop="layerdrop",
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


@dataclass(frozen=True)
class Layer:
    """One transformer layer and its parts, whatever its family calls them.

    Attributes:
        linears: the six prunable linear layers by role.
        attention_norm: norm of the attention part: after its residual sum, or before it where `norm_first`.
        ffn_norm: the same of the feed-forward part.
        activation: what is applied to the output of `ffn_in`.
        feed_forward: the modules that the feed-forward part runs, up to its output projection or through it.
        head_size: channels per head.
    """

    module: nn.Module
    linears: dict[str, nn.Linear]
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
        return self.linears["query"].out_features // self.head_size

    @property
    def neurons(self) -> int:
        """Neurons that the layer has now."""
        return self.linears["ffn_in"].out_features


def family_of(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        InputError: the family is not supported; the message says which are.
    """
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InputError(
            f"model type {model_type!r} is not supported; supported are {', '.join(FAMILIES)}"
            f"{nearest(model_type, FAMILIES)}."
        )
    return FAMILIES[model_type]


def is_supported(model: nn.Module) -> bool:
    """Whether `model` holds a transformers model of a family of this file."""
    return any(getattr(getattr(m, "config", None), "model_type", None) in FAMILIES for m in model.modules())


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


def layers(model: nn.Module) -> list[Layer]:
    """The transformer layers of a bare task model, from the first to the last.

    Raises:
        InputError: the family is not supported, or the model has no layers where its family keeps them.
    """
    config = _config(model)
    family = family_of(config)
    try:
        found: Any = model.get_submodule(family.layers)
    except AttributeError:
        raise InputError(f"{type(model).__name__} has no layers at {family.layers}; nothing could be pruned.") from None
    size, norm_first = head_size(config), bool(getattr(config, "do_layer_norm_before", False))
    return [
        Layer(
            module,
            {role: _linear(module, path) for role, path in family.linears.items()},
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


def attention_norms(model: nn.Module) -> list[nn.Module]:
    """What closes the attention part of each layer, of a task model or of anything that contains it.

    Where norms come after the residual sums, their outputs are the states after the attention.
    """
    family = family_of(_config(model))
    pattern = re.compile(rf"(?:.*\.)?{re.escape(family.layers)}\.(\d+)\.{re.escape(family.layer_norms[0])}$")
    return [module for name, module in model.named_modules() if pattern.match(name)]


def config_of(model: nn.Module) -> Any:
    """The configuration of the transformers model that `model` is or holds.

    Raises:
        InputError: it holds none.
    """
    return _config(model)


def head_names(model: nn.Module) -> list[str]:
    """Names (last components) of the task-head modules that this model has."""
    return _present(model, family_of(_config(model)).heads)


def norm_names(model: nn.Module) -> list[str]:
    """Names (last components) of the normalization modules that this model has."""
    return _present(model, family_of(_config(model)).norms)


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
    layers = int(config.num_hidden_layers)
    return [heads] * layers, [neurons] * layers


def set_dropout(config: Any, probability: float) -> None:
    """Replace every dropout probability of a configuration; with 0 no layer is skipped either."""
    family = family_of(config)
    for name in family.dropouts:
        setattr(config, name, probability)
    if family.layer_drop is not None and probability == 0:
        setattr(config, family.layer_drop, 0.0)


def _linear(module: nn.Module, path: str) -> nn.Linear:
    found = module.get_submodule(path)
    assert isinstance(found, nn.Linear), path
    return found


def _present(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    last = {name.rpartition(".")[2] for name, module in model.named_modules() if module is not None}
    return [name for name in names if name in last]


def _config(model: nn.Module) -> Any:
    for module in model.modules():
        config = getattr(module, "config", None)
        if getattr(config, "model_type", None) is not None:
            return config
    raise InputError(f"{type(model).__name__} holds no transformers model.")
