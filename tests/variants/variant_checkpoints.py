"""Variants of a checkpoint: names and types of its weights, and what `config.json` says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from splora.tasks.glue_tasks import TASKS

Weights = dict[str, torch.Tensor]
Settings = dict[str, Any]
#: The task of questions; the others classify.
QUESTIONS = "squad"


def _rename(how: Callable[[str], str]) -> Callable[[Weights, Settings, str], Weights]:
    return lambda weights, settings, task: {how(name): value for name, value in weights.items()}


def _without(part: str) -> Callable[[Weights, Settings, str], Weights]:
    return lambda weights, settings, task: {name: value for name, value in weights.items() if part not in name}


def _configured(**changes: Any) -> Callable[[Weights, Settings, str], Weights]:
    def change(weights: Weights, settings: Settings, task: str) -> Weights:
        settings.update(changes)
        return weights

    return change


def _swapped(name: str) -> Callable[[Weights, Settings, str], Weights]:
    """The same function with its first two outputs exchanged, and what a configuration may say of them."""

    def change(weights: Weights, settings: Settings, task: str) -> Weights:
        if task == QUESTIONS:
            return weights
        labels = list(TASKS[task].labels)
        order = [1, 0, *range(2, len(labels))]
        last = "classifier.out_proj." if "classifier.out_proj.weight" in weights else "classifier."
        weights |= {key: value[order].contiguous() for key, value in weights.items() if key.startswith(last)}
        names = {str(number): labels[label] for number, label in enumerate(order)}
        plain = {label: number for number, label in enumerate(labels)}
        for key in ("id2label", "label2id"):
            settings.pop(key, None)
        settings |= {
            "id2label": {"id2label": names},
            "upper": {"id2label": {number: label.upper() for number, label in names.items()}},
            "stale": {"id2label": names, "label2id": plain},
            "numbered": {"id2label": {number: f"LABEL_{order[int(number)]}" for number in names}},
            "label2id": {"label2id": {label: int(number) for number, label in names.items()}},
            "both": {"id2label": names, "label2id": {label: int(number) for number, label in names.items()}},
            "unnamed": {"num_labels": len(labels)},
            "other": {"id2label": {number: f"kind {number}" for number in names}},
        }[name]
        return weights

    return change


def _damaged(weights: Weights, settings: Settings, task: str) -> Weights:
    weights[next(name for name in weights if "layer.1" in name)].view(-1)[0] = float("nan")
    return weights


def _half(weights: Weights, settings: Settings, task: str) -> Weights:
    return {name: value.half() for name, value in weights.items()}


CHECKPOINTS: dict[str, Callable[[Weights, Settings, str], Weights]] = {
    "plain": _configured(),
    **{prefix: _rename(lambda key, prefix=prefix: prefix + key) for prefix in ("module.", "model.", "_orig_mod.")},
    "nested": _rename(lambda key: f"module._orig_mod.network.{key}"),
    "unknown prefix": _rename(lambda key: f"net.{key}"),
    "old norms": _rename(lambda key: key.replace("LayerNorm.weight", "LayerNorm.gamma")),
    "no head": _without("classifier"),
    "no answers": _without("qa_outputs"),
    "half a head": _without("classifier.bias"),
    "no layer 1": _without("layer.1."),
    "no words": _without("word_embeddings"),
    **{f"outputs swapped, {name}": _swapped(name) for name in ("id2label", "upper", "stale", "numbered", "label2id")},
    **{f"outputs swapped, {name}": _swapped(name) for name in ("both", "unnamed", "other")},
    "dropout": _configured(hidden_dropout_prob=0.5, dropout=0.5, qa_dropout=0.5, seq_classif_dropout=0.5),
    "pruned heads": _configured(pruned_heads={"1": [0]}),
    "no pruned heads": _configured(pruned_heads={}),
    "one segment": _configured(type_vocab_size=1),
    "few positions": _configured(max_position_embeddings=20),
    "neurons": _configured(intermediate_size=12, hidden_dim=12),
    "one layer less": _configured(num_hidden_layers=1, n_layers=1),
    "one layer more": _configured(num_hidden_layers=3, n_layers=3),
    "architecture": _configured(architectures=None),
    "other architecture": _configured(architectures=["BertForMaskedLM"]),
    "family": _configured(model_type="gpt2"),
    "words": _configured(vocab_size=50),
    "nan": _damaged,
    "half": _half,
}
