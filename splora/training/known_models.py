"""Sizes of models that are no folder: of well-known hub names, of the hub's cache, and of the embedded encoder.

Imports no torch and asks no network: a check must say the same wherever a command stands.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from splora.anatomy import FAMILIES
from splora.json_values import read_object

_BERT = ("bert", 512)
_ROBERTA = ("roberta", 514)
_DISTILBERT = ("distilbert", 512)
#: Name without its owner → model type and positions, hidden size, neurons, layers.
_KNOWN: dict[str, tuple[tuple[str, int], int, int, int]] = {
    **dict.fromkeys(("bert-base-uncased", "bert-base-cased"), (_BERT, 768, 3072, 12)),
    **dict.fromkeys(("bert-base-multilingual-cased", "bert-base-multilingual-uncased"), (_BERT, 768, 3072, 12)),
    **dict.fromkeys(("bert-large-uncased", "bert-large-cased"), (_BERT, 1024, 4096, 24)),
    **dict.fromkeys(
        ("bert-large-uncased-whole-word-masking", "bert-large-cased-whole-word-masking"), (_BERT, 1024, 4096, 24)
    ),
    "MiniLM-L6-H384-uncased": (_BERT, 384, 1536, 6),
    "MiniLM-L12-H384-uncased": (_BERT, 384, 1536, 12),
    "roberta-base": (_ROBERTA, 768, 3072, 12),
    "roberta-large": (_ROBERTA, 1024, 4096, 24),
    "distilroberta-base": (_ROBERTA, 768, 3072, 6),
    **dict.fromkeys(
        ("distilbert-base-uncased", "distilbert-base-cased", "distilbert-base-multilingual-cased"),
        (_DISTILBERT, 768, 3072, 6),
    ),
}
#: Owners under which the hub keeps them, and names without one.
_OWNERS = ("", "google-bert", "FacebookAI", "distilbert", "nreimers", "microsoft", "huggingface")
#: Google's small BERTs, as in ``google/bert_uncased_L-4_H-256_A-4``: neurons are four times as many as dimensions.
_SMALL = re.compile(r"google/bert_uncased_L-(\d+)_H-(\d+)_A-\d+")
_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+")


def known_config(name: str) -> dict[str, Any] | None:
    """What is known of a model's `config.json` without opening the network; None where nothing is.

    Args:
        name: a hub name or ``embedded``.
    """
    if name == "embedded":
        return _config(_BERT, 128, 512, 3)
    owner, _, short = name.rpartition("/")
    if short in _KNOWN and owner in _OWNERS:
        return _config(*_KNOWN[short])
    if (match := _SMALL.fullmatch(name)) is not None:
        return _config(_BERT, int(match[2]), 4 * int(match[2]), int(match[1]))
    return _cached(name)


def _config(family: tuple[str, int], hidden: int, neurons: int, layers: int) -> dict[str, Any]:
    model_type, positions = family
    of = FAMILIES[model_type]
    sizes = {of.width: hidden, of.sizes[1]: neurons, of.depth: layers}
    return {"model_type": model_type, "max_position_embeddings": positions, **sizes}


def _cached(name: str) -> dict[str, Any] | None:
    """The configuration that an earlier run left in the hub's cache."""
    if _NAME.fullmatch(name) is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        path = try_to_load_from_cache(name, "config.json")
        return read_object(Path(path)) if isinstance(path, str) else None
    except (OSError, ValueError, TypeError):
        return None
