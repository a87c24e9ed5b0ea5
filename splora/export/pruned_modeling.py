"""BERT, RoBERTa, DistilBERT and OPT task models whose layers have different numbers of heads and neurons.

This file needs torch and transformers >= 5.15, nothing else. It lies beside the weights of a pruned model, so that
`AutoModelFor….from_pretrained(folder, trust_remote_code=True)` loads them. The configuration is the stock one: its
sizes are those of the dense model, and `per_layer_config` holds the number of heads and of neurons of each layer that
has fewer. Without `per_layer_config` the classes here are the stock classes, whose names they bear.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import transformers
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertSelfAttention
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention
from transformers.models.opt.modeling_opt import OPTAttention
from transformers.models.roberta.modeling_roberta import RobertaSelfAttention

#: Bytes to whose multiples torch aligns the memory of a new tensor on the CPU.
_ALIGNMENT = 64


def _no_context(attention: Any, hidden_states: Tensor, length: int) -> tuple[Tensor, Tensor | None]:
    """The context of no heads, (batch, tokens, 0), and their weights, (batch, 0, tokens, length), if there are any."""
    batch, tokens, _ = hidden_states.shape
    eager = attention.config._attn_implementation == "eager"
    weights = hidden_states.new_empty((batch, 0, tokens, length)) if eager else None
    return hidden_states.new_empty((batch, tokens, 0)), weights


class HeadlessBertSelfAttention(BertSelfAttention):
    """Attention without heads: the stock `view(…, -1, head size)` has no meaning for an empty tensor."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        return _no_context(self, hidden_states, hidden_states.shape[1])


class HeadlessRobertaSelfAttention(RobertaSelfAttention):
    """Attention without heads."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        return _no_context(self, hidden_states, hidden_states.shape[1])


class HeadlessDistilBertSelfAttention(DistilBertSelfAttention):
    """Attention without heads: the bias of its output projection."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        context, weights = _no_context(self, hidden_states, hidden_states.shape[1])
        return self.out_lin(context), weights


class HeadlessOPTAttention(OPTAttention):
    """Attention without heads: the bias of its output projection."""

    def forward(
        self, hidden_states: Tensor, past_key_values: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        length = hidden_states.shape[1]
        if past_key_values is not None:
            # A cache is asked for the number of past tokens at its first layer, and takes one that holds nothing for
            # one that has seen nothing: keep one channel, of zeros.
            channel = hidden_states.new_zeros((len(hidden_states), 1, length, 1))
            length = past_key_values.update(channel, channel, self.layer_idx)[0].shape[-2]
        context, weights = _no_context(self, hidden_states, length)
        return self.out_proj(context), weights


class Parts(NamedTuple):
    """Names of one model family: of a layer's sizes in the configuration, and of modules."""

    #: The configuration's names of the number of heads and of neurons.
    sizes: tuple[str, str]
    #: Path of the list of layers below the model.
    layers: str
    #: Path of each linear below a layer.
    linears: dict[str, str]
    #: Path of the attention below a layer, and its attribute that holds the number of heads.
    attention: tuple[str, str]
    #: What takes the place of an attention that has no heads.
    headless: type[nn.Module]


_BERT_LINEARS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}
_BERT_SIZES, _BERT_ATTENTION = ("num_attention_heads", "intermediate_size"), ("attention.self", "num_attention_heads")

PARTS: dict[str, Parts] = {
    "bert": Parts(_BERT_SIZES, "bert.encoder.layer", _BERT_LINEARS, _BERT_ATTENTION, HeadlessBertSelfAttention),
    "roberta": Parts(
        _BERT_SIZES, "roberta.encoder.layer", _BERT_LINEARS, _BERT_ATTENTION, HeadlessRobertaSelfAttention
    ),
    "distilbert": Parts(
        ("n_heads", "hidden_dim"),
        "distilbert.transformer.layer",
        {
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention_output": "attention.out_lin",
            "ffn_in": "ffn.lin1",
            "ffn_out": "ffn.lin2",
        },
        ("attention", "n_heads"),
        HeadlessDistilBertSelfAttention,
    ),
    "opt": Parts(
        ("num_attention_heads", "ffn_dim"),
        "model.decoder.layers",
        {
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "attention_output": "self_attn.out_proj",
            "ffn_in": "fc1",
            "ffn_out": "fc2",
        },
        ("self_attn", "num_heads"),
        HeadlessOPTAttention,
    ),
}


class _Pruned:
    """Builds the dense model (on the meta device when weights are loaded) and makes its layers smaller."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        # The stock classes read sizes that a configuration with layers of different sizes does not give out. It is the
        # same object throughout, as attention modules look up their implementation in it.
        sizes = config.to_dict()["per_layer_config"] if config.is_heterogeneous else None
        config.per_layer_config = None
        try:
            super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        finally:
            config.per_layer_config = sizes
        if sizes is not None:
            _shrink(self)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        found = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        _align(found[0] if isinstance(found, tuple) else found)
        return found


class BertForSequenceClassification(_Pruned, transformers.BertForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"


class BertForQuestionAnswering(_Pruned, transformers.BertForQuestionAnswering):
    _auto_class = "AutoModelForQuestionAnswering"


class RobertaForSequenceClassification(_Pruned, transformers.RobertaForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"


class RobertaForQuestionAnswering(_Pruned, transformers.RobertaForQuestionAnswering):
    _auto_class = "AutoModelForQuestionAnswering"


class DistilBertForSequenceClassification(_Pruned, transformers.DistilBertForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"


class DistilBertForQuestionAnswering(_Pruned, transformers.DistilBertForQuestionAnswering):
    _auto_class = "AutoModelForQuestionAnswering"


class OPTForSequenceClassification(_Pruned, transformers.OPTForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"


class OPTForQuestionAnswering(_Pruned, transformers.OPTForQuestionAnswering):
    _auto_class = "AutoModelForQuestionAnswering"


class OPTForCausalLM(_Pruned, transformers.OPTForCausalLM):
    _auto_class = "AutoModelForCausalLM"


#: The task models that can be pruned, by the name of their stock class.
CLASSES: dict[str, Any] = {
    model.__name__: model
    for model in (
        BertForSequenceClassification,
        BertForQuestionAnswering,
        RobertaForSequenceClassification,
        RobertaForQuestionAnswering,
        DistilBertForSequenceClassification,
        DistilBertForQuestionAnswering,
        OPTForSequenceClassification,
        OPTForQuestionAnswering,
        OPTForCausalLM,
    )
}


def _shrink(model: Any) -> None:
    """Give the layers of a freshly made dense model the sizes that its configuration has for each."""
    config, parts = model.config, PARTS[model.config.model_type]
    # By the dictionary: this is where the number of heads of the dense model still stands.
    head_size = config.hidden_size // vars(config)[parts.sizes[0]]
    for layer, sizes in zip(model.get_submodule(parts.layers), config.per_layer_config, strict=True):
        heads, neurons = (int(getattr(sizes, name)) for name in parts.sizes)
        linears = {role: layer.get_submodule(path) for role, path in parts.linears.items()}
        for role in ("query", "key", "value"):
            _narrow(linears[role], 0, heads * head_size)
        _narrow(linears["attention_output"], 1, heads * head_size)
        _narrow(linears["ffn_in"], 0, neurons)
        _narrow(linears["ffn_out"], 1, neurons)
        path, count = parts.attention
        attention = layer.get_submodule(path)
        setattr(attention, count, heads)
        if hasattr(attention, "all_head_size"):
            attention.all_head_size = heads * head_size
        if heads == 0:
            # The same module with another forward: names of its parameters, and hooks that look for its class, remain.
            attention.__class__ = parts.headless


def _align(model: nn.Module) -> None:
    """Move weights that a file's memory map holds at odd addresses, to where a new tensor would be.

    Odd sizes make odd addresses, at which kernels add in another order: the last bits of the results would not be those
    of the model that was saved.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % _ALIGNMENT:
            parameter.data = parameter.data.clone()


def _narrow(linear: nn.Linear, dim: int, size: int) -> None:
    """Leave the first `size` outputs (dim 0) or inputs (dim 1); no new layer is made, as none must be initialized."""
    linear.weight = _first(linear.weight, dim, size)
    if dim == 0:
        linear.out_features = size
        if linear.bias is not None:
            linear.bias = _first(linear.bias, 0, size)
    else:
        linear.in_features = size


def _first(parameter: Tensor, dim: int, size: int) -> nn.Parameter:
    return nn.Parameter(parameter.detach().narrow(dim, 0, size).clone(), parameter.requires_grad)
