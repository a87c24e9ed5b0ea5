"""A quantized model on disk: a folder with packed weights that this program and, elsewhere, stock transformers load.

It holds `config.json` (the model's own, with a section `splora_quantization`), `quantized.safetensors` (see `packing`),
the tokenizer, and three files of code, to which the configuration's `auto_map` points. There is no `model.safetensors`:
what does not know of packed weights finds none, instead of making new ones.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splora import anatomy
from splora.errors import InputError
from splora.export.folder import CONFIG, class_of, model_folder, told
from splora.files import expanded, refuse_link, replacing_folder
from splora.json_values import read_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from splora.posttraining.quantize.grid import GridOptions, QuantizedWeight


def is_quantized(name: str | Path) -> bool:
    """Whether a folder holds a model that `save_quantized` wrote; False for what is no folder of a model."""
    from splora.export.packing import SECTION

    try:
        return SECTION in (read_object(expanded(name) / CONFIG) or {})
    except ValueError:
        return False


def save_quantized(
    model: nn.Module,
    weights: Mapping[str, QuantizedWeight],
    grid: GridOptions,
    tokenizer: Any,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write a quantized model and its tokenizer (or None) in place of `folder`.

    Args:
        model: of one of the classes of `pruned_modeling`, dense or pruned.
        weights: by parameter name; these parameters of `model` are not looked at.
        grid: of all of them.
        dtype: what other tensors are stored in, where that loses nothing of them; None: what they are in.
        notes: what else the configuration's section says, as JSON values.

    Raises:
        InputError: the model is none that can be saved so, or the folder cannot be written to.
    """
    from safetensors.torch import save_file

    from splora.export import packing, pruned_modeling, quantized_modeling

    network: Any = model
    name = type(model).__name__
    known = anatomy.task_models()
    if name not in known:
        raise InputError(f"{name} cannot be saved quantized; models that can are {', '.join(known)}.")
    tensors: dict[str, Tensor] = {}
    for key, weight in weights.items():
        tensors |= _packed(key, weight)
    for key, tensor in own_tensors(model).items():
        if key not in weights:
            tensors[key] = narrowed(tensor, dtype).contiguous().cpu()

    config = copy.deepcopy(network.config)
    config.architectures, config.dtype = [name], "float32"
    code = quantized_modeling.__name__.split(".")[-1]
    config.auto_map = {
        "AutoModel": f"{code}.{pruned_modeling.OnlyForTasks.__name__}",
        pruned_modeling.auto_class(name): f"{code}.{name}",
    }
    section: dict[str, Any] = {"bits": grid.bits, "group_size": grid.group_size, "symmetric": grid.symmetric}
    if anatomy.family_of(config).transposed:
        section["transposed"] = True
    setattr(config, packing.SECTION, {"version": packing.VERSION, **section, **(notes or {})})
    refuse_link(expanded(folder))
    with replacing_folder(expanded(folder).resolve()) as beside:
        config.save_pretrained(beside)
        if network.can_generate():
            network.generation_config.save_pretrained(beside)
        if tokenizer is not None:
            tokenizer.save_pretrained(str(beside))
        for module in (packing, pruned_modeling, quantized_modeling):
            shutil.copy(str(module.__file__), beside)
        save_file(tensors, beside / packing.WEIGHTS, metadata={"format": "pt"})


def load_quantized(path: str | Path, **options: Any) -> nn.Module:
    """The model of a folder that `save_quantized` wrote, in evaluation mode: a plain one, dense or pruned.

    Its weights are exactly those that the packed codes stand for, in fp32 where `dtype` does not say otherwise. No code
    of the folder is run.

    Args:
        options: passed to `from_pretrained`, e.g. `dtype`, `attn_implementation`, `device_map`.

    Raises:
        InputError: there is no such folder, no quantized model in it, or one that cannot be read.
    """
    import transformers

    from splora.export.quantized_modeling import load
    from splora.tasks.hub import unreadable

    folder = model_folder(path)
    if not is_quantized(folder):
        raise InputError(f"{path}: this model is not quantized; splora.load_pruned loads it.")
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        found = class_of(path, config)
        # What is loaded needs no code of the folder.
        vars(config).pop("auto_map", None)
        model, report = load(found.from_pretrained, folder, config, output_loading_info=True, **options)
    except InputError:
        raise
    except unreadable() as error:
        raise InputError(f"{path}: the model cannot be read ({told(error)}).") from error
    if report["missing_keys"]:
        raise InputError(f"{path}: weights cannot be found, such as {min(report['missing_keys'])}.")
    network: nn.Module = model.eval()
    return network


def stored_bytes(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Bytes of a model's tensors as it would be saved without quantization; `dtype` as in `save_quantized`."""
    return sum(narrowed(tensor, dtype).nbytes for tensor in own_tensors(model).values())


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a file of the model holds: its parameters, equal ones once, and buffers that are saved."""
    own = dict(model.named_parameters())
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    state = model.state_dict()
    return {name: tensor.detach() for name, tensor in state.items() if name in own or name not in every}


def narrowed(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor in `dtype`, where that holds all its values exactly; else as it is."""
    if dtype is None or not tensor.is_floating_point() or dtype.itemsize >= tensor.dtype.itemsize:
        return tensor
    other = tensor.to(dtype)
    return other if bool((other.to(tensor.dtype) == tensor).all()) else tensor


def _packed(name: str, weight: QuantizedWeight) -> dict[str, Tensor]:
    import torch

    from splora.export.packing import CODES, SHAPE, STEPS, ZEROS, pack

    bits = weight.options.bits
    found = {
        name + CODES: pack(weight.codes, bits).cpu(),
        name + STEPS: weight.steps.contiguous().cpu(),
        name + SHAPE: torch.tensor(weight.codes.shape, dtype=torch.int32),
    }
    if not weight.options.symmetric:
        found[name + ZEROS] = pack(weight.zeros, bits).cpu()
    return found
