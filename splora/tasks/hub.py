"""Tokenizers, configurations and data sets by folder or hub name, with one clear sentence where they cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from splora.errors import InputError

#: Name of the small model and of the data sets that the project makes itself.
EMBEDDED = "embedded"

T = TypeVar("T")


def load_tokenizer(name: str, cache_dir: str | None = None) -> Any:
    """The fast tokenizer of a folder, a hub name, or `embedded`.

    Raises:
        InputError: no such folder or name, no network, or it has no fast tokenizer.
    """
    if name == EMBEDDED:
        from splora.tasks.embedded.tokenizer import build_tokenizer

        return build_tokenizer()
    from transformers import AutoTokenizer

    tokenizer = _from_hub(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(name, cache_dir=cache_dir))
    if not tokenizer.is_fast:
        raise InputError(f"{name}: has no fast tokenizer (tokenizer.json); positions in the text need one.")
    return tokenizer


def load_config(name: str, cache_dir: str | None = None) -> Any:
    """The configuration of a folder, a hub name, or `embedded`.

    Raises:
        InputError: no such folder or name, or no network.
    """
    if name == EMBEDDED:
        from splora.tasks.embedded.model import embedded_config

        return embedded_config()
    from transformers import AutoConfig

    return _from_hub(name, "config", lambda: AutoConfig.from_pretrained(name, cache_dir=cache_dir))


def load_model(auto_model: Any, name: str, **options: Any) -> Any:
    """The weights of a folder or a hub name, by one of transformers' AutoModel classes; `options` go to from_pretrained.

    Raises:
        InputError: no such folder or name, no network, or weights that do not fit.
    """
    return _from_hub(name, "model", lambda: auto_model.from_pretrained(name, **options))


def load_dataset(name: str, configuration: str | None, split: str, cache_dir: str | None = None) -> Any:
    """A split of a `datasets` data set by hub name.

    Raises:
        InputError: no such name, configuration or split, or no network.
    """
    import datasets

    shown = f"{name} ({configuration})" if configuration else name
    try:
        return datasets.load_dataset(name, configuration, split=split, cache_dir=cache_dir)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{shown}: the data set cannot be loaded from the hub ({_first_line(error)}); "
            f"without a network pass a file or folder with --train-file and --predict-file, or 'embedded'."
        ) from error


def _from_hub(name: str, what: str, load: Callable[[], T]) -> T:
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"{name}: this folder is no model; it has no config.json.")
    if not folder.is_dir() and _looks_like_path(name):
        raise InputError(f"{name}: there is no such folder; pass a model's folder, a hub name, or 'embedded'.")
    try:
        return load()
    except (OSError, ValueError, RuntimeError) as error:
        if folder.is_dir():
            raise InputError(f"{name}: the {what} cannot be read ({_first_line(error)}).") from error
        raise InputError(
            f"{name}: there is no such folder, and the {what} cannot be loaded from the hub ({_first_line(error)}); "
            f"without a network pass a model's folder, or 'embedded'."
        ) from error


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
