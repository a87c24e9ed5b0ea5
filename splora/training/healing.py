"""Healing: training of a pruned model towards its dense self, from a folder to a folder.

The loss is that of a row with a teacher: the task's, the divergence of its logits, and its hidden states layer by
layer. A part of the training data is held out, and the best state by it is kept: the start's, if nothing beats it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splora.errors import InputError, problems_of
from splora.json_values import read_or_refuse, text
from splora.posttraining.request import RESULT, PruneRequest
from splora.tasks.source_names import local_folder
from splora.tasks.sources import data_sources
from splora.training.healing_defaults import COMMON, RATES
from splora.training.preflight import preflight
from splora.training.specification import ADAPTERS, FIELDS, QA_TASKS, RunSpecification

METHOD = "heal"
#: What the folder of the training is called beside that of its result.
TRAINING = "-training"
#: Settings of a pruning that healing does not look at.
_OTHERS = ("method", "budget", "tables", "tokens", "samples", "precision", "device", "dtype", "columns")
#: The option that a column's finding is told with.
_OPTIONS = {
    "model_name_or_path": "MODEL",
    "teacher_name_or_path": "--teacher",
    "train_file": "--data",
    "predict_file": "--data",
    "max_steps": "--max_steps",
    "num_train_epochs": "--epochs",
    "adapter": "--adapter",
}


@dataclass(frozen=True)
class HealRequest(PruneRequest):
    """One healing: what it has in common with a pruning whose budget is everything.

    `choices` are `teacher`, `adapter`, `max_steps` (None: `epochs`), `epochs`, and `columns`, the sheet's columns that
    differ from what healing does by itself.
    """

    def settings(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return {name: value for name, value in super().settings().items() if name not in _OTHERS}

    @property
    def training(self) -> Path:
        """The folder of the training run, from which the same command goes on."""
        output = self.output.resolve()
        return output.with_name(output.name + TRAINING)

    @property
    def teacher(self) -> str:
        """The dense model: the one given, or that which the pruned folder says it was made from.

        Raises:
            InputError: none is given, and the folder does not tell, or what it tells is not there.
        """
        given = self.choices["teacher"]
        if given is not None:
            return str(given)
        folder = local_folder(self.model)
        result = read_or_refuse(folder / RESULT) if folder is not None else None
        found = text((result or {}).get("model"))
        if not found or local_folder(found) is None:
            told = f"its {RESULT} names {found!r}, which is not there" if found else f"it has no {RESULT} that tells"
            raise InputError(f"--teacher is missing: name the dense model that {self.model} was made from; {told}.")
        return found

    def specification(self) -> RunSpecification:
        """The run that heals."""
        train_file, predict_file = data_sources(self.data, self.task)
        questions = self.task in QA_TASKS
        adapter = self.choices["adapter"]
        length: dict[str, Any] = {"num_train_epochs": self.choices["epochs"], "max_steps": self.choices["max_steps"]}
        spec = RunSpecification(
            exp_id=self.output.name,
            sheet=METHOD,
            model=f"{METHOD} {Path(self.model).name}",
            task=self.task,
            model_name_or_path=self.model,
            teacher_name_or_path=self.teacher,
            train_file=train_file,
            predict_file=predict_file,
            max_seq_length=self.max_seq_length or (384 if questions else 128),
            doc_stride=self.doc_stride,
            adapter=adapter,
            seed=self.seed,
            **length,
            **COMMON,
            **RATES.get(adapter, {}),
        )
        return replace(spec, **self.choices["columns"])

    def check(self) -> None:
        """Find what is wrong with the request itself; loads no weights.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = problems_of(super().check, self._check_adapter, self._check_run)
        if problems:
            raise InputError(dict.fromkeys(problems))

    def _check_adapter(self) -> None:
        from splora.errors import nearest

        adapter = self.choices["adapter"]
        if adapter not in ADAPTERS:
            close = nearest(adapter, ADAPTERS) or "."
            raise InputError(f"--adapter is {adapter!r}; allowed are {', '.join(ADAPTERS)}{close}")

    def _check_run(self) -> None:
        if self.choices["adapter"] not in ADAPTERS:
            return
        problems = preflight(self.specification())
        options = {name: f"--set {name}" for name in FIELDS} | _OPTIONS
        told = [f"{options[each.field]} {each.message.rstrip('.')}." for each in problems]
        if told:
            raise InputError(told)
