"""What a model answers to inputs without labels: of a run, an adapter, or a plain, pruned or quantized model's folder.

Inputs are made by the task's data module, as for the evaluation of the very model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from splora.adapter_files import ADAPTER, is_adapter
from splora.errors import InputError, cut
from splora.files import expanded
from splora.json_values import number, read_object, table, text, texts
from splora.tasks.registry import REGISTRY, WINDOWED, names, same_head
from splora.tasks.source_names import exists
from splora.tasks.sources import QA_TASKS, TASKS, canonical_task, make_data_module
from splora.training.result_file import RESULT

#: What a run's data module was made with that decides its predictions.
_OF_RUNS = ("max_seq_length", "doc_stride", "n_best_size", "max_answer_length", "null_score_diff_threshold", "columns")
#: Those of them that are whole numbers.
_WHOLE = ("max_seq_length", "doc_stride", "n_best_size", "max_answer_length")
#: The same of a pruning or a quantization.
_OF_PRUNINGS = ("max_seq_length", "doc_stride", "columns")


@dataclass(frozen=True)
class Predictor:
    """A model, and how its inputs are made.

    Attributes:
        load: loads the model, in evaluation mode.
        task: what it was fine-tuned for.
        tokenizer: folder or hub name of tokenizer and label names.
        settings: arguments of the task's data module.
    """

    load: Callable[[], nn.Module]
    task: str
    tokenizer: str
    settings: dict[str, Any]


def predict_file(
    predictor: Predictor,
    source: str,
    *,
    precision: str = "auto",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Predictions by question ID, or by row from 0 on.

    Args:
        source: SQuAD's layout with or without answers, or a list of ``{"question", "context"}``; of sentences and pairs
            a table with their columns (TSV, CSV, JSON, Parquet). Labels are not looked at.
        changes: arguments of the data module instead of the predictor's settings; None: as they are.

    Raises:
        InputError: the file cannot be read, or the model cannot be loaded.
    """
    from splora.posttraining.core.compute import find_device
    from splora.posttraining.core.evaluation import predicted_logits
    from splora.posttraining.core.precision import Precision

    if not expanded(source).is_file():
        raise InputError(f"--input: {source}: there is no such file.")
    settings = predictor.settings | {name: value for name, value in changes.items() if value is not None}
    data = make_data_module(predictor.task, predictor.tokenizer, None, str(expanded(source)), **settings)
    data.features("predict")  # a file that cannot be read is told before anything is loaded
    model = predictor.load().to(find_device(device))
    logits = predicted_logits(model, data, "predict", Precision.parse(precision), progress)
    return dict(data.predict(dict(logits))["predictions"])


def find_predictor(name: str, task: str | None = None) -> Predictor:
    """What `name` is, and how inputs are made for it; no weights are loaded.

    Args:
        name: a finished run's folder, an adapter's, a model's, or a hub name.
        task: None: what the folder says of itself.

    Raises:
        InputError: it is none of these, or says no task, or another one.
    """
    from splora.training.result_file import read_result
    from splora.training.saving import MODEL

    folder = expanded(name)
    if folder.name in (ADAPTER, MODEL) and (folder.parent / RESULT).is_file():
        folder = folder.parent  # which knows how long its inputs were
    given = None if task is None else canonical_task(task)
    if given is not None and given not in TASKS:
        raise InputError(f"--task is {task!r}, which is for language models; allowed are {', '.join(TASKS)}.")
    if not exists(name):  # of the hub, or nothing at all
        return _of_model(name, given)
    if (folder / RESULT).is_file() and not (folder / "config.json").is_file():
        found = table(read_result(folder).get("settings"))
        own, data = text(table(found.get("model")).get("task")), table(found.get("data"))
        if own not in TASKS:
            told = f"its task is {cut(own)}" if own else "it names no task"
            raise InputError(f"{folder / RESULT}: is not the result of a run ({told}).")
        _check_task(name, given, own)
        beside = next((place for place in (folder / MODEL, folder / ADAPTER) if _has_tokenizer(place)), None)
        tokenizer = str(beside.resolve()) if beside else text(data.get("model_name_or_path"))
        if not tokenizer:
            raise InputError(f"{folder / RESULT}: is not the result of a run (it names no model).")
        settings = _settings(data, _OF_RUNS, folder / RESULT)
        return Predictor(lambda: _load(folder), own, tokenizer, settings)
    if is_adapter(folder):
        return _of_adapter(name, given)
    return _of_model(name, given)


def _load(run: Path) -> nn.Module:
    from splora.training.adapter_folder import load_adapter
    from splora.training.saving import load_run

    # An adapter with all that belongs to it finds its base model from any folder; one saved before, from its run's.
    return load_adapter(run) if _has_tokenizer(run / ADAPTER) else load_run(run)


def _of_adapter(name: str, given: str | None) -> Predictor:
    from splora.training.adapter_folder import base_of, load_adapter, read_settings, task_and_labels

    folder = expanded(name)
    own, labels = task_and_labels(folder, read_settings(folder))
    if own is None:
        every = names(lambda known: known.classes and known.names is not None)
        allowed = [task for task in every if len(REGISTRY[task].names or ()) == len(labels or {})]
        if given not in allowed:
            raise InputError(
                f"{name}: does not say what it was fine-tuned for; name it with --task: {', '.join(allowed or every)}."
            )
    elif own not in QA_TASKS or (folder / "config.json").is_file():
        _check_task(name, given, own)
    elif given is not None and given not in QA_TASKS:
        raise InputError(f"--task is {given}, but {name} answers questions; allowed are {', '.join(QA_TASKS)}.")
    tokenizer = str(folder.resolve()) if _has_tokenizer(folder) else base_of(folder)
    return Predictor(lambda: load_adapter(name), str(given or own), tokenizer, {})


def _of_model(name: str, given: str | None) -> Predictor:
    from splora.checkpoints.checkpoint import load_for_evaluation
    from splora.tasks.hub import load_config

    folder = expanded(name)
    result = _pruning(folder)
    own = text(result.get("task")) or _task_of(name, load_config(name), given)
    _check_task(name, given if text(result.get("task")) else None, own)
    if own not in TASKS:
        raise InputError(f"{name}: is made for {own}; predictions are those of {', '.join(TASKS)}.")
    settings = _settings(table(result.get("settings")), _OF_PRUNINGS, folder / RESULT)
    if own not in WINDOWED:
        settings.pop("doc_stride", None)
    return Predictor(lambda: load_for_evaluation(name, own), own, name, settings)


def _task_of(name: str, config: Any, given: str | None) -> str:
    """A task that a configuration fits: its head, and the names or the number of its labels.

    Raises:
        InputError: several do, or none.
    """
    from splora.checkpoints.heads import has_head

    if given is not None:
        return given
    headed = names(lambda known: known.trained and has_head(name, config, known.name))
    if not headed:
        kinds = ", ".join(map(str, config.architectures or [])) or "none"
        raise InputError(f"{name}: has no head for questions or classes; its config.json names the class {kinds}.")
    if all(same_head(headed[0], task) for task in headed):
        return headed[0]
    labels = sorted(str(label).lower() for label in (config.id2label or {}).values())
    fitting = [task for task in headed if sorted(REGISTRY[task].names or ()) == labels]
    if len(fitting) == 1:
        return fitting[0]
    allowed = fitting or [task for task in headed if (len(REGISTRY[task].names or ()) or 1) == config.num_labels]
    raise InputError(
        f"{name}: does not say what it was fine-tuned for; name it with --task: {', '.join(allowed or headed)}."
    )


def _check_task(name: str, given: str | None, own: str) -> None:
    if given is not None and given != own:
        raise InputError(f"--task is {given}, but {name} was made for {own}; leave it out.")


def _pruning(folder: Path) -> dict[str, Any]:
    """The result of a pruning or quantization beside the model; empty where there is none.

    Raises:
        InputError: there is one that cannot be read, and with it how long inputs were is lost.
    """
    try:
        content = read_object(folder / RESULT) or {}
    except ValueError as error:
        raise InputError(f"{folder / RESULT}: {error}.") from error
    return content if isinstance(content.get("settings"), dict) else {}


def _settings(found: dict[str, Any], names: tuple[str, ...], path: Path) -> dict[str, Any]:
    """Arguments of a data module that a result tells; what is empty is left out.

    Raises:
        InputError: one is of another kind: columns are texts by name, the others numbers.
    """
    settings: dict[str, Any] = {}
    for name in names:
        value = found.get(name)
        if value in (None, {}):
            continue
        fits = texts(value) == value if name == "columns" else number(value) is not None
        if not fits or (name in _WHOLE and not isinstance(value, int)):
            raise InputError(f"{path}: is not the result of a run (its {name} is {cut(value)}).")
        settings[name] = value
    return settings


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() and (folder / "config.json").is_file()
