"""A checkpoint's model whose weights stay in their safetensors files until they are used."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from splora.checkpoints.weight_names import own_names
from splora.errors import InputError
from splora.export.storage import missing_part, weight_files
from splora.offload import Parked, from_safetensors
from splora.scratch import Scratch
from splora.tasks import hub

#: Buffers that checkpoints of before hold and that are computed.
COMPUTED = r"rotary_emb\.inv_freq$"


def parked_model(
    kind: Any, name: str, config: Any, dtype: torch.dtype, device: torch.device, cache_dir: str | None = None
) -> tuple[Any, dict[str, list[Any]]]:
    """A model without values for its parameters, each of which knows its place in a file.

    Args:
        kind: an auto class, or that of a pruned model.
        name: folder or hub name.
        config: of the model.
        dtype: that values are given in.
        device: that they are given on.
        cache_dir: folder of downloads.

    Returns:
        The model, and what `from_pretrained` reports of its weights: `missing_keys`, `unexpected_keys` and
        `mismatched_keys`.

    Raises:
        InputError: its weights are in no safetensors files, or one of these is missing or damaged.
    """
    places = _places(name, hub.model_folder(name, cache_dir))
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False), torch.random.fork_rng(devices=[]):
        make = getattr(kind, "from_config", None) or kind._from_config
        model: Any = make(config, dtype=dtype)
    model.tie_weights()  # each parameter became a new one as it was registered
    wanted = [path for path, _ in model.named_parameters(remove_duplicate=False)]
    renamed = own_names(set(places) - set(wanted), wanted, model.base_model_prefix)
    own = {renamed.get(key, key): place for key, place in places.items()}
    own = {key if key in wanted else f"{model.base_model_prefix}.{key}": place for key, place in own.items()}
    report: dict[str, list[Any]] = {"missing_keys": [], "mismatched_keys": []}
    ignored = [COMPUTED, *(model._keys_to_ignore_on_load_unexpected or ())]
    named = {*wanted, *(path for path, _ in model.named_buffers())}
    unknown = [key for key in own if key not in named]
    report["unexpected_keys"] = [key for key in unknown if not any(re.search(one, key) for one in ignored)]
    scratch, parked = Scratch(), dict[int, nn.Parameter]()
    tied = dict[int, list[str]]()
    for path, parameter in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(parameter), []).append(path)
    for path, parameter in list(model.named_parameters(remove_duplicate=False)):
        stored = next((own[other] for other in tied[id(parameter)] if other in own), None)
        if stored is None:
            report["missing_keys"].append(path)
            continue
        file, key, shape = stored
        if shape != parameter.shape:
            report["mismatched_keys"].append((path, shape, parameter.shape))
        if id(parameter) not in parked:
            parked[id(parameter)] = Parked(partial(from_safetensors, file, key), parameter, device, scratch)
        owner, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(owner), leaf, parked[id(parameter)])
    for module in model.modules():
        module._buffers |= {leaf: one.to(device) for leaf, one in module._buffers.items() if one is not None}
    return model, report


def _places(name: str, folder: Path) -> dict[str, tuple[Path, str, torch.Size]]:
    """File, name there and shape of each tensor of a folder, by that name."""
    from safetensors import SafetensorError

    files = weight_files(str(folder))
    if any(file.suffix != ".safetensors" for file in files):
        raise InputError(
            f"{name}: --offload reads weights from safetensors files, and these are in {files[0].name}; leave it out, "
            f"or save the model anew with save_pretrained."
        )
    if (missing := missing_part(folder)) is not None:
        raise InputError(f"{name}: {missing.name} is in the list of its files of weights, but not in the folder.")
    places = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118  (it is no dictionary)
                    places[key] = path, key, torch.Size(file.get_slice(key).get_shape())
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: the weights cannot be read ({error}).") from error
    return places
