"""What has to be known of a model family: names, and nothing of its arithmetic. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: The prunable linear layers of one transformer layer, in the order in which data meets them.
ROLES = ("query", "key", "value", "attention_output", "ffn_gate", "ffn_in", "ffn_out")
ATTENTION_ROLES = ROLES[:4]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Module names of one model family, relative to a layer where not said otherwise.

    Attributes:
        model_type: what configurations call it.
        classes: what names of its classes begin with, e.g. `Bert`.
        tasks: what they end with, after `For`.
        language_model: the class for `CausalLM`, where that is named otherwise.
        layers: path of the list of layers below the task model, e.g. ``bert.encoder.layer``.
        linears: path of each role's `nn.Linear` below a layer; `ffn_gate` only where the feed-forward part is gated.
            Where roles have one path, its weight holds their rows one after another, in the order of `linears`.
        transposed: whether these are no `nn.Linear` but modules with a weight of (in, out).
        norms: names of normalization modules anywhere in the model.
        heads: names of modules that a task trains in full: its head, and a pooler on the way to it.
        attention: path below a layer of the module that turns hidden states into the context of all heads.
        head_count: that module's attribute which holds the number of heads, if it has one.
        layer_norms: paths of the norms that belong to a layer's attention and to its feed-forward part.
        activation: path of the activation function.
        feed_forward: paths of the modules that what enters the feed-forward part goes through, one after another, up to
            the output projection or through it.
        dropouts: names in the configuration of every dropout probability, the task heads' among them.
        pooling: the configuration's name of how a head that classifies sequences sums up tokens: `cls` is the first.
        sizes: names in the configuration of a layer's number of heads and of neurons (None there: 4 × the width). With
            grouped queries a head is what is removed together: one of key and value with its queries.
        query_heads: with grouped queries, the configuration's name of the number of queries' heads.
        width: the same of the hidden size.
        depth: the same of the number of layers.
        norm_first: whether norms come before the parts of a layer; a name: the configuration says so under it.
        causal: whether a token sees only tokens before it.
        gives_tuple: whether a layer gives a tuple, its hidden states first, instead of the hidden states.
        begins: whether it was trained on texts that begin with the token for beginnings, and knows no others.
        segments: whether it tells the sentences of a pair apart by `token_type_ids`.
        positions_after_padding: whether positions are counted from the number of the padding token on.
        head_rows: paths of further linears, where a layer has them, whose rows go with those of the query.
        bias_by_head: whether the third thing that its attention is given is a bias (batch or 1, heads, tokens, tokens)
            of the dense model's heads, from which a cut one takes those of the heads it has.
        layer_drop: name in the configuration of the probability that training skips a whole layer.
        excluded: names in the configuration of what no method here can deal with where it is set, and why.
    """

    model_type: str
    classes: str
    layers: str
    linears: dict[str, str]
    norms: tuple[str, ...]
    heads: tuple[str, ...]
    attention: str
    layer_norms: tuple[str, str]
    activation: str
    feed_forward: tuple[str, ...]
    dropouts: tuple[str, ...]
    language_model: str | None = None
    transposed: bool = False
    pooling: str | None = None
    tasks: tuple[str, ...] = ("SequenceClassification", "QuestionAnswering", "TokenClassification")
    head_count: str | None = "num_attention_heads"
    sizes: tuple[str, str] = ("num_attention_heads", "intermediate_size")
    query_heads: str | None = None
    width: str = "hidden_size"
    depth: str = "num_hidden_layers"
    norm_first: bool | str = False
    causal: bool = False
    gives_tuple: bool = False
    begins: bool = False
    segments: bool = False
    positions_after_padding: bool = False
    head_rows: tuple[str, ...] = ()
    bias_by_head: bool = False
    layer_drop: str | None = None
    excluded: dict[str, str] = field(default_factory=dict)

    @property
    def task_heads(self) -> tuple[str, ...]:
        """Those of `heads` that only fine-tuning makes: pretrained encoders have a pooler, or a head for words, too."""
        return tuple(name for name in self.heads if name not in ("pooler", "head"))

    @property
    def is_trained(self) -> bool:
        """Whether rows train it: adapters and masks know heads that share nothing, in `nn.Linear`s."""
        return self.query_heads is None and not self.transposed

    @property
    def task_models(self) -> tuple[str, ...]:
        """Names of its classes that can be trained and cut."""
        named = {"CausalLM": self.language_model} if self.language_model is not None else {}
        return tuple(named.get(task, f"{self.classes}For{task}") for task in self.tasks)

    def matrices(self) -> dict[str, tuple[str, ...]]:
        """By path below a layer of each weight that can be cut, the roles whose rows it holds, in their order."""
        found: dict[str, tuple[str, ...]] = {}
        for role, path in self.linears.items():
            found[path] = (*found.get(path, ()), role)
        return found

    def parts(self) -> dict[str, Any]:
        """What a cut model's own code has to know (`export/pruned_modeling.py`): plain values for its configuration."""
        return {
            "sizes": list(self.sizes),
            "layers": self.layers,
            "linears": dict(self.linears),
            "transposed": self.transposed,
            "head_rows": list(self.head_rows),
            "attention": [self.attention, self.head_count],
        }


#: What BERT and those who came from it have in common.
BERT_LIKE: dict[str, Any] = {
    "linears": {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_output": "attention.output.dense",
        "ffn_in": "intermediate.dense",
        "ffn_out": "output.dense",
    },
    "norms": ("LayerNorm",),
    "attention": "attention.self",
    "layer_norms": ("attention.output.LayerNorm", "output.LayerNorm"),
    "activation": "intermediate.intermediate_act_fn",
    "feed_forward": ("intermediate",),
    "dropouts": ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
}

#: What Llama and those who came from it have in common.
LLAMA_LIKE: dict[str, Any] = {
    "tasks": ("SequenceClassification", "CausalLM"),
    "layers": "model.layers",
    "linears": {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_in": "mlp.up_proj",
        "ffn_out": "mlp.down_proj",
    },
    "norms": ("input_layernorm", "post_attention_layernorm", "norm"),
    "heads": ("score",),
    "attention": "self_attn",
    "head_count": None,
    "layer_norms": ("input_layernorm", "post_attention_layernorm"),
    "activation": "mlp.act_fn",
    "feed_forward": ("mlp",),
    "dropouts": ("attention_dropout",),
    "sizes": ("num_key_value_heads", "intermediate_size"),
    "query_heads": "num_attention_heads",
    "norm_first": True,
    "causal": True,
}
