"""Tokenizers, configurations and data sets by folder or hub name, with one clear sentence where they cannot be had.

Whether there is a network is found out first, in a moment: the libraries would retry for half a minute, aloud.
"""

from __future__ import annotations

import re
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from splora.adapter_files import instead_of, is_adapter
from splora.errors import InputError
from splora.files import expanded
from splora.json_values import table
from splora.model_sizes import check_sizes, impossible
from splora.tasks import tokenizer_files
from splora.tasks.source_names import EMBEDDED, has_weights, is_folder, is_path, local_folder, mistyped

#: Seconds after which a network that does not answer is none.
PATIENCE = 5.0
CONFIG = "config.json"
#: The hub's model that the project's folder of that name can be filled with.
FETCHED = "bert-base-uncased"

T = TypeVar("T")


def load_tokenizer(name: str, cache_dir: str | None = None) -> Any:
    """The fast tokenizer of a folder, a hub name, or `embedded`.

    Raises:
        InputError: no such folder or name, no network, or no vocabulary in it.
    """
    if name == EMBEDDED:
        from splora.tasks.embedded.tokenizer import build_tokenizer

        return build_tokenizer()
    tokenizer = _model_part(name, "tokenizer", lambda source: _tokenizer(source, cache_dir), cache_dir)
    # A folder with a configuration alone yields a tokenizer that knows only its special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(
            f"{name}: has no vocabulary (tokenizer.json or vocab.txt); for bert-base-uncased, "
            f"`python bert-base-uncased/fetch.py` downloads it."
        )
    if not tokenizer.is_fast:
        raise InputError(f"{name}: has no fast tokenizer (tokenizer.json); positions in the text need one.")
    tokenizer_files.check_built(tokenizer, name)
    if (folder := local_folder(name)) is not None:
        tokenizer_files.check_list(tokenizer, folder)
    return tokenizer


def _tokenizer(source: str, cache_dir: str | None) -> Any:
    """What transformers makes of a folder or name.

    Raises:
        InputError: its files are none of a tokenizer.
    """
    from transformers import AutoTokenizer

    folder = expanded(source)
    if folder.is_dir():
        tokenizer_files.check_files(folder)
    try:
        return AutoTokenizer.from_pretrained(source, cache_dir=cache_dir)
    except unreadable():
        raise  # told by the caller
    except BaseException as error:
        tokenizer_files.raise_unless_library(error)
        raise ValueError(tokenizer_files.first_line(error)) from error


def load_config(name: str, cache_dir: str | None = None, *, alone: bool = False) -> Any:
    """The configuration of a folder, a hub name, or `embedded`.

    Args:
        alone: a folder's `config.json` is enough, without weights beside it.

    Raises:
        InputError: no such folder or name, or no network; or it describes a model that cannot be built any more.
    """
    if name == EMBEDDED:
        from splora.tasks.embedded.model import embedded_config

        return embedded_config()
    from transformers import AutoConfig, PretrainedConfig

    def load(source: str) -> Any:
        written = PretrainedConfig.get_config_dict(source, cache_dir=cache_dir)[0]
        _check_written(name, written)
        config = AutoConfig.from_pretrained(source, cache_dir=cache_dir)
        if table(written.get("label2id")) and not written.get("id2label"):
            # transformers drops names that only `label2id` has.
            config.id2label = {int(number): str(label) for label, number in written["label2id"].items()}
            config.label2id = {label: number for number, label in config.id2label.items()}
        _check_padding(name, config)
        # These change what a forward pass returns, or how it is computed, and nothing of the model.
        for option, value in (("return_dict", True), ("chunk_size_feed_forward", 0)):
            if hasattr(config, option):
                setattr(config, option, value)
        if (found := impossible(config.to_dict())) is not None:  # of the hub, where no folder was looked at
            raise InputError(f"{name}: its configuration {found}.")
        return config

    if alone and (expanded(name) / CONFIG).is_file():
        return _read(name, "configuration", lambda: load(str(expanded(name))))
    return _model_part(name, "configuration", load, cache_dir)


def _check_padding(name: str, config: Any) -> None:
    """Refuse a padding token that the model has no embedding of."""
    token, words = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if isinstance(token, int) and isinstance(words, int) and not 0 <= token < words:
        raise InputError(f"{name}: config.json fills rows up with token {token} (pad_token_id); there are {words:,}.")


def _check_written(name: str, written: dict[str, Any]) -> None:
    """Refuse what is written in `config.json` and would be passed over, or end in a library's own words."""
    heads = written.get("pruned_heads")
    if heads:
        raise InputError(
            f"{name}: config.json says that heads were pruned (pruned_heads, in {len(heads)} layers), and transformers "
            f"builds no such model any more; pass the unpruned checkpoint, or one that splora prune wrote."
        )
    numbers = [*(table(written.get("id2label"))), *table(written.get("label2id")).values()]
    odd = next((number for number in numbers if not re.fullmatch(r"\d+", str(number))), None)
    if odd is not None:
        raise InputError(f"{name}: config.json numbers a label {odd!r}; whole numbers from 0 on are needed.")


def load_model(auto_model: Any, name: str, **options: Any) -> Any:
    """A model by `auto_model.from_pretrained(name, **options)`, or the embedded one with a new task head.

    What of it was found in the files is for `splora.checkpoints.checkpoint` to judge, which every command loads by.

    Raises:
        InputError: no such folder or name, no network, or weights that cannot be read.
    """
    if name != EMBEDDED:
        check_weights(name)
        cache_dir = options.get("cache_dir")
        return _model_part(name, "model", lambda source: auto_model.from_pretrained(source, **options), cache_dir)
    from splora.tasks.embedded.model import with_task_head

    return with_task_head(auto_model, options.pop("config", None) or load_config(name), **options)


def load_tensors(name: str, cache_dir: str | None = None) -> dict[str, Any]:
    """All tensors of a folder's or hub name's files of weights, by the names that they have there.

    Raises:
        InputError: as `load_model`.
    """
    return dict(_model_part(name, "model", lambda source: _tensors(source, cache_dir), cache_dir))


def _files(source: str, cache_dir: str | None) -> Path:
    return expanded(source) if expanded(source).is_dir() else _snapshot(source, cache_dir, True)


def _tensors(source: str, cache_dir: str | None) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    from splora.export.storage import weight_files

    files = weight_files(str(_files(source, cache_dir).resolve()))
    tensors: dict[str, Any] = {}
    for file in files:
        read = (
            load_file if file.suffix == ".safetensors" else partial(torch.load, map_location="cpu", weights_only=True)
        )
        tensors |= read(file)
    return tensors


def model_folder(name: str, cache_dir: str | None = None) -> Path:
    """The folder of a model's files: its own, or that of the cache, into which they are loaded.

    Raises:
        InputError: as `load_model`.
    """
    return _model_part(name, "model", lambda source: _files(source, cache_dir), cache_dir)


def load_dataset(name: str, configuration: str | None, split: str, cache_dir: str | None = None, **options: Any) -> Any:
    """A split of a `datasets` data set by hub name; `options` are for `datasets.load_dataset`.

    Raises:
        InputError: no such name, configuration or split, or no network.
    """
    import datasets

    shown = f"{name} ({configuration})" if configuration else name
    reached = reachable()
    try:
        with nullcontext() if reached else only_caches():
            return datasets.load_dataset(name, configuration, split=split, cache_dir=cache_dir, **options)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = _first_line(error) if reached else "there is no network and no copy in the cache"
        raise InputError(
            f"{shown}: the data set cannot be loaded from the hub ({reason}); "
            f"pass a file or folder with --train-file and --predict-file, or 'embedded'{mistyped(name) or '.'}"
        ) from error


def check_weights(name: str) -> None:
    """Refuse a folder that describes a model and holds none.

    Raises:
        InputError: an adapter, or `config.json` and no file of weights.
    """
    folder = local_folder(name)
    if folder is not None and is_adapter(folder):
        raise InputError(f"{name}: {instead_of(folder)}.")
    if folder is not None and (folder / CONFIG).is_file() and not has_weights(folder):
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


def _model_part(name: str, what: str, load: Callable[[str], T], cache_dir: str | None = None) -> T:
    """What `load` makes of a source: a folder's path, or a name of the hub."""
    folder = local_folder(name)
    if folder is not None:
        if not (folder / CONFIG).is_file():
            raise InputError(f"{name}: this folder holds no model; it has no {CONFIG}.")
        check_sizes(folder)
        return _read(name, what, lambda: load(str(folder)))
    if is_path(name):
        remedy = "pass a model's folder, a hub name, or 'embedded'"
        raise InputError(f"{name}: there is no such folder; {remedy}{mistyped(name) or '.'}")
    # The libraries take any folder for a model's: one that shadows a name is told by where the hub's copy lies.
    shadowed, reached = is_folder(name), reachable()
    try:
        with nullcontext() if reached else only_caches():
            return load(str(_snapshot(name, cache_dir, what == "model")) if shadowed else name)
    except InputError:
        raise
    except unreadable() as error:
        reason = _first_line(error) if reached else "there is no network and no copy in the cache"
        here = "the folder of that name holds no weights" if shadowed else "there is no such folder"
        remedy = "; `python bert-base-uncased/fetch.py` downloads this one" if name == FETCHED and shadowed else ""
        raise InputError(
            f"{name}: {here}, and the {what} cannot be loaded from the hub ({reason}); "
            f"pass a model's folder, or 'embedded'{remedy}{mistyped(name) or '.'}"
        ) from error


def _read(name: str, what: str, load: Callable[[], T]) -> T:
    """What `load` makes of a folder's files."""
    try:
        return load()
    except InputError:
        raise
    except unreadable() as error:
        raise InputError(f"{name}: the {what} cannot be read ({_first_line(error)}).") from error


def _snapshot(name: str, cache_dir: str | None, weights: bool) -> Path:
    """The cache's folder of a model of the hub: its small files, and where asked for its weights, safetensors first."""
    from huggingface_hub import constants, snapshot_download

    for weights_of in ("model*.safetensors", "pytorch_model*.bin") if weights else ("",):
        folder = Path(
            snapshot_download(
                name,
                cache_dir=cache_dir,
                allow_patterns=["*.json", "*.txt", *filter(None, [weights_of])],
                local_files_only=constants.HF_HUB_OFFLINE,
            )
        )
        if not weights_of or any(folder.glob(weights_of)):
            break
    if not (folder / CONFIG).is_file():
        raise OSError(f"it has no {CONFIG}")
    return folder


@contextmanager
def only_caches() -> Iterator[None]:
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


def unreadable() -> tuple[type[Exception], ...]:
    """What the libraries raise for files they cannot read, and for names the hub does not know."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    named = OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, AssertionError
    return *named, SafetensorError, StrictDataclassError


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
