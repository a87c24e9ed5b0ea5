"""GLUE's sentence classification (and STS-B's regression) as a data module."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from splora.tasks import hub
from splora.tasks.cache import Arrays, cached, digest
from splora.tasks.data_module import Split, TaskDataModule, TokenRows
from splora.tasks.features import FeatureSet, Ragged, TaskResult
from splora.tasks.glue_columns import check_overrides
from splora.tasks.glue_metrics import score
from splora.tasks.glue_tables import Table, parse_table, read_source, table_of_hub
from splora.tasks.glue_tasks import TASKS, GlueTask
from splora.tasks.label_names import order_of
from splora.tasks.model_inputs import SEGMENTS
from splora.tasks.source_names import EMBEDDED, is_data_set
from splora.tasks.squad_features import tokenizer_digest
from splora.tasks.task import known_task

#: Examples that the tokenizer gets at once: enough for its threads, few enough for the memory of its answer.
BATCH = 10_000


class GlueDataModule(TaskDataModule):
    """One sentence or a pair of them, and a label.

    Args:
        model_name_or_path: whose tokenizer is used: hub name, folder, or `embedded`. Where its configuration
            names this task's labels in another order, labels are numbered by it (see `label2id`).
        train_file: a folder with `train` and `dev` or `validation` files (TSV as GLUE's own, CSV, JSON lines or
            Parquet), one such file, a hub name (`owner/name`), `embedded`, or None for GLUE from the hub.
        predict_file: the same for evaluation.
        max_seq_length: longer examples are cut, the longer sentence of a pair first.
        task: mnli, qqp, sst2, qnli, mrpc, rte, cola or stsb.
        columns: names of columns in files of the user's own, by usual ones:
            ``{"sentence1": "my_premise", "label": "gold"}``; GLUE's and the hub's names are recognized without.

    The other arguments are those of `TaskDataModule`.
    """

    auto_model = "AutoModelForSequenceClassification"

    def __init__(
        self,
        model_name_or_path: str,
        train_file: str | None = None,
        predict_file: str | None = None,
        max_seq_length: int = 128,
        train_batch_size: int = 32,
        eval_batch_size: int = 64,
        seed: int = 92,
        max_train_examples: int | None = None,
        group_by_length: bool = True,
        num_workers: int = 0,
        cache_dir: str | None = None,
        task: str = "mnli",
        columns: dict[str, str] | None = None,
        held_out: int = 0,
        labelled: bool = True,
    ) -> None:
        super().__init__(
            model_name_or_path=model_name_or_path,
            train_file=train_file,
            predict_file=predict_file,
            max_seq_length=max_seq_length,
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            max_train_examples=max_train_examples,
            group_by_length=group_by_length,
            num_workers=num_workers,
            cache_dir=cache_dir,
            held_out=held_out,
            labelled=labelled,
        )
        self.task = known_task(task, TASKS)
        check_overrides(columns, self.description)
        self.columns = columns
        self.primary_metric = self.description.metrics[0]
        self.num_labels = len(self.description.labels) or 1
        self._order: tuple[str, ...] | None = None
        self._parts: dict[Split, dict[str, slice]] = {}

    @property
    def description(self) -> GlueTask:
        """What GLUE says about the task."""
        return TASKS[self.task]

    @property
    def label2id(self) -> dict[str, int]:
        """Numbers of the labels by name, in the model's order; empty for regression.

        The order is the checkpoint's where its configuration names these labels (see `label_names`), else GLUE's.

        Raises:
            InputError: the model's configuration cannot be had, or contradicts itself.
        """
        if self._order is None:
            labels = self.description.labels
            order = order_of(self.model_name_or_path, self.config, self.description) if labels else None
            self._order = labels if order is None else tuple(labels[number] for number in order)
        return {name: number for number, name in enumerate(self._order)}

    @property
    def id2label(self) -> dict[int, str]:
        """`label2id` the other way round."""
        return {number: name for name, number in self.label2id.items()}

    def tables(self, split: Split) -> dict[str, Table]:
        """The examples of a split; MNLI's evaluation has two parts, keyed by what their metrics' names end in.

        Raises:
            InputError: a file is missing or is not this task's table, or the hub cannot be reached.
        """
        trained = split in ("train", "held")
        source = self.train_file if trained else self.predict_file
        labelled = self.has_labels(split)
        if source == EMBEDDED:
            from splora.tasks.embedded.classification import table

            return {
                part: parse_table(table(self.task, name), f"embedded {name}", self.description)
                for part, name in self.description.files("train" if trained else "eval").items()
            }
        if source is None or is_data_set(source):
            return self._tables_of_hub(source, split)
        return read_source(source, self.task, "train" if trained else "eval", self.columns, labelled)

    def prepare(self, split: Split) -> FeatureSet:
        """Token numbers and labels of a split."""
        tables = self._chosen(split)
        if split in ("eval", "held"):
            ends = np.cumsum([len(table) for table in tables.values()])
            self._parts[split] = {
                part: slice(end - len(table), end) for (part, table), end in zip(tables.items(), ends, strict=True)
            }
        rows = self._tokens(tables, self.tokenizer, split)
        columns: dict[str, Any] = {"input_ids": rows.input_ids}
        if SEGMENTS in self.tokenizer.model_input_names:
            columns[SEGMENTS] = rows.segments
        if self.has_labels(split):
            columns["labels"] = self._in_model_order(np.concatenate([table.labels for table in tables.values()]))
        return FeatureSet(columns, rows.input_ids.lengths)

    def rows_of(self, tokenizer: Any, split: Split) -> TokenRows:
        """See `TaskDataModule`."""
        return self._tokens(self._chosen(split), tokenizer, split)

    def _chosen(self, split: Split) -> dict[str, Table]:
        tables = self.tables(split)
        if split in ("train", "held"):
            trained, held = self.held_back(
                list(zip(*tables[""].texts, strict=True)) if self.held_out else range(len(tables[""]))
            )
            chosen = held if split == "held" else trained[self.training_subset(len(trained))]
            tables[""] = tables[""].take(chosen)
        return tables

    def _tokens(self, tables: dict[str, Table], tokenizer: Any, split: Split) -> TokenRows:
        columns_of_tables = zip(*(table.texts for table in tables.values()), strict=True)
        texts = [list(chain.from_iterable(columns)) for columns in columns_of_tables]
        arrays = cached(
            self.cache_dir,
            f"{self.task}-{split}",
            digest("glue 2", tokenizer_digest(tokenizer), tokenizer.truncation_side, self.width, texts),
            lambda: self._tokenize(tokenizer, texts),
        )
        offsets = arrays["offsets"]
        return TokenRows(Ragged(arrays["input_ids"], offsets), Ragged(arrays[SEGMENTS], offsets))

    def evaluate(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> TaskResult:
        """Score a split, `eval` or `held`.

        Args:
            outputs: `logits`, float (examples, num_labels), in the order of the rows.

        Returns:
            The task's metrics in percent (MNLI: `accuracy` on the matched, `accuracy_mismatched` on the other part);
            artifact `predictions`: label name, or score, by row.
        """
        logits, labels = outputs["logits"], self.features(split).columns["labels"]
        assert isinstance(labels, np.ndarray)
        positive = self.label2id.get(self.description.labels[self.description.positive], 0) if self.label2id else 0
        metrics = {
            f"{name}{part}": value
            for part, rows in self._parts[split].items()
            for name, value in score(self.description.metrics, logits[rows], labels[rows], positive).items()
        }
        return TaskResult(metrics, self.predict(outputs))

    def predict(self, outputs: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """`predictions`: label name, or score, by row of the table; see `evaluate`."""
        logits, names = outputs["logits"], self.id2label
        shown = [names[number] for number in logits.argmax(1)] if names else [float(value) for value in logits[:, 0]]
        return {"predictions": dict(enumerate(shown))}

    def references(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> tuple[list[Any], list[Any]]:
        """See `TaskDataModule`: numbers of labels in GLUE's order, or scores."""
        names, labels = self.description.labels, self.features(split).columns["labels"]
        assert isinstance(labels, np.ndarray)
        predicted = list(self.predict(outputs)["predictions"].values())
        if not names:
            return predicted, labels.tolist()
        own = self.id2label
        return [names.index(name) for name in predicted], [names.index(own[int(number)]) for number in labels]

    def _tables_of_hub(self, source: str | None, split: Split) -> dict[str, Table]:
        trained = split in ("train", "held")
        parts = {"": "train"} if trained else {"": "validation"}
        if not trained and len(self.description.eval_files) > 1:
            parts = {"": "validation_matched", "_mismatched": "validation_mismatched"}
        assert self.description.hub is not None
        name, configuration = self.description.hub if source in (None, self.description.hub[0]) else (source, None)
        return {
            part: table_of_hub(
                hub.load_dataset(name, configuration, on_hub, self.cache_dir),
                name,
                self.description,
                self.columns,
                self.has_labels(split),
            )
            for part, on_hub in parts.items()
        }

    def _tokenize(self, tokenizer: Any, texts: list[list[str]]) -> Arrays:
        parts: dict[str, list[Ragged]] = {}
        for start in range(0, len(texts[0]), BATCH):
            encoded = tokenizer(
                *(column[start : start + BATCH] for column in texts),
                truncation=True,
                max_length=self.width,
                return_attention_mask=False,
                return_token_type_ids=True,
            )
            for name, rows in encoded.items():
                parts.setdefault(name, []).append(Ragged.from_rows(rows))
        lengths = np.concatenate([part.lengths for part in parts["input_ids"]])
        arrays: Arrays = {name: np.concatenate([part.values for part in found]) for name, found in parts.items()}
        return arrays | {"offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])}

    def _in_model_order(self, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not self.description.labels:
            return labels.astype(np.float32)
        numbers = np.array([self.label2id[name] for name in self.description.labels], np.int64)
        return np.take(numbers, labels)
