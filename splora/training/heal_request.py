"""Healing: training of a pruned model towards its dense self, from a folder to a folder.

The loss is that of a row with a teacher: the task's, the divergence of its logits, and its hidden states layer by
layer. A part of the training data is held out, and the best state by it is kept: the start's, if nothing beats it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splora.errors import InputError, problems_of
from splora.json_values import read_or_refuse, table, text
from splora.posttraining.core.request import RESULT, Request
from splora.tasks.registry import REGISTRY
from splora.tasks.source_names import is_path, local_folder
from splora.tasks.sources import data_sources
from splora.training.healing_defaults import COMMON, RATES, SENTENCES
from splora.training.preflight import preflight
from splora.training.specification import ADAPTERS, FIELDS, RunSpecification

METHOD = "heal"
#: Stands between a model's name and the digest of its weights.
WEIGHTS_OF = ", weights "
#: What the folder of the training is called beside that of its result.
TRAINING = "-training"
#: Settings of a pruning that healing does not look at.
_OTHERS = ("method", "weights", "budget", "tables", "tokens", "samples", "precision", "device", "dtype", "columns")
#: Columns that are options of the command, and one that is not to be changed.
_OWN = {
    **{"model_name_or_path": "MODEL", "teacher_name_or_path": "--teacher", "task": "--task", "seed": "--seed"},
    **{"train_file": "--data", "predict_file": "--data", "adapter": "--adapter", "max_steps": "--max_steps"},
    **{"num_train_epochs": "--epochs", "max_seq_length": "--max_seq_length", "doc_stride": "--doc_stride"},
    **{"best_checkpoint": "", "labelled": "--no_labels"},
}
#: Folders that lead from one to the next, of which no model has more.
_MOST_STEPS = 50


def _prunes(name: str) -> bool:
    """Whether a column is one of pruning."""
    return FIELDS[name].metadata["group"] in ("Pruning", "Regularization", "Scheduling")


def dense_origin(name: str) -> str:
    """The dense model that a pruned, healed or exported folder was made from in the end; a dense one is its own.

    Raises:
        InputError: a folder does not tell, or what it tells is not there.
    """
    source = name
    for _ in range(_MOST_STEPS):
        folder = local_folder(source)
        if folder is None or not table((read_or_refuse(folder / "config.json") or {}).get("per_layer_config")):
            if folder is not None or not is_path(source):
                return source
            break
        # The result of a pruning lies beside its model, that of a run above.
        result = read_or_refuse(folder / RESULT) or read_or_refuse(folder.parent / RESULT) or {}
        model = table(table(result.get("settings")).get("model"))
        model_before = text(result.get("teacher")) or text(result.get("model"))
        source = model_before or text(table(model.get("distillation")).get("teacher_name_or_path"))
        if not source:
            raise InputError(
                f"--teacher is missing: name the dense model that {name} was made from; {folder} does not tell it."
            )
    raise InputError(
        f"--teacher is missing: name the dense model; {name} was made from {source!r}, which is not there."
    )


@dataclass(frozen=True)
class HealRequest(Request):
    """One healing: what it has in common with a pruning whose budget is everything.

    `options` are `teacher`, `adapter`, `max_steps` (None: `epochs`), `epochs`, and `set`, the sheet's columns that
    differ from what healing does by itself.
    """

    def settings(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        kept = {name: value for name, value in super().settings().items() if name not in _OTHERS}
        known = local_folder(self.model) is not None  # what is pruned for this healing is there only afterwards
        return kept | ({"weights": self.shows.partition(WEIGHTS_OF)[2]} if known else {})

    @property
    def shows(self) -> str:
        """What the training is called: the model's name and a digest of its weights, which may change under it."""
        from splora.export.storage import weight_digest

        return f"{METHOD} {Path(self.model).name}{WEIGHTS_OF}{weight_digest(self.model) or 'of a hub'}"

    @property
    def training(self) -> Path:
        """The folder of the training run, from which the same command goes on."""
        output = self.output.resolve()
        return output.with_name(output.name + TRAINING)

    @property
    def teacher(self) -> str:
        """The dense model: the one given, or that which the pruned folder was made from in the end.

        Raises:
            InputError: none is given, and the folders do not tell, or what they tell is not there.
        """
        given = self.options["teacher"]
        return str(given) if given is not None else dense_origin(self.model)

    def specification(self) -> RunSpecification:
        """The run that heals."""
        train_file, predict_file = data_sources(self.data, self.task)
        task = REGISTRY[self.task]
        adapter = self.options["adapter"]
        length: dict[str, Any] = {"num_train_epochs": self.options["epochs"], "max_steps": self.options["max_steps"]}
        spec = RunSpecification(
            exp_id=self.output.name,
            sheet=METHOD,
            model=self.shows,
            task=self.task,
            model_name_or_path=self.model,
            teacher_name_or_path=self.teacher,
            train_file=train_file,
            predict_file=predict_file,
            max_seq_length=self.max_seq_length or task.length or 128,
            doc_stride=self.doc_stride,
            adapter=adapter,
            seed=self.seed,
            labelled=self.labelled,
            **length,
            **{**COMMON, **({} if "doc_stride" in task.takes else SENTENCES), **RATES.get(adapter, {})},
        )
        if not spec.labelled:
            spec = replace(spec, alpha_ce=0.0)
        return replace(spec, **self.options["set"])

    def check(self) -> None:
        """Find what is wrong with the request itself; loads no weights.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = problems_of(super().check, self.check_training)
        if problems:
            raise InputError(dict.fromkeys(problems))

    def check_training(self) -> None:
        """The part of `check` that looks at no output folder.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = problems_of(self._check_adapter, self._check_set) or problems_of(self._check_run)
        if problems:
            raise InputError(dict.fromkeys(problems))

    def check_output(self) -> None:
        """The part of `check` that looks at the output folder.

        Raises:
            InputError: it holds another result, or something else.
        """
        self._check_output()

    def _check_set(self) -> None:
        """Refuse columns that are the command's own options, and those by which healing would judge nothing."""
        changes: dict[str, Any] = self.options["set"]
        problems = [
            f"--set {name}: is what {option} says; give that."
            if option
            else f"--set {name}: healing needs it as it is."
            for name, option in _OWN.items()
            if name in changes
        ]
        problems += [
            f"--set {name}: a healing prunes nothing; a row of the sheet does." for name in changes if _prunes(name)
        ]
        if changes.get("held_out", 1) < 1:
            problems.append(
                "--set held_out: is 0, and held-out examples decide which state is kept; at least 1 is needed."
            )
        if problems:
            raise InputError(problems)

    def _check_adapter(self) -> None:
        from splora.errors import nearest

        adapter = self.options["adapter"]
        if adapter not in ADAPTERS:
            close = nearest(adapter, ADAPTERS) or "."
            raise InputError(f"--adapter is {adapter!r}; allowed are {', '.join(ADAPTERS)}{close}")

    def _check_run(self) -> None:
        problems = preflight(self.specification())
        options = {name: _OWN.get(name) or f"--set {name}" for name in FIELDS}
        sentences = [f"{options[each.field]} {each.message.rstrip('.')}." for each in problems]
        if sentences:
            raise InputError(sentences)
