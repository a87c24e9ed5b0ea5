"""Metrics that a user names: modules of the package `evaluate`, of the hub or a local file, whose own code is run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.tasks import hub
from splora.tasks.source_names import mistyped


def load_metrics(names: Sequence[str]) -> dict[str, Any]:
    """The metrics by what they are called in results: the last part of a hub's name, or of a path without its ending.

    Raises:
        InputError: there is no such metric, no network, or a package that it needs is not installed.
    """
    found: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        known = Path(name).stem
        if known in found:
            raise InputError(f"metric: two metrics are called {known}; rename one.")
        found[known] = _load(name)
    return found


def _load(name: str) -> Any:
    import evaluate

    local = Path(name).expanduser().exists()
    reached = local or hub.reachable()
    try:
        with nullcontext() if reached else hub.only_caches():
            return evaluate.load(str(Path(name).expanduser()) if local else name)
    except ImportError as error:
        told = " ".join(str(error).split())
        raise InputError(f"metric {name}: needs a package that is not installed ({told[:300]}).") from error
    except Exception as error:  # a module is anybody's code
        reason = "there is no network and no copy in the cache" if not reached else _line(error)
        raise InputError(
            f"metric {name}: there is no such file, and it cannot be loaded from the hub ({reason}){mistyped(name)}."
            if not local
            else f"metric {name}: cannot be loaded ({reason})."
        ) from error


def compute(metrics: Mapping[str, Any], predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """What metrics make of a task's predictions and references; by `metric/name`, in the metric's own unit.

    Where a metric asks for records with an `id`, as SQuAD's does, it gets texts in that form.

    Raises:
        InputError: a metric takes other things than the task has, or says nothing in numbers.
    """
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            said = metric.compute(**_arguments(metric, predictions, references)) or {}
        except Exception as error:  # a module is anybody's code
            raise InputError(f"metric {name}: cannot be computed of this task ({_line(error)}).") from error
        own = {f"{name}/{key}": float(value) for key, value in said.items() if _is_number(value)}
        if not own:
            raise InputError(f"metric {name}: says nothing in numbers of this task.")
        found |= own
    return found


def _arguments(metric: Any, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    record = features.get("predictions") if hasattr(features, "get") else None
    if not isinstance(record, dict) or "id" not in record:
        return {"predictions": list(predictions), "references": list(references)}
    answers = [[text for text in ([one] if isinstance(one, str) else one) if text] for one in references]
    more = {"no_answer_probability": 0.0} if "no_answer_probability" in record else {}
    return {
        "predictions": [{"id": str(row), "prediction_text": text, **more} for row, text in enumerate(predictions)],
        "references": [
            {"id": str(row), "answers": {"text": texts, "answer_start": [0] * len(texts)}}
            for row, texts in enumerate(answers)
        ],
    }


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, str | list | dict) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _line(error: BaseException) -> str:
    lines = re.sub(r"\s+", " ", str(error)).strip()
    return lines[:200].rstrip(".") or type(error).__name__
