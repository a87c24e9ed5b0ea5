"""Sizes that a model's `config.json` tells, judged before anything of such sizes is built. Imports no torch.

Somebody else may have written the file: ten million layers, or a vocabulary of text, would keep every command busy
until memory is gone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import expanded
from splora.json_values import one_line, read_object, table

CONFIG = "config.json"
_HIDDEN, _NEURONS = ("hidden_size", "dim"), ("intermediate_size", "hidden_dim", "ffn_dim")
#: The largest a size may be, by its names in the families' configurations: some times that of the largest models.
_MOST = {
    **dict.fromkeys(("num_hidden_layers", "n_layers"), 1000),
    **dict.fromkeys(("num_attention_heads", "n_heads"), 4096),
    **dict.fromkeys((*_HIDDEN, "word_embed_proj_dim"), 2**17),
    **dict.fromkeys(_NEURONS, 2**20),
    "vocab_size": 2**23,
    **dict.fromkeys(("max_position_embeddings", "type_vocab_size"), 2**22),
    "num_labels": 2**16,
}
#: Sizes that a configuration may leave to others by null.
_OPTIONAL = ("word_embed_proj_dim", "num_labels", "type_vocab_size")
#: Weights that a byte of a weights file may stand for: pruned and packed models hold less than their dense sizes.
_PER_BYTE, _PER_BYTE_CUT = 8, 400
#: Names of files of a model's own weights, whole or in shards: no adapter's, optimizer's or tokenizer's.
WEIGHTS = re.compile(r"(model|quantized)(-\d+-of-\d+)?\.safetensors|pytorch_model(-\d+-of-\d+)?\.bin")


def check_sizes(folder: Path) -> None:
    """Judge the configuration in a model's folder; without one there is nothing to judge.

    Raises:
        InputError: it cannot be read, or tells sizes that no model has, that its weights are too few for, or that this
            machine's memory is too small for.
    """
    try:
        config = read_object(folder / CONFIG)
    except ValueError as error:
        raise InputError(f"{folder / CONFIG}: {error}.") from error
    if config is not None and (found := impossible(config, stored_bytes(folder))) is not None:
        raise InputError(f"{folder / CONFIG}: {found}.")


def impossible(config: Mapping[str, Any], stored: int = 0) -> str | None:
    """Why no model of such a configuration can be built, as a predicate; None where nothing speaks against it.

    Args:
        stored: bytes of its weights files; 0: there are none, or it is not known.
    """
    return next(_findings(config, stored), None)


def stored_bytes(folder: Path) -> int:
    """Bytes of a model's own weights in a folder; of an adapter none, whose configuration is that of its base."""
    return sum(path.stat().st_size for path in folder.iterdir() if WEIGHTS.fullmatch(path.name) and path.is_file())


def _findings(config: Mapping[str, Any], stored: int) -> Iterator[str]:
    yield from _unfit(config, 1)
    layers = config.get("per_layer_config")
    entries = layers if isinstance(layers, list) else list(table(layers).values())
    if len(entries) > _MOST["num_hidden_layers"]:
        yield f"per_layer_config has {len(entries):,} entries; at most {_MOST['num_hidden_layers']:,} are possible"
    for entry in entries:
        yield from _unfit(table(entry), 0)
    if not isinstance(config.get("id2label"), dict | None) or not isinstance(config.get("label2id"), dict | None):
        yield "id2label or label2id is no object"
    weights = _weights(config)
    cut = bool(entries) or any(name.endswith("quantization") or name == "quantization_config" for name in config)
    if stored and weights > stored * (_PER_BYTE_CUT if cut else _PER_BYTE):
        yield (
            f"tells sizes of {weights / 1e6:,.0f} million weights; the weights files beside it have "
            f"{stored / 1e6:,.1f} MB, which hold far fewer"
        )
    memory = _memory()
    if memory and 2 * weights > memory:
        yield (
            f"tells sizes of {weights / 1e9:,.0f} thousand million weights, {2 * weights / 2**30:,.0f} GiB in half "
            f"precision; this machine has {memory / 2**30:,.0f} GiB of memory"
        )


def _unfit(sizes: Mapping[str, Any], least: int) -> Iterator[str]:
    for name, most in _MOST.items():
        value = sizes.get(name)
        if name not in sizes or (value is None and name in _OPTIONAL):
            continue
        smallest = 0 if name in ("num_labels", "type_vocab_size") else least
        if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= most:
            told = one_line(repr(value) if not isinstance(value, int) or isinstance(value, bool) else f"{value:,}", 40)
            yield f"{name} is {told}; allowed are whole numbers from {smallest} to {most:,}"


def _weights(config: Mapping[str, Any]) -> int:
    """Weights of the embeddings and of the layers' six linears, as far as their sizes are told."""

    def size(*names: str) -> int:
        return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)

    hidden = size(*_HIDDEN)
    layer = 4 * hidden**2 + 2 * hidden * size(*_NEURONS)
    return (size("vocab_size") + size("max_position_embeddings")) * hidden + size(
        "num_hidden_layers", "n_layers"
    ) * layer


def _memory() -> int:
    """Bytes of this machine's memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def is_cut_folder(path: str | Path) -> bool:
    """Whether a folder holds a model whose layers differ in size; a name that is no folder's does not."""
    try:
        return isinstance((read_object(expanded(path) / CONFIG) or {}).get("per_layer_config"), dict)
    except (OSError, ValueError):
        return False
