"""Loads models: to be trained, to teach, to be pruned, quantized or judged; and refuses what is none or not whole."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from splora import anatomy
from splora.checkpoints.heads import has_head
from splora.checkpoints.pickled_weights import check_pickle, not_only_weights, pickles
from splora.checkpoints.shards import parked_model
from splora.checkpoints.weight_names import own_names, prefixes
from splora.errors import InputError
from splora.export.folder import class_of
from splora.export.quantized import is_quantized, load_quantized
from splora.json_values import read_object
from splora.offload import values_of
from splora.tasks import hub
from splora.tasks.registry import REGISTRY, canonical_task
from splora.tasks.source_names import EMBEDDED, local_folder
from splora.tasks.sources import auto_model

logger = logging.getLogger(__name__)

#: Bytes at whose multiples torch allocates tensors on the CPU.
ALIGNMENT = 64


def load_checkpoint(
    name: str,
    task: str,
    num_labels: int | None = None,
    cache_dir: str | None = None,
    offload: torch.device | None = None,
    **options: Any,
) -> nn.Module:
    """A model fine-tuned for a task: in fp32, whatever it is stored in, and in evaluation mode.

    Args:
        name: a folder with `config.json` and `model.safetensors` or `pytorch_model.bin` (of which only weights are
            read), one of `splora.export` whose layers differ in size, or a hub name.
        task: its name in any spelling.
        num_labels: outputs of the task head; None: as many as the task has labels, 1 for a score, 2 for
            question answering. Language models have none.
        cache_dir: folder of downloads.
        offload: leave weights in their files until they are used on this device; see `splora.offload`.
        options: for `from_pretrained`, e.g. `attn_implementation`.

    Raises:
        InputError: there is no such model; its family is not supported; it has no head for the task, or one with
            another number of labels, or of another meaning; or as `load_weights`.
    """
    task = canonical_task(task)
    _check_embedded(name, task)
    _check_unquantized(name)
    config = check_kind(name, task, cache_dir)
    hub.check_weights(name)  # before labels, of which a configuration without a model tells nothing
    check_outputs(name, config, task, num_labels)
    return load_weights(name, config, task, cache_dir=cache_dir, offload=offload, **options).eval()


def load_weights(
    name: str,
    config: Any,
    task: str,
    *,
    fresh_head: bool = False,
    dtype: torch.dtype = torch.float32,
    cache_dir: str | None = None,
    offload: torch.device | None = None,
    **options: Any,
) -> nn.Module:
    """The task's model with all its weights from the checkpoint: the only way in which this program loads a model.

    Names that a wrapper has put in front of the model's own are recognized, and a warning tells so.

    Args:
        config: of the model to be made; may differ from the checkpoint's in dropout and names of labels.
        task: by the program's own name.
        fresh_head: whether a pretrained encoder gets a new task head, from torch's generator. A model whose
            configuration names a head for the task must bring it.
        dtype: of all weights, whatever they are stored in.
        cache_dir: folder of downloads.
        offload: see `load_checkpoint`.
        options: for `from_pretrained`.

    Raises:
        InputError: there is no such model; weights are missing, of other shapes than the configuration says, not
            finite, or cannot be read without running code.
    """
    _check_unquantized(name)
    if name == EMBEDDED:
        import transformers

        made: nn.Module = hub.load_model(getattr(transformers, auto_model(task)), name, config=config, dtype=dtype)
        return made
    family = _family(name, config)
    hub.check_weights(name)
    settings = {"config": config, "dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
    settings |= {"cache_dir": cache_dir, **options}
    with _silence():
        for path in pickles(name):
            check_pickle(path)
        kind = _class(name, config, task)
        try:
            if offload is not None:
                model, report = parked_model(kind, name, config, dtype, offload, cache_dir)
            else:
                model, report = hub.load_model(kind, name, **settings)
            names = own_names(report["unexpected_keys"], model.state_dict().keys(), model.base_model_prefix)
            if report["missing_keys"] and names:
                tensors = _renamed(name, hub.load_tensors(name, cache_dir), names)
                model, report = type(model).from_pretrained(None, state_dict=tensors, **settings)
                logger.warning(
                    "%s: the names of its weights are a wrapped model's; %s was taken out of them.",
                    name,
                    prefixes(names),
                )
        except pickle.UnpicklingError as error:
            raise InputError(not_only_weights(name, error)) from None
    fresh_head = (
        fresh_head and not has_head(name, config, task) and not _any_head(model, report["missing_keys"], family)
    )
    _check_complete(name, report, family, task, config, fresh_head)
    _check_finite(name, model)
    _align(model)
    network: nn.Module = model
    return network


def load_for_evaluation(name: str, task: str, cache_dir: str | None = None) -> nn.Module:
    """As `load_checkpoint`, or a quantized model of a folder, which can be judged but not pruned.

    Raises:
        InputError: as there, or the quantized model has no head for the task.
    """
    if not is_quantized(name):
        return load_checkpoint(name, task, cache_dir=cache_dir)
    _check_head(name, check_kind(name, task, cache_dir), canonical_task(task), "quantized")
    return load_quantized(name)


def check_kind(name: str, task: str, cache_dir: str | None = None) -> Any:
    """The configuration of a model whose family can do a task; no weights are looked at.

    Raises:
        InputError: there is no such model, its family is not supported, or is one for other tasks.
    """
    _check_embedded(name, canonical_task(task))
    _check_family(name)
    with _silence():
        config = hub.load_config(name, cache_dir)
    _check_task(name, _family(name, config), canonical_task(task))
    return config


def _check_family(name: str) -> None:
    """Refuse a folder of another family before a configuration is made of it, which transformers may not know."""
    folder = local_folder(name)
    path = (folder or Path()) / "config.json"
    if folder is None:
        return
    try:
        content = read_object(path)
    except (OSError, ValueError):
        return  # said by `hub.load_config`
    if content is not None:
        _family(name, SimpleNamespace(model_type=content.get("model_type")))


def _family(name: str, config: Any) -> anatomy.Family:
    try:
        return anatomy.family_of(config)
    except InputError as error:
        raise InputError(f"{name}: {problem}" for problem in error.problems) from None


def _class(name: str, config: Any, task: str) -> Any:
    """What has the `from_pretrained` of the checkpoint: an auto class, or that of a pruned model."""
    import transformers

    if not getattr(config, "is_heterogeneous", False):
        return getattr(transformers, auto_model(task))
    _check_head(name, config, task, "pruned")
    return class_of(name, config)


def _check_head(name: str, config: Any, task: str, what: str) -> None:
    """Refuse a model that this program has written and that has no head for a task."""
    architecture = str((config.architectures or ["none"])[0])
    from splora.export.pruned_modeling import auto_class

    if architecture not in anatomy.task_models() or auto_class(architecture) != auto_model(task):
        raise InputError(f"{name}: has no head for {task}; this {what} model is a {architecture}.")


def _check_task(name: str, family: anatomy.Family, task: str) -> None:
    """Refuse an encoder for a text, and a decoder for anything else."""
    wanted = REGISTRY[task]
    if wanted.causal != family.causal:
        fitting = ", ".join(sorted(kind for kind, other in anatomy.FAMILIES.items() if other.causal == wanted.causal))
        what = "no causal language model" if wanted.causal else "a language model"
        raise InputError(f"{name}: is of the family {family.model_type}, {what}; {task} needs one of {fitting}.")
    if wanted.head not in family.tasks:
        fitting = ", ".join(sorted(kind for kind, other in anatomy.FAMILIES.items() if wanted.head in other.tasks))
        raise InputError(
            f"{name}: transformers has no model of the family {family.model_type} for {task} (For{wanted.head}); "
            f"families that have one are {fitting}."
        )


def _check_embedded(name: str, task: str) -> None:
    if name == EMBEDDED:
        raise InputError(f"{name}: has no head for {task}; pass the folder of a model that is fine-tuned on it.")


def _check_unquantized(name: str) -> None:
    if is_quantized(name):
        raise InputError(f"{name}: this model is quantized; pass the one that it was made from.")


def check_outputs(name: str, config: Any, task: str, num_labels: int | None = None) -> None:
    """Refuse a fine-tuned model whose configuration says that its outputs are other things than the task's labels.

    Raises:
        InputError: another number of them, or other names.
    """
    names = REGISTRY[task].names
    if names is None:
        REGISTRY[task].check_names(name, config)
        return
    wanted, found = num_labels or len(names) or 1, int(config.num_labels)
    if found != wanted:
        shown = f" ({', '.join(names)})" if len(names) == wanted else ""
        told = "a score, thus 1 output" if not names and num_labels is None else f"{wanted}{shown}"
        raise InputError(f"{name}: this checkpoint has {_count(found, 'label')}; {task} needs {told}.")
    if num_labels is None:
        REGISTRY[task].check_names(name, config)


def _check_complete(
    name: str, report: Mapping[str, Any], family: anatomy.Family, task: str, config: Any, fresh_head: bool
) -> None:
    """Refuse a model of which `from_pretrained` made a part anew, or left a layer out."""
    missing = sorted(report["missing_keys"])
    elsewhere = [key for key in missing if not set(family.heads) & set(key.split("."))]
    kind = (getattr(config, "architectures", None) or [None])[0]
    if elsewhere:
        raise InputError(
            f"{name}: {_count(len(elsewhere), 'weight')} of the encoder cannot be found, such as {elsewhere[0]}; "
            f"the checkpoint is incomplete, or its weights have other names than those of a {config.model_type} model."
        )
    if missing and not fresh_head:
        own = f" (its architecture is {kind})" if kind else ""
        raise InputError(
            f"{name}: has no head for {task}: {' and '.join(missing[:2])} cannot be found{own}; "
            f"pass a checkpoint that is fine-tuned on {task}."
        )
    others = {f"For{other.head}" for other in REGISTRY.values()} - {f"For{REGISTRY[task].head}"}
    if not missing and REGISTRY[task].classes and str(kind).endswith(tuple(others)):  # two heads of the same names
        raise InputError(
            f"{name}: has no head for {task} (its architecture is {kind}); pass a checkpoint that is fine-tuned on "
            f"{task}, or a pretrained one."
        )
    if report["mismatched_keys"]:
        key, stored, made = min(report["mismatched_keys"])
        raise InputError(f"{name}: {key} is {_shape(stored)} in the checkpoint, but {_shape(made)} by config.json.")
    extra = sorted(key for key in report["unexpected_keys"] if _in_layers(key, family))
    if extra:
        raise InputError(
            f"{name}: {_count(len(extra), 'weight')} of its layers have no place by config.json, such as {extra[0]}."
        )


def _any_head(model: nn.Module, missing: Iterable[str], family: anatomy.Family) -> bool:
    """Whether anything of the task's head was found: then all of it must be."""
    own = {name for name in model.state_dict() if set(family.task_heads) & set(name.split("."))}
    return bool(own - set(missing))


def _in_layers(key: str, family: anatomy.Family) -> bool:
    """Whether a weight belongs to a layer; checkpoints of an encoder alone leave its name out."""
    _, _, inner = family.layers.partition(".")
    return key.startswith((f"{family.layers}.", f"{inner}."))


def _renamed(name: str, tensors: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Tensors under the model's own names.

    Raises:
        InputError: two tensors have one name then.
    """
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        own = names.get(key, key)
        if own in renamed:
            raise InputError(f"{name}: holds {own} twice, once as {key}; pass a checkpoint of one model.")
        renamed[own] = tensor
    return renamed


def _check_finite(name: str, model: nn.Module) -> None:
    for key, parameter in (*model.named_parameters(), *model.named_buffers()):
        tensor = values_of(parameter)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            damaged = int((~torch.isfinite(tensor)).sum())
            raise InputError(f"{name}: {key} holds NaN or infinite values ({damaged:,} of {tensor.numel():,}).")


def _align(model: nn.Module) -> None:
    """Move weights from a file's memory map to where a new tensor would be.

    At other addresses kernels add in another order: the same weights stored in fp32 and fp16, or saved once more, would
    give results that differ in their last bits.
    """
    for parameter in model.parameters():
        if parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()


@contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers' load reports and progress bars from the user: what matters of them is said in a sentence."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _shape(size: Iterable[int]) -> str:
    return "×".join(map(str, size))
