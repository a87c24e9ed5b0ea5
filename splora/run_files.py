"""What a run's folder holds, and how other rows name a run: said once. Imports no torch."""

from __future__ import annotations

#: What was measured, written last, so that it marks a finished run; of a row, its cells and its configuration; of a fit
#: from YAML, what makes it that run, and the whole configuration; where the run stands; what it printed and logged.
RESULT, SPECIFICATION, CONFIGURATION = "result.json", "spec.json", "config.yaml"
FIT_SETTINGS, FIT_CONFIGURATION = "fit.json", "fit.yaml"
STATE, LOG, METRICS = "state.json", "log.txt", "metrics.csv"
FILES = (SPECIFICATION, CONFIGURATION, STATE, LOG, METRICS, RESULT)
#: Folders: the model that is served, the adapter that was trained, what comes before the training (a pruned model, and
#: the trainings after earlier budgets), what a run goes on from, pictures of masks, TensorBoard's curves.
MODEL, ADAPTER, BEFORE = "model", "adapter", "before"
CHECKPOINTS, MASKS, TENSORBOARD = "checkpoints", "masks", "tensorboard"
FOLDERS = (CHECKPOINTS, ADAPTER, MODEL, MASKS, TENSORBOARD, BEFORE)
#: A folder that holds one of these files is a run's, or what became of a model: a result, a row, a fit from YAML.
MARKS = (RESULT, SPECIFICATION, FIT_SETTINGS)

#: What the name of a model begins with that is another row's.
REFERENCE = "run:"


def reference(source: str | None) -> str | None:
    """The EXP ID that a source names, or None where it is no `run:ID`."""
    return source.removeprefix(REFERENCE) if source is not None and source.startswith(REFERENCE) else None
