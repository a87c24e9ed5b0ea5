"""Loads an adapter with its base model, from the adapter's folder or from that of the run it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from splora.adapter_files import ADAPTER, SETTINGS, WEIGHTS
from splora.errors import InputError, cut
from splora.files import expanded
from splora.json_values import number, one_line, read_or_refuse, table, text

#: The last layer of a classifier, by family.
_HEADS = (".classifier.weight", ".classifier.out_proj.weight", ".score.weight")
#: What the class of a model ends in, by PEFT's type of its task.
_KINDS = {
    "QUESTION_ANS": "ForQuestionAnswering",
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
}
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
    from splora.tasks.glue_tasks import TASKS

    folder = adapter_folder(path)
    task, labels = task_and_labels(folder, read_settings(folder))
    if task is None:  # any with as many labels: its names are not looked at where the adapter brings its own
        count = max(1, len(labels or {}))
        task = next((name for name, known in TASKS.items() if (len(known.labels) or 1) == count), "sst2")
    return put_adapter(folder, str(base) if base is not None else base_of(folder), task, labels)


def put_adapter(
    folder: Path, source: str, task: str, labels: dict[str, int] | None, *, seed: int = 0, trainable: bool = False
) -> nn.Module:
    """The adapter of a folder on its base model, in evaluation mode.

    Args:
        source: folder or hub name of the base model.
        labels: of a classification, by name; empty for a score, None for questions.
        seed: for the parts that neither holds.
        trainable: whether the adapter's parameters are marked as trained.

    Raises:
        InputError: the adapter is damaged or of another model, or its base model cannot be had.
    """
    read_settings(folder)
    from peft import PeftModel

    import splora.adapters  # noqa: F401  (registers the adapter types in PEFT)
    from splora.training.model import load_base

    model = load_base(source, task, label2id=labels, seed=seed)
    try:
        network: nn.Module = PeftModel.from_pretrained(
            model, str(folder), is_trainable=trainable, autocast_adapter_dtype=False
        )
    except InputError:
        raise
    except Exception as error:  # PEFT fails in many ways where files or settings are damaged
        told = one_line(f"{type(error).__name__}: {error}")
        raise InputError(f"{folder}: the adapter cannot be put on {source} ({told}).") from error
    return network.eval()


def adapter_folder(path: str | Path) -> Path:
    """The folder with an adapter's settings: `path` itself, or a run's `adapter/`.

    Raises:
        InputError: neither has any.
    """
    folder = expanded(path)
    for place in (folder, folder / ADAPTER):
        if (place / SETTINGS).is_file():
            return place
    if not folder.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    raise InputError(f"{path}: holds no adapter; neither it nor {ADAPTER}/ in it has an {SETTINGS}.")


def task_and_labels(folder: Path, settings: dict[str, Any]) -> tuple[str | None, dict[str, int] | None]:
    """The task of an adapter and its labels by name: from the configuration beside it, else from its head alone.

    Returns:
        The task, None where nothing says which one it is; labels in the order of the head's outputs, empty for a score
        and None for questions.

    Raises:
        InputError: its model is neither for questions nor for classes, or its configuration contradicts itself.
    """
    from splora.tasks.registry import REGISTRY, names, same_head

    config = _config(folder)
    task = text(getattr(config, TASK, None))
    kind = _kind(settings, config)
    fitting = names(lambda known: known.trained and kind.endswith(f"For{known.head}"))
    if not fitting:
        told = cut(kind) if kind else "model without a class"
        raise InputError(f"{folder}: is the adapter of a {told}, which has no task here.")
    own = task if task in fitting else fitting[0] if all(same_head(fitting[0], name) for name in fitting) else None
    if not REGISTRY[fitting[0]].classes:
        return own, None
    count = _outputs(folder)
    labels = _labels(folder, config, task, count)
    return own, {} if count == 1 else labels


def _kind(settings: dict[str, Any], config: Any) -> str:
    """The class of an adapter's model, or what its class ends in: by its settings, else by the configuration beside it.

    PEFT writes either the class (`auto_mapping`) or, of an adapter with one, the task type alone.
    """
    named = text(table(settings.get("auto_mapping")).get("base_model_class"))
    by_type = _KINDS.get(text(settings.get("task_type")), text(settings.get("task_type")))
    architectures = getattr(config, "architectures", None) or [""]
    return named or by_type or text(architectures[0])


def _labels(folder: Path, config: Any, task: str, count: int) -> dict[str, int]:
    """Numbers of the head's outputs by label, as `id2label` names them; without fitting names they are numbered."""
    from splora.tasks.registry import REGISTRY

    if task in REGISTRY:
        REGISTRY[task].label_order(str(folder), config)  # refuses a configuration that contradicts itself
    by_number = {int(at): str(name) for at, name in (getattr(config, "id2label", None) or {}).items()}
    if sorted(by_number) == list(range(count)) and len({*by_number.values()}) == count:
        return {by_number[at]: at for at in range(count)}
    return {f"LABEL_{at}": at for at in range(count)}


def _config(folder: Path) -> Any:
    """The configuration of the base model beside an adapter, or None."""
    from splora.tasks.hub import load_config

    return load_config(str(folder), alone=True) if (folder / "config.json").is_file() else None


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
    """The settings of an adapter, judged before anything of the sizes that they tell is built.

    Raises:
        InputError: there are none, they cannot be read, or have a number that no adapter has.
    """
    from splora.adapters.config import LARGEST

    path = folder / SETTINGS
    settings = read_or_refuse(path)
    if settings is None:
        raise InputError(f"{folder}: holds no adapter; it has no {SETTINGS}.")
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        size = number(value)
        if size is None or abs(size) > LARGEST:
            raise InputError(f"{path}: {name} is {one_line(str(value), 20)}, which no adapter has.")
    return settings


def base_of(folder: Path) -> str:
    """The base model that settings name: a hub name, a folder seen from here, or one seen from around the adapter.

    Raises:
        InputError: they name none.
    """
    from splora.tasks.source_names import exists

    source = text(read_settings(folder).get("base_model_name_or_path"))
    if not source:
        raise InputError(f"{folder / SETTINGS}: names no base model; pass it as base.")
    path = expanded(source)
    if path.is_absolute() or exists(source):
        return source
    around = (parent / path for parent in folder.resolve().parents)
    return next((str(place) for place in around if (place / "config.json").is_file()), source)
