"""Language modelling as a data module: windows of running text to calibrate and to evaluate on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from splora.errors import InputError
from splora.tasks import hub
from splora.tasks.data_module import Split, TaskDataModule
from splora.tasks.features import FeatureSet, TaskResult
from splora.tasks.model_inputs import WINDOW, positions
from splora.tasks.perplexity import perplexity
from splora.tasks.task import known_task
from splora.tasks.text_sources import TEXT_TASKS, read_text
from splora.tasks.text_windows import consecutive_windows, drawn_windows, tokenize

#: Tokens of a window at least: one to be predicted, and one to predict it from.
SHORTEST = 2


class TextDataModule(TaskDataModule):
    """Windows of one text; the metric is perplexity, lower being better.

    Args:
        model_name_or_path: whose tokenizer and number of positions are used: hub name or folder.
        train_file: text to calibrate or train on: a file (text; JSON lines with `text`; Parquet), a folder, `embedded`,
            or None for the hub.
        predict_file: the same for evaluation.
        max_seq_length: tokens per window; None or more than the model has positions: as many as it has.
        seed: of the places of training windows.
        max_train_examples: so many training windows from random places, which may overlap; None: all windows that the
            text has one after the other.
        task: wikitext2, ptb or c4; see `text_sources`.

    The other arguments are those of `TaskDataModule`.
    """

    auto_model = "AutoModelForCausalLM"
    primary_metric = "perplexity"
    lower_is_better = True

    def __init__(
        self,
        model_name_or_path: str,
        train_file: str | None = None,
        predict_file: str | None = None,
        max_seq_length: int | None = None,
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        seed: int = 92,
        max_train_examples: int | None = None,
        group_by_length: bool = False,
        num_workers: int = 0,
        cache_dir: str | None = None,
        task: str = "wikitext2",
    ) -> None:
        most = positions(hub.load_config(model_name_or_path, cache_dir)) or WINDOW
        super().__init__(
            model_name_or_path=model_name_or_path,
            train_file=train_file,
            predict_file=predict_file,
            max_seq_length=min(max_seq_length or WINDOW, most),
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            max_train_examples=max_train_examples,
            group_by_length=group_by_length,
            num_workers=num_workers,
            cache_dir=cache_dir,
        )
        self.task = known_task(task, TEXT_TASKS)
        if self.max_seq_length < SHORTEST:
            raise InputError(f"windows of {max_seq_length} tokens are asked for; {SHORTEST} are the least.")

    @property
    def width(self) -> int:
        """Tokens per window."""
        return self.max_seq_length

    def prepare(self, split: Split) -> FeatureSet:
        """Windows of a split, `input_ids` int32 (windows, width).

        Raises:
            InputError: the text cannot be had, or is shorter than one window.
        """
        source = self.train_file if split == "train" else self.predict_file
        text = read_text(source, self.task, "train" if split == "train" else "eval", self.cache_dir)
        tokens = tokenize(text, self.tokenizer, f"{self.task}-{split}", self.cache_dir)
        if len(tokens) < self.width:
            raise InputError(
                f"{source or self.task}: this text has {len(tokens):,} tokens, fewer than one window of "
                f"{self.width:,}; give a longer text, or shorter windows (--max_seq_length)."
            )
        if split == "train" and self.max_train_examples is not None:
            windows = drawn_windows(tokens, self.width, self.max_train_examples, self.seed)
        else:
            windows = consecutive_windows(
                tokens, self.width, TEXT_TASKS[self.task].windows if split == "eval" else None
            )
        return FeatureSet({"input_ids": windows}, np.full(len(windows), self.width, np.int64))

    def evaluate(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> TaskResult:
        """Score the evaluation split.

        Args:
            outputs: `losses`, the negative log-likelihood of each window in nats, float (windows,).
        """
        return TaskResult({"perplexity": perplexity(outputs["losses"], self.width)})
