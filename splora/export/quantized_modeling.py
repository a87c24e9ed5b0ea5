"""Loads quantized models: the packed codes of their file become the weights of a plain model.

This file, `pruned_modeling.py` and `packing.py` need torch, safetensors and transformers >= 5.15, nothing else. They
lie beside the weights of a quantized model, so that `AutoModelFor….from_pretrained(folder, trust_remote_code=True)`
loads them. In memory the model is a plain one, whose fp32 weights are exactly those that the codes stand for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from transformers import GenerationConfig
from transformers.utils.hub import cached_file

# Relative: where this file lies beside weights, there is no package of this name.
from .packing import SECTION, WEIGHTS, read_weights
from .pruned_modeling import OnlyForTasks as OnlyForTasks  # what `AutoModel` finds
from .pruned_modeling import task_model

#: `from_pretrained`'s options that say where a file is.
_PLACES = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def load(from_pretrained: Callable[..., Any], name: Any, config: Any, *args: Any, **options: Any) -> Any:
    """A plain model with the weights of `name`, whatever `from_pretrained` returns.

    Args:
        from_pretrained: of a class that knows nothing of quantized models.
        name: folder or hub name.
        config: with the section that tells how its weights are packed; the model's own has none, so that the model can
            be saved as it is.
        options: further ones of `from_pretrained`.

    Raises:
        ValueError: the file does not hold what the configuration says.
    """
    places = {key: options.pop(key) for key in _PLACES if key in options}
    weights = read_weights(str(cached_file(name, WEIGHTS, **places)), getattr(config, SECTION))
    config = copy.deepcopy(config)
    delattr(config, SECTION)
    if options.get("generation_config") is None:
        with suppress(OSError):  # most models have none
            options["generation_config"] = GenerationConfig.from_pretrained(name, **places)
    return from_pretrained(None, *args, config=config, state_dict=weights, **options)


class _Quantized:
    """Before a plain class: reads packed weights where the configuration says that there are."""

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, config: Any = None, **options: Any) -> Any:
        plain: Any = super()
        if config is None and name is not None:
            places = {key: options[key] for key in _PLACES if key in options}
            config = cls.config_class.from_pretrained(name, **places)  # type: ignore[attr-defined]
        if name is None or getattr(config, SECTION, None) is None:
            return plain.from_pretrained(name, *args, config=config, **options)
        return load(plain.from_pretrained, name, config, *args, **options)


@cache
def _class(name: str) -> Any:
    """The task model of a name; its family's code is imported now."""
    return type(name, (_Quantized, task_model(name)), {"__module__": __name__})


def __getattr__(name: str) -> Any:
    """The classes bear the names of the stock classes, and are made when they are asked for."""
    return _class(name)
