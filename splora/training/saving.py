"""What a finished run leaves behind, and how it is loaded again: `adapter/` (PEFT) or `model/` (transformers)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from torch import nn

from splora.errors import InputError
from splora.export.card import run_card, write_card
from splora.files import replacing_folder
from splora.training.adapter_folder import ADAPTER, TASK

MODEL, RESULT = "model", "result.json"


def save_trained(network: nn.Module, tokenizer: Any, output_dir: Path, result: dict[str, Any]) -> int:
    """Save what the task needs, with tokenizer and card, and return the bytes of its weights file.

    An adapted network leaves its adapter, and its base model's configuration with the task's labels; a plain one the
    whole model, pruned blocks exactly zero, as a checkpoint for stock transformers.

    Args:
        result: what `result.json` will say; it gains `adapter_bytes`.
    """
    from peft import PeftModel

    from splora.masks import fold

    saved: Any = network if isinstance(network, PeftModel) else fold(copy.deepcopy(network))
    adapted = saved is network
    with replacing_folder(output_dir / (ADAPTER if adapted else MODEL)) as folder:
        saved.save_pretrained(str(folder))
        if adapted:
            _save_base_config(saved.get_base_model(), result["task"], folder)
        tokenizer.save_pretrained(str(folder))
        weights = folder / ("adapter_model.safetensors" if adapted else "model.safetensors")
        result["adapter_bytes"] = weights.stat().st_size
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
    settings = read_result(folder)["settings"]["model"]
    from splora.training.model import load_base

    if (folder / MODEL).is_dir():
        return load_base(str(folder / MODEL), settings["task"]).eval()
    from peft import PeftModel

    import splora.adapters  # noqa: F401  (registers the adapter types in PEFT)

    base = load_base(
        settings["model_name_or_path"], settings["task"], label2id=settings["label2id"], seed=settings["seed"]
    )
    network: nn.Module = PeftModel.from_pretrained(
        base, str(folder / ADAPTER), is_trainable=True, autocast_adapter_dtype=False
    )
    return network.eval()


def check_fits(output_dir: str | Path, data: Any) -> None:
    """See to it that a data module makes what a finished run was trained on: its task, labels and tokens.

    Raises:
        InputError: it does not, or the folder is no finished run.
    """
    folder = Path(output_dir)
    settings = read_result(folder)["settings"]
    pairs = [
        ("task", settings["model"]["task"], data.task),
        ("label2id", settings["model"].get("label2id"), getattr(data, "label2id", None)),
    ]
    problems = [
        f"{folder}: this run was trained with {name} {there!r}, but the data module has {here!r}."
        for name, there, here in pairs
        if there != here
    ]
    name = (settings.get("data") or {}).get("model_name_or_path", settings["model"]["model_name_or_path"])
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
    from splora.tasks.squad_features import tokenizer_digest

    name = next((name for name in names if Path(name).is_dir()), names[-1])
    return str(tokenizer_digest(hub.load_tokenizer(name, None)))


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json` of a finished run.

    Raises:
        InputError: there is none, or it is not a result.
    """
    path = folder / RESULT
    if not path.is_file():
        raise InputError(f"{folder}: no finished run is here (there is no {RESULT}).")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        result["settings"]["model"]["task"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not the result of a run ({error}).") from error
    return dict(result)
