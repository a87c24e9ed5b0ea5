"""BERT, RoBERTa, DistilBERT and OPT task models whose layers have different numbers of heads and neurons.

This file needs torch and transformers >= 5.15, nothing else, and imports the code of one model family only: that of the
class that it is asked for. It lies beside the weights of a pruned model, so that
`AutoModelFor….from_pretrained(folder, trust_remote_code=True)` loads them. The configuration is the stock one: its
sizes are those of the dense model, and `per_layer_config` holds the number of heads and of neurons of each layer that
has fewer. Without `per_layer_config` the classes here are the stock classes, whose names they bear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import transformers
from torch import Tensor, nn

#: The first transformers whose configurations can have layers of different sizes.
REQUIRED_TRANSFORMERS = "5.15"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


if _numbers(transformers.__version__) < _numbers(REQUIRED_TRANSFORMERS):
    raise ImportError(
        f"Models whose layers differ in size need transformers {REQUIRED_TRANSFORMERS} or newer, and "
        f"{transformers.__version__} is installed: pip install -U 'transformers>={REQUIRED_TRANSFORMERS}'."
    )

#: Bytes to whose multiples torch aligns the memory of a new tensor on the CPU.
_ALIGNMENT = 64


def _no_context(attention: Any, hidden_states: Tensor, length: int) -> tuple[Tensor, Tensor | None]:
    """The context of no heads, (batch, tokens, 0), and their weights, (batch, 0, tokens, length), if there are any."""
    batch, tokens, _ = hidden_states.shape
    eager = attention.config._attn_implementation == "eager"
    weights = hidden_states.new_empty((batch, 0, tokens, length)) if eager else None
    return hidden_states.new_empty((batch, tokens, 0)), weights


class _OnlyContext:
    """Attention without heads: the stock `view(…, -1, head size)` has no meaning for an empty tensor."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        return _no_context(self, hidden_states, hidden_states.shape[1])


class _OnlyOutLin:
    """Attention without heads: the bias of its output projection."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        attention: Any = self
        context, weights = _no_context(attention, hidden_states, hidden_states.shape[1])
        return attention.out_lin(context), weights


class _OnlyOutProj:
    """Attention without heads: the bias of its output projection, if it has one."""

    def forward(
        self, hidden_states: Tensor, past_key_values: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        attention: Any = self
        length = hidden_states.shape[1]
        if past_key_values is not None:
            # A cache is asked for the number of past tokens at its first layer, and takes one that holds nothing for
            # one that has seen nothing: keep one channel, of zeros.
            channel = hidden_states.new_zeros((len(hidden_states), 1, length, 1))
            length = past_key_values.update(channel, channel, attention.layer_idx)[0].shape[-2]
        context, weights = _no_context(attention, hidden_states, length)
        return attention.out_proj(context), weights


@cache
def _headless(attention: Any, forward: Any) -> Any:
    """A kind of attention that has no heads, which is still of the kind that hooks look for."""
    return type(f"Headless{attention.__name__}", (forward, attention), {"__module__": __name__})


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
    #: What comes before the class of an attention that has no heads.
    headless: type


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
    "bert": Parts(_BERT_SIZES, "bert.encoder.layer", _BERT_LINEARS, _BERT_ATTENTION, _OnlyContext),
    "roberta": Parts(_BERT_SIZES, "roberta.encoder.layer", _BERT_LINEARS, _BERT_ATTENTION, _OnlyContext),
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
        _OnlyOutLin,
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
        _OnlyOutProj,
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

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self
        # Beside the entry of this class, which transformers adds.
        model.config.auto_map = {"AutoModel": f"{__name__.rpartition('.')[2]}.{OnlyForTasks.__name__}"}
        return super().save_pretrained(*args, **kwargs)  # type: ignore[misc]


class OnlyForTasks(nn.Module):
    """What `AutoModel` finds: a sentence, as it would drop the task's head, and has no layers of different sizes."""

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Asked by transformers before `from_pretrained`."""

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, config: Any = None, **options: Any) -> Any:
        """Raise what to do instead."""
        task = (getattr(config, "architectures", None) or ["model of a task"])[0]
        auto = AUTO_CLASSES.get(task, "the AutoModelFor… of its task")
        raise ValueError(
            f"{name}: AutoModel cannot load this pruned {task}: use transformers.{auto}.from_pretrained({str(name)!r}, "
            f"trust_remote_code=True), whose base_model gives hidden states."
        )


#: By the name of a stock class that can be pruned, the auto class that loads it.
AUTO_CLASSES = {
    f"{family}For{task}": f"AutoModelFor{task}"
    for family, tasks in (
        ("Bert", ("SequenceClassification", "QuestionAnswering")),
        ("Roberta", ("SequenceClassification", "QuestionAnswering")),
        ("DistilBert", ("SequenceClassification", "QuestionAnswering")),
        ("OPT", ("SequenceClassification", "QuestionAnswering", "CausalLM")),
    )
    for task in tasks
}


@cache
def _class(name: str) -> Any:
    """The task model of a name; its family's code is imported now."""
    stock = getattr(transformers, name)
    return type(name, (_Pruned, stock), {"__module__": __name__, "_auto_class": AUTO_CLASSES[name]})


def __getattr__(name: str) -> Any:
    """The task models are made when they are asked for: a family's code is imported where it is used."""
    if name in AUTO_CLASSES:
        return _class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Classes(Mapping[str, Any]):
    """Classes by name, each made when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        if name not in AUTO_CLASSES:
            raise KeyError(name)
        return _class(name)

    def __iter__(self) -> Iterator[str]:
        return iter(AUTO_CLASSES)

    def __len__(self) -> int:
        return len(AUTO_CLASSES)

    def __contains__(self, name: object) -> bool:
        return name in AUTO_CLASSES


#: The task models that can be pruned, by the name of their stock class.
CLASSES: Mapping[str, Any] = _Classes()


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
            stock: Any = type(attention)
            attention.__class__ = _headless(stock, parts.headless)


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
