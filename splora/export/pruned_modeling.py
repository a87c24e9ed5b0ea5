"""Task models of transformers whose layers have different numbers of heads and neurons.

This file needs torch and transformers >= 5.15, nothing else, and imports the code of one model family only: that of the
class that it is asked for. It lies beside the weights of a pruned model, so that
`AutoModelFor….from_pretrained(folder, trust_remote_code=True)` loads them. The configuration is the stock one: its
sizes are those of the dense model, `per_layer_config` holds the number of heads and of neurons of each layer that
has fewer, and `pruned_parts` says where the family keeps what is smaller. Without `per_layer_config` the classes here
are the stock classes, whose names they bear.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

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

#: What names of classes that generate text end with in the oldest families.
_LANGUAGE_MODEL = "LMHeadModel"
#: Bytes to whose multiples torch aligns the memory of a new tensor on the CPU.
_ALIGNMENT = 64


def _no_context(attention: Any, hidden_states: Tensor, length: int) -> tuple[Tensor, Tensor | None]:
    """The context of no heads, (batch, tokens, 0), and their weights, (batch, 0, tokens, length), if there are any."""
    batch, tokens, _ = hidden_states.shape
    eager = getattr(getattr(attention, "config", None), "_attn_implementation", None) == "eager"
    weights = hidden_states.new_empty((batch, 0, tokens, length)) if eager else None
    return hidden_states.new_empty((batch, tokens, 0)), weights


class _OwnBias:
    """Attention that is given a bias of all the dense model's heads, and takes those of its own."""

    #: Their numbers.
    _heads: tuple[int, ...] = ()

    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, bias: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        own = None if bias is None else bias[:, list(self._heads)]
        return super().forward(hidden_states, attention_mask, own, *args, **kwargs)  # type: ignore[misc]


@cache
def _with_own_bias(attention: Any, heads: tuple[int, ...]) -> Any:
    """A kind of attention that has these heads, which is still of the kind that hooks look for."""
    named = {"__module__": __name__, "_heads": heads}
    return type(f"Pruned{attention.__name__}", (_OwnBias, attention), named)


class _Headless:
    """Attention without heads: stock code has `view(…, -1, head size)`, which has no meaning for an empty tensor."""

    #: Name of the output projection where it is part of the attention: then its bias is what comes out.
    _projection: str | None = None

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        attention: Any = self
        length, cache = hidden_states.shape[1], kwargs.get("past_key_values")
        if cache is not None:
            # A cache is asked for the number of past tokens at its first layer, and takes one that holds nothing for
            # one that has seen nothing: keep one channel, of zeros.
            channel = hidden_states.new_zeros((len(hidden_states), 1, length, 1))
            length = cache.update(channel, channel, attention.layer_idx)[0].shape[-2]
        context, weights = _no_context(attention, hidden_states, length)
        return context if self._projection is None else getattr(attention, self._projection)(context), weights


@cache
def _headless(attention: Any, projection: str | None) -> Any:
    """A kind of attention that has no heads, which is still of the kind that hooks look for."""
    named = {"__module__": __name__, "_projection": projection}
    return type(f"Headless{attention.__name__}", (_Headless, attention), named)


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
        auto = auto_class(task) if _is_task(task) else "the AutoModelFor… of its task"
        raise ValueError(
            f"{name}: AutoModel cannot load this pruned {task}: use transformers.{auto}.from_pretrained({str(name)!r}, "
            f"trust_remote_code=True), whose base_model gives hidden states."
        )


def _is_task(name: str) -> bool:
    return "For" in name or name.endswith(_LANGUAGE_MODEL)


def auto_class(name: str) -> str:
    """The auto class that loads a task model, by the name of its stock class."""
    return "AutoModelForCausalLM" if name.endswith(_LANGUAGE_MODEL) else f"AutoModelFor{name.rpartition('For')[2]}"


@cache
def task_model(name: str) -> Any:
    """The task model of a stock class's name; its family's code is imported now.

    Raises:
        AttributeError: transformers has no such task model.
    """
    stock = getattr(transformers, name, None) if _is_task(name) and not name.startswith("Auto") else None
    if not (isinstance(stock, type) and issubclass(stock, transformers.PreTrainedModel)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(name, (_Pruned, stock), {"__module__": __name__, "_auto_class": auto_class(name)})


def __getattr__(name: str) -> Any:
    """The task models are made when they are asked for: a family's code is imported where it is used."""
    return task_model(name)


def _shrink(model: Any) -> None:
    """Give the layers of a freshly made dense model the sizes that its configuration has for each."""
    config = model.config
    parts = getattr(config, "pruned_parts", None)
    if parts is None:
        raise ValueError(
            "This configuration has layers of different sizes and no pruned_parts, which say where they are."
        )
    # By the dictionary: this is where the number of heads of the dense model still stands.
    dense_heads = vars(config)[parts["sizes"][0]]
    attention_path, count = parts["attention"]
    below, _, projection = parts["linears"]["attention_output"].rpartition(".")
    own_heads = getattr(config, "pruned_heads", None) or [None] * len(config.per_layer_config)
    layers = model.get_submodule(parts["layers"])
    for layer, sizes, own in zip(layers, config.per_layer_config, own_heads, strict=True):
        heads, neurons = (int(getattr(sizes, name)) for name in parts["sizes"])
        linears = {role: layer.get_submodule(path) for role, path in parts["linears"].items()}
        transposed = parts.get("transposed", False)
        dense_neurons = _size(linears["ffn_out"], 1, transposed)
        context = _size(linears["attention_output"], 1, transposed) // dense_heads * heads
        modules = dict(layer.named_modules())
        by_head = [linears[role] for role in ("query", "key", "value")]
        by_head += [modules[path] for path in parts.get("head_rows", ()) if path in modules]
        by_neuron = [linears[role] for role in ("ffn_gate", "ffn_in") if role in linears]
        # Which rows stay does not matter, as weights come later. A fused one is there several times, and made once.
        for dim, some, dense, kept in (
            (0, by_head, dense_heads, heads),
            (1, [linears["attention_output"]], dense_heads, heads),
            (0, by_neuron, dense_neurons, neurons),
            (1, [linears["ffn_out"]], dense_neurons, neurons),
        ):
            for linear in dict.fromkeys(some):
                _narrow(linear, dim, _size(linear, dim, transposed) // dense * kept, transposed)
        attention = layer.get_submodule(attention_path)
        if count is not None:
            setattr(attention, count, heads)
        for width in ("all_head_size", "split_size"):
            if hasattr(attention, width):
                setattr(attention, width, context)
        if own:
            kind: Any = type(attention)
            attention.__class__ = _with_own_bias(kind, tuple(own))
        if heads == 0:
            # The same module with another forward: names of its parameters, and hooks that look for its class, remain.
            stock: Any = type(attention)
            attention.__class__ = _headless(stock, projection if below == attention_path else None)


def _align(model: nn.Module) -> None:
    """Move weights that a file's memory map holds at odd addresses, to where a new tensor would be.

    Odd sizes make odd addresses, at which kernels add in another order: the last bits of the results would not be those
    of the model that was saved.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % _ALIGNMENT:
            parameter.data = parameter.data.clone()


def _size(linear: Any, dim: int, transposed: bool) -> int:
    """Outputs (dim 0) or inputs (dim 1)."""
    return int(linear.weight.shape[1 - dim if transposed else dim])


def _narrow(linear: Any, dim: int, size: int, transposed: bool) -> None:
    """Leave the first `size` outputs (dim 0) or inputs (dim 1); no new layer is made, as none must be initialized."""
    linear.weight = _first(linear.weight, 1 - dim if transposed else dim, size)
    names = ("nf", "nx") if transposed else ("out_features", "in_features")
    setattr(linear, names[dim], size)
    if dim == 0 and linear.bias is not None:
        linear.bias = _first(linear.bias, 0, size)
    if dim == 1 and size == 0 and transposed:
        kind: Any = type(linear)
        linear.__class__ = _only_bias(kind)


class _OnlyBias:
    """A layer without inputs: `Conv1D` has `view(-1, 0)`, which has no meaning."""

    def forward(self, x: Tensor) -> Tensor:
        bias: Tensor = self.bias  # type: ignore[attr-defined]
        return bias.expand(*x.shape[:-1], -1)


@cache
def _only_bias(kind: Any) -> Any:
    return type(f"Empty{kind.__name__}", (_OnlyBias, kind), {"__module__": __name__})


def _first(parameter: Tensor, dim: int, size: int) -> nn.Parameter:
    return nn.Parameter(parameter.detach().narrow(dim, 0, size).clone(), parameter.requires_grad)
