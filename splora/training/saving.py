"""What a finished run leaves behind, and how it is loaded again: `adapter/` (PEFT) or `model/` (transformers)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from splora.errors import InputError
from splora.files import replacing_folder
from splora.json_values import number, one_line, read_object, table, text
from splora.training.result_file import RESULT as RESULT
from splora.training.result_file import read_result

ADAPTER, MODEL = "adapter", "model"
#: No number of an adapter's configuration (prototypes, ranks) is larger.
_LARGEST = 2**16


def save_trained(network: nn.Module, tokenizer: Any, output_dir: Path) -> int:
    """Save what the task needs and return the bytes of its weights file.

    An adapted network leaves its adapter; a plain one the whole model, pruned blocks exactly zero, with
    its tokenizer, as a checkpoint for stock transformers.
    """
    from peft import PeftModel

    from splora.masks import fold

    if isinstance(network, PeftModel):
        with replacing_folder(output_dir / ADAPTER) as folder:
            network.save_pretrained(str(folder))
        return (output_dir / ADAPTER / "adapter_model.safetensors").stat().st_size
    folded: Any = fold(copy.deepcopy(network))
    with replacing_folder(output_dir / MODEL) as folder:
        folded.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    return (output_dir / MODEL / "model.safetensors").stat().st_size


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

    if (folder / MODEL).is_dir():
        return load_base(str(folder / MODEL), settings["task"]).eval()
    _check_adapter(folder / ADAPTER)
    from peft import PeftModel

    import splora.adapters  # noqa: F401  (registers the adapter types in PEFT)

    base = load_base(
        settings["model_name_or_path"], settings["task"], label2id=settings["label2id"], seed=settings["seed"]
    )
    network: nn.Module = PeftModel.from_pretrained(
        base, str(folder / ADAPTER), is_trainable=True, autocast_adapter_dtype=False
    )
    return network.eval()


def _check_adapter(folder: Path) -> None:
    """Judge the sizes that an adapter tells before anything of such sizes is built.

    Raises:
        InputError: there is no adapter, or one whose configuration cannot be.
    """
    path = folder / "adapter_config.json"
    try:
        config = read_object(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error
    if config is None:
        raise InputError(f"{folder.parent}: holds neither {MODEL}/ nor {ADAPTER}/ of a finished run.")
    for name, value in config.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        size = number(value)
        if size is None or abs(size) > _LARGEST:
            raise InputError(f"{path}: {name} is {one_line(str(value), 20)}, which no adapter has.")
