"""Loads an adapter with its base model, from the adapter's folder or from that of the run it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from splora.errors import InputError

#: Where a run keeps its adapter, and PEFT an adapter's settings and weights.
ADAPTER, SETTINGS, WEIGHTS = "adapter", "adapter_config.json", "adapter_model.safetensors"
#: The last layer of a classifier, by family.
_HEADS = (".classifier.weight", ".classifier.out_proj.weight", ".score.weight")
#: The attribute of the base model's configuration, beside the adapter, that names the task.
TASK = "splora_task"


def load_adapter(path: str | Path, base: str | Path | None = None) -> nn.Module:
    """The adapted model of a folder, in evaluation mode: a `peft.PeftModel`, with the task's head and labels.

    Args:
        path: an adapter's folder, as a run leaves it or `save_pretrained` of PEFT, or a finished run's.
        base: folder or hub name of the pretrained model; None: the one that the adapter's settings name.

    Raises:
        InputError: there is no adapter, it is damaged or of another model, or its base model cannot be had.
    """
    folder = adapter_folder(path)
    settings = read_settings(folder)
    source = str(base) if base is not None else base_of(folder)
    from peft import PeftModel
    from safetensors import SafetensorError

    import splora.adapters  # noqa: F401  (registers the adapter types in PEFT)
    from splora.export.folder import told
    from splora.training.model import load_base

    task, labels = task_and_labels(folder, settings)
    model = load_base(source, task, label2id=labels)
    try:
        network: nn.Module = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the adapter cannot be put on {source} ({told(error)}).") from error
    return network.eval()


def adapter_folder(path: str | Path) -> Path:
    """The folder with an adapter's settings: `path` itself, or a run's `adapter/`.

    Raises:
        InputError: neither has any.
    """
    folder = Path(path).expanduser()
    for place in (folder, folder / ADAPTER):
        if (place / SETTINGS).is_file():
            return place
    if not folder.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    raise InputError(f"{path}: holds no adapter; neither it nor {ADAPTER}/ in it has an {SETTINGS}.")


def is_adapter(path: str | Path) -> bool:
    """Whether a folder itself holds an adapter."""
    return (Path(path).expanduser() / SETTINGS).is_file()


def task_and_labels(folder: Path, settings: dict[str, Any]) -> tuple[str, dict[str, int] | None]:
    """The task of an adapter and its labels by name: from the configuration beside it, else from its head alone.

    Raises:
        InputError: its model is neither for questions nor for classes.
    """
    from splora.tasks.glue_tasks import TASKS

    written = _read(folder / "config.json") if (folder / "config.json").is_file() else {}
    architectures = written.get("architectures") or [""]
    kind = str((settings.get("auto_mapping") or {}).get("base_model_class") or architectures[0])
    if kind.endswith("ForQuestionAnswering"):
        return str(written.get(TASK, "squad")), None
    if not kind.endswith("ForSequenceClassification"):
        raise InputError(f"{folder}: is the adapter of a {kind or 'model without a class'}, which has no task here.")
    count = _outputs(folder)
    names = {str(name): int(number) for name, number in (written.get("label2id") or {}).items()}
    labels = names if len(names) == count else {f"LABEL_{number}": number for number in range(count)}
    task = str(written.get(TASK, ""))
    if task not in TASKS:  # any with as many labels: its names are not looked at where the adapter brings its own
        task = next((name for name, known in TASKS.items() if (len(known.labels) or 1) == count), "sst2")
    return task, {} if count == 1 else labels


def _outputs(folder: Path) -> int:
    """Outputs of the task's head that an adapter brings.

    Raises:
        InputError: it brings none, or its file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    try:
        with safe_open(str(path), "pt") as file:
            heads = [key for key in file.keys() if key.endswith(_HEADS)]  # noqa: SIM118 - no dictionary
            if heads:
                return int(file.get_slice(heads[0]).get_shape()[0])
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    raise InputError(f"{path}: holds no head of a classifier; train it with modules_to_save=['classifier'].")


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of an adapter.

    Raises:
        InputError: they cannot be read.
    """
    return _read(folder / SETTINGS)


def base_of(folder: Path) -> str:
    """The base model that settings name: a hub name, a folder seen from here, or one seen from around the adapter.

    Raises:
        InputError: they name none.
    """
    source = str(read_settings(folder).get("base_model_name_or_path") or "")
    if not source:
        raise InputError(f"{folder / SETTINGS}: names no base model; pass it as base.")
    path = Path(source).expanduser()
    if path.is_absolute() or path.exists():
        return source
    around = (parent / path for parent in folder.resolve().parents)
    return next((str(place) for place in around if (place / "config.json").is_file()), source)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no configuration; it holds a {type(content).__name__}.")
    return content
