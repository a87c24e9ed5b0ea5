"""A pruned model on disk: a folder that this program and, where it is not installed, stock transformers load.

It holds `config.json` (the stock configuration with `per_layer_config`), `model.safetensors`, the tokenizer, and
`pruned_modeling.py`, to which the configuration's `auto_map` points.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from splora import anatomy
from splora.adapter_files import instead_of, is_adapter
from splora.errors import InputError
from splora.export.storage import in_dtype
from splora.files import expanded, refuse_link, replacing_folder, write_json
from splora.model_sizes import check_sizes

if TYPE_CHECKING:
    import torch

#: The configuration's file, and that of the weights.
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_pruned(model: nn.Module, tokenizer: Any, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a model that `cut` or `load_pruned` gave, and its tokenizer (or None), in place of `folder`.

    A folder that is there is replaced as a whole, once all is written.

    Args:
        dtype: what weights are stored in, to whose values they are rounded; None: what the model has them in.

    Raises:
        InputError: the folder holds something else than a model, or cannot be written to.
    """
    refuse_link(expanded(folder))
    target = expanded(folder).resolve()
    if target.exists() and not (target / CONFIG).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{folder}: holds no model and is not empty, so it is not replaced; pass another folder.")
    from splora.offload import is_offloaded

    network: Any = model if dtype is None else in_dtype(model, dtype)
    with replacing_folder(target) as beside:
        if is_offloaded(network):
            save_shards(network, beside)
        else:
            network.save_pretrained(str(beside))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(beside))


def save_shards(model: Any, folder: Path) -> None:
    """Write a model whose weights are in files: as `save_pretrained`, but one file for each layer, one after another.

    Args:
        model: of `in_dtype`, whose parameters come in the type that they are stored in.
    """
    from safetensors.torch import save_file

    from splora.offload import values_of

    model.save_pretrained(str(folder), state_dict={})
    (folder / WEIGHTS).unlink(missing_ok=True)
    layers = anatomy.family_of(model.config).layers
    files: dict[str, list[str]] = {}  # of each layer, and of all that is around them
    parameters = dict(model.named_parameters())
    for name in parameters:
        number = name.removeprefix(f"{layers}.").partition(".")[0] if name.startswith(f"{layers}.") else ""
        files.setdefault(number, []).append(name)
    listed, size = dict[str, str](), 0
    for count, names in enumerate(files.values(), 1):
        part = f"model-{count:05}-of-{len(files):05}.safetensors"
        tensors = {name: values_of(parameters[name]).cpu().contiguous() for name in names}
        save_file(tensors, folder / part, metadata={"format": "pt"})
        size += sum(tensor.nbytes for tensor in tensors.values())
        listed |= dict.fromkeys(names, part)
    write_json(folder / f"{WEIGHTS}.index.json", {"metadata": {"total_size": size}, "weight_map": listed})


def load_pruned(path: str | Path, **options: Any) -> nn.Module:
    """The model of a folder, in evaluation mode: a pruned one, or any plain one of transformers.

    No code of the folder is run. Only weights of the smaller sizes are allocated.

    Args:
        path: a folder as `save_pruned` or `save_pretrained` leaves it.
        options: passed to `from_pretrained`, e.g. `dtype` (without it, weights are in memory what they are in the file,
            which in fp16 is slow on a processor), `attn_implementation`, `device_map`.

    Raises:
        InputError: there is no such folder, no model in it, or one that cannot be read.
    """
    import transformers

    from splora.export.quantized import is_quantized
    from splora.tasks.hub import unreadable

    folder = model_folder(path)
    if is_quantized(folder):
        raise InputError(f"{path}: this model is quantized; splora.load_quantized loads it.")
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        model: nn.Module = class_of(path, config).from_pretrained(folder, config=config, **options)
        return model.eval()
    except InputError:
        raise
    except unreadable() as error:
        raise InputError(f"{path}: the model cannot be read ({told(error)}).") from error


def model_folder(path: str | Path) -> Path:
    """The folder of a model.

    Raises:
        InputError: there is no such folder, no model in it, or one of sizes that cannot be.
    """
    folder = expanded(path)
    if not folder.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{path}: this folder holds no model; it has no {CONFIG}.")
    if is_adapter(folder):
        raise InputError(f"{path}: {instead_of(folder)}.")
    check_sizes(folder)
    return folder


def is_model_folder(path: str | Path) -> bool:
    """Whether a folder holds a model itself, as `splora prune` and `splora quantize` leave it; an adapter is none."""
    return (expanded(path) / CONFIG).is_file() and not is_adapter(path)


def class_of(path: str | Path, config: Any) -> Any:
    """The class that a configuration names: of transformers, or of `pruned_modeling` where layers differ in size.

    Folders of before do not say where their family keeps its parts: `config` is told.

    Raises:
        InputError: there is no such class.
    """
    import transformers

    from splora.export.pruned_modeling import task_model

    name, pruned = (config.architectures or ["none"])[0], anatomy.task_models()
    if config.is_heterogeneous and name in pruned:
        config.pruned_parts = anatomy.family_of(config).parts()
        return task_model(name)
    found = None if config.is_heterogeneous else getattr(transformers, name, None)
    if found is None:
        known = (
            f"pruned ones are {', '.join(pruned)}" if config.is_heterogeneous else f"see 'architectures' in {CONFIG}"
        )
        raise InputError(f"{path}: a model of the class {name!r} is not known; {known}.")
    return found


def told(error: BaseException) -> str:
    """The first line of what a library says of a mistake, or the mistake's name."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
