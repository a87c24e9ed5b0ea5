"""What a finished run leaves behind, and how it is loaded again: `adapter/` (PEFT) or `model/` (transformers)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from splora.adapter_files import ADAPTER, is_adapter
from splora.errors import InputError
from splora.export.card import run_card, write_card
from splora.files import replacing_folder
from splora.json_values import one_line, table, text, whole
from splora.run_files import BEFORE
from splora.run_files import MODEL as MODEL
from splora.training.adapter_folder import TASK, put_adapter
from splora.training.prune_first import PRUNED
from splora.training.result_file import RESULT as RESULT
from splora.training.result_file import read_result
from splora.training.serving import merged


def save_trained(
    network: nn.Module, tokenizer: Any, output_dir: Path, result: dict[str, Any], served: nn.Module | None = None
) -> int:
    """Save what the task needs, with tokenizer and card, and return the bytes of its weights file.

    An adapted network leaves its adapter, and its base model's configuration with the task's labels. Every network
    leaves the model that is served: merged and cut, as a checkpoint of transformers.

    Args:
        result: what `result.json` will say; it gains `model_bytes` and `adapter_bytes`, which without an adapter are
            the model's.
        served: what `serving.smaller` made of the network; None: the network merged, with its zeros.
    """
    from peft import PeftModel

    bare: Any = merged(network) if served is None else served
    with replacing_folder(output_dir / MODEL) as folder:
        bare.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        result["model_bytes"] = result["adapter_bytes"] = (folder / "model.safetensors").stat().st_size
        write_card(folder, run_card(result, served=True))
    if not isinstance(network, PeftModel):
        return int(result["adapter_bytes"])
    with replacing_folder(output_dir / ADAPTER) as folder:
        network.save_pretrained(str(folder))
        _save_base_config(network.get_base_model(), result["task"], folder)
        tokenizer.save_pretrained(str(folder))
        result["adapter_bytes"] = (folder / "adapter_model.safetensors").stat().st_size
        write_card(folder, run_card(result))
    return int(result["adapter_bytes"])


def _save_base_config(base: Any, task: str, folder: Path) -> None:
    """Leave the base model's configuration, with head, labels and task, beside its adapter."""
    config = copy.deepcopy(base.config)
    config.architectures = [type(base).__name__]
    setattr(config, TASK, task)
    config.save_pretrained(str(folder))


def load_run(output_dir: str | Path) -> nn.Module:
    """The trained network of a finished run, in evaluation mode, its trained parameters marked as such.

    Raises:
        InputError: the folder is no finished run, or the model below its adapter cannot be had.
    """
    folder = Path(output_dir)
    settings = table(table(read_result(folder).get("settings")).get("model"))
    if not text(settings.get("task")):
        raise InputError(f"{folder / RESULT}: is not the result of a run (it names no task).")
    try:
        return _load(folder, settings)
    except InputError:
        raise
    except Exception as error:  # PEFT and transformers fail in many ways where files or settings are damaged
        told = one_line(f"{type(error).__name__}: {error}")
        raise InputError(f"{folder}: the saved weights cannot be loaded ({told}).") from error


def _load(folder: Path, settings: dict[str, Any]) -> nn.Module:
    from splora.training.model import load_base

    task = text(settings.get("task"))
    if not is_adapter(folder / ADAPTER):
        # Of a run with an adapter the model beside it is what is served, and does not know what was learned.
        adapted = (folder / ADAPTER).exists() or text(table(settings.get("adapter")).get("kind")) not in ("", "none")
        if (folder / MODEL).is_dir() and not adapted:
            return load_base(str(folder / MODEL), task).eval()
        raise InputError(f"{folder}: holds neither {MODEL}/ nor {ADAPTER}/ of a finished run.")
    source, labels, seed = text(settings.get("model_name_or_path")), settings.get("label2id"), settings.get("seed")
    if table(settings.get("prune_first")).get("method", "none") != "none":  # what it pruned is its adapter's base
        source = str(folder / BEFORE / PRUNED)
    return put_adapter(folder / ADAPTER, source, task, labels, seed=whole(seed) or 0, trainable=True)


def check_fits(output_dir: str | Path, data: Any) -> None:
    """See to it that a data module makes what a finished run was trained on: its task, labels and tokens.

    Raises:
        InputError: it does not, or the folder is no finished run.
    """
    folder = Path(output_dir)
    settings = table(read_result(folder).get("settings"))
    model = table(settings.get("model"))
    pairs = [
        ("task", model.get("task"), data.task),
        ("label2id", model.get("label2id"), getattr(data, "label2id", None)),
    ]
    problems = [
        f"{folder}: this run was trained with {name} {there!r}, but the data module has {here!r}."
        for name, there, here in pairs
        if there != here
    ]
    name = text(table(settings.get("data")).get("model_name_or_path")) or text(model.get("model_name_or_path"))
    if name != data.model_name_or_path and _tokens(str(folder / MODEL), name) != _tokens(data.model_name_or_path):
        problems.append(
            f"{folder}: this run was trained with the tokenizer of {name}, but the data module has that of "
            f"{data.model_name_or_path}, which makes other tokens."
        )
    if problems:
        raise InputError(problems)


def _tokens(*names: str) -> str:
    """Digest of the first tokenizer that is there; the last name may be one of the hub."""
    from splora.tasks import hub
    from splora.tasks.source_names import local_folder
    from splora.tasks.squad_features import tokenizer_digest

    name = next((name for name in names if local_folder(name) is not None), names[-1])
    return str(tokenizer_digest(hub.load_tokenizer(name, None)))
