"""An adapter's folder by its files, and what to name where a model is needed. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from splora.errors import cut
from splora.files import expanded
from splora.json_values import read_object, text
from splora.run_files import ADAPTER as ADAPTER

#: Where PEFT keeps an adapter's settings and weights.
SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(path: str | Path) -> bool:
    """Whether a folder itself holds an adapter."""
    try:
        return (expanded(path) / SETTINGS).is_file()
    except OSError:  # a name too long for a folder's
        return False


def instead_of(folder: str | Path) -> str:
    """What an adapter's folder is, and what to name in its place where a model is needed, as a predicate."""
    try:
        base = text((read_object(expanded(folder) / SETTINGS) or {}).get("base_model_name_or_path"))
    except ValueError:  # said where the adapter is loaded
        base = ""
    starts = f"name what it starts from ({cut(base)})" if base else "name what it starts from"
    return f"is an adapter and no model; {starts}, or merge it (merge_and_unload), save that and name it"
