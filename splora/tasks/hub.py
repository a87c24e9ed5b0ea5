"""Tokenizers, configurations and data sets by folder or hub name, with one clear sentence where they cannot be had.

Whether there is a network is found out first, in a moment: the libraries would retry for half a minute, aloud.
"""

from __future__ import annotations

import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from splora.errors import InputError
from splora.model_sizes import check_sizes, impossible
from splora.tasks import tokenizer_files

#: Name of the small model and of the data sets that the project makes itself.
EMBEDDED = "embedded"
#: Seconds after which a network that does not answer is none.
PATIENCE = 5.0

T = TypeVar("T")


def load_tokenizer(name: str, cache_dir: str | None = None) -> Any:
    """The fast tokenizer of a folder, a hub name, or `embedded`.

    Raises:
        InputError: no such folder or name, no network, or no vocabulary in it.
    """
    if name == EMBEDDED:
        from splora.tasks.embedded.tokenizer import build_tokenizer

        return build_tokenizer()
    tokenizer = _model_part(name, "tokenizer", lambda: _tokenizer(name, cache_dir))
    # A folder with a configuration alone yields a tokenizer that knows only its special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(
            f"{name}: has no vocabulary (tokenizer.json or vocab.txt); for bert-base-uncased, "
            f"`python bert-base-uncased/fetch.py` downloads it."
        )
    if not tokenizer.is_fast:
        raise InputError(f"{name}: has no fast tokenizer (tokenizer.json); positions in the text need one.")
    tokenizer_files.check_built(tokenizer, name)
    return tokenizer


def _tokenizer(source: str, cache_dir: str | None) -> Any:
    """What transformers makes of a folder or name.

    Raises:
        InputError: its files are none of a tokenizer.
    """
    from transformers import AutoTokenizer

    folder = Path(source).expanduser()
    if folder.is_dir():
        tokenizer_files.check_files(folder)
    try:
        return AutoTokenizer.from_pretrained(source, cache_dir=cache_dir)
    except _unreadable():
        raise  # told by the caller
    except BaseException as error:
        tokenizer_files.raise_unless_library(error)
        raise ValueError(tokenizer_files.first_line(error)) from error


def load_config(name: str, cache_dir: str | None = None) -> Any:
    """The configuration of a folder, a hub name, or `embedded`.

    Raises:
        InputError: no such folder or name, or no network.
    """
    if name == EMBEDDED:
        from splora.tasks.embedded.model import embedded_config

        return embedded_config()
    from transformers import AutoConfig

    config = _model_part(name, "configuration", lambda: AutoConfig.from_pretrained(name, cache_dir=cache_dir))
    if (found := impossible(config.to_dict())) is not None:  # of the hub, where no folder was looked at
        raise InputError(f"{name}: its configuration {found}.")
    return config


def load_model(auto_model: Any, name: str, **options: Any) -> Any:
    """A model by `auto_model.from_pretrained(name, **options)`, or the embedded one with a new task head.

    Raises:
        InputError: no such folder or name, no network, or weights that cannot be read.
    """
    if name != EMBEDDED:
        check_weights(name)
        return _model_part(name, "model", lambda: auto_model.from_pretrained(name, **options))
    from splora.tasks.embedded.model import with_task_head

    return with_task_head(auto_model, options.pop("config", None) or load_config(name), **options)


def load_dataset(name: str, configuration: str | None, split: str, cache_dir: str | None = None, **options: Any) -> Any:
    """A split of a `datasets` data set by hub name; `options` are for `datasets.load_dataset`.

    Raises:
        InputError: no such name, configuration or split, or no network.
    """
    import datasets

    shown = f"{name} ({configuration})" if configuration else name
    reached = reachable()
    try:
        with nullcontext() if reached else _only_caches():
            return datasets.load_dataset(name, configuration, split=split, cache_dir=cache_dir, **options)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = _first_line(error) if reached else "there is no network and no copy in the cache"
        raise InputError(
            f"{shown}: the data set cannot be loaded from the hub ({reason}); "
            f"pass a file or folder with --train-file and --predict-file, or 'embedded'."
        ) from error


def check_weights(name: str) -> None:
    """Refuse a folder that describes a model and holds none, as this project's `bert-base-uncased` before it is filled.

    Raises:
        InputError: `config.json` and no file of weights.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file() and not any(
        path.suffix in (".safetensors", ".bin") for path in folder.iterdir()
    ):
        raise InputError(
            f"{name}: this folder has a configuration, but no weights (model.safetensors or pytorch_model.bin); "
            f"pass the folder of a trained model."
        )


def reachable() -> bool:
    """Whether the hub answers, found out within `PATIENCE` seconds; behind a proxy, assumed."""
    from huggingface_hub import constants

    address = urllib.parse.urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        return False
    if address.scheme in urllib.request.getproxies():
        return True
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        with socket.create_connection((address.hostname or "", port), timeout=PATIENCE):
            return True
    except OSError:
        return False


def _model_part(name: str, what: str, load: Callable[[], T]) -> T:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"{name}: this folder holds no model; it has no config.json.")
        check_sizes(folder)
        try:
            return load()
        except InputError:
            raise
        except _unreadable() as error:
            raise InputError(f"{name}: the {what} cannot be read ({_first_line(error)}).") from error
    if name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1:
        raise InputError(f"{name}: there is no such folder; pass a model's folder, a hub name, or 'embedded'.")
    reached = reachable()
    try:
        with nullcontext() if reached else _only_caches():
            return load()
    except InputError:
        raise
    except _unreadable() as error:
        reason = _first_line(error) if reached else "there is no network and no copy in the cache"
        raise InputError(
            f"{name}: there is no such folder, and the {what} cannot be loaded from the hub ({reason}); "
            f"pass a model's folder, or 'embedded'."
        ) from error


@contextmanager
def _only_caches() -> Iterator[None]:
    """Let the hub's libraries look into their caches and nowhere else."""
    from huggingface_hub import constants

    # `datasets` keeps a copy of the switch; it is slow to import and no matter where it is not in use.
    switches: list[Any] = [constants, *(module for module in [sys.modules.get("datasets.config")] if module)]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    for switch in switches:
        switch.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value


def _unreadable() -> tuple[type[Exception], ...]:
    """What the libraries raise for files they cannot read, and for names the hub does not know."""
    from safetensors import SafetensorError

    return OSError, ValueError, KeyError, RuntimeError, SafetensorError


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
