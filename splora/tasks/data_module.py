"""What every task's data module has in common: preparation once, batches grouped by length, a score at the end."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from splora.errors import InputError
from splora.tasks import hub
from splora.tasks.features import Collator, FeatureSet, Ragged, Rows, TaskResult
from splora.tasks.held_out import held_back
from splora.tasks.model_inputs import check_length, check_tokens, fit_tokenizer, padding
from splora.tasks.sampler import GlobalBatchSampler, ResumableDataLoader

__all__ = ["FeatureSet", "Ragged", "Split", "TaskDataModule", "TaskResult"]

#: Rows to train on; of the same data, held back to judge a training by; to score; to predict, whose labels are not
#: looked at and may be missing.
Split = Literal["train", "held", "eval", "predict"]


class TokenRows(NamedTuple):
    """Token numbers of rows, and the segment of each token, both cut alike."""

    input_ids: Ragged
    segments: Ragged


class TaskDataModule(LightningDataModule):
    """Data of one task, from files or a hub name to batches and scores.

    A subclass says `task`, `primary_metric`, `num_labels`, `auto_model`, and implements `prepare` and `evaluate`.

    Args:
        model_name_or_path: whose tokenizer is used: hub name, folder, or `embedded`.
        train_file: training data, or None for the task's hub name.
        predict_file: evaluation data (validation, test and prediction), or None for the task's hub name.
        max_seq_length: tokens per row at most, special ones included.
        train_batch_size: rows per process and training batch.
        eval_batch_size: rows per process and evaluation batch.
        seed: of the order of rows and of the subset below.
        max_train_examples: train on a random subset of so many examples.
        held_out: about so many training examples are held back, a fifth of them at most, and evaluations while training
            judge by them.
        labelled: whether labels of training examples are read; there need be none otherwise.
        group_by_length: put training rows of similar length into one batch.
        num_workers: processes that prepare batches ahead.
        cache_dir: folder of prepared data and downloads.
    """

    task: str
    primary_metric: str
    num_labels: int | None = None
    auto_model: str

    def __init__(
        self,
        model_name_or_path: str,
        train_file: str | None = None,
        predict_file: str | None = None,
        max_seq_length: int = 384,
        train_batch_size: int = 16,
        eval_batch_size: int = 64,
        seed: int = 92,
        max_train_examples: int | None = None,
        group_by_length: bool = True,
        num_workers: int = 0,
        cache_dir: str | None = None,
        held_out: int = 0,
        labelled: bool = True,
    ) -> None:
        super().__init__()
        # A rank without an evaluation row just evaluates nothing; training refuses that case itself.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.model_name_or_path = model_name_or_path
        self.train_file = train_file
        self.predict_file = predict_file
        self.max_seq_length = max_seq_length
        self.train_batch_size = train_batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.max_train_examples = max_train_examples
        self.group_by_length = group_by_length
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.held_out = held_out
        self.labelled = labelled
        self._judging = False
        self._tokenizer: Any = None
        self._config: Any = None
        self._features: dict[Split, FeatureSet] = {}
        self._resume: dict[str, Any] | None = None

    @abstractmethod
    def prepare(self, split: Split) -> FeatureSet:
        """Read and tokenize one split; called once per process. `training_subset` chooses training examples."""

    @abstractmethod
    def evaluate(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> TaskResult:
        """Score a complete split.

        Args:
            outputs: the model's outputs by name (logits, start_logits, …), (rows, …), sorted by row number.
            split: `eval` or `held`.
        """

    def predict(self, outputs: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Predictions for the complete split `predict`, as JSON values by file stem.

        Args:
            outputs: as for `evaluate`.

        Raises:
            InputError: the task has nothing to predict.
        """
        raise InputError(f"The task {self.task} has a score and no predictions.")

    def references(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> tuple[list[Any], list[Any]]:
        """What is predicted of a split and what is right, by example, for metrics that a user names.

        Args:
            outputs: as for `evaluate`.

        Returns:
            Numbers of labels in the task's own order, scores, texts (and lists of texts that are right), or lists of
            tags.
        """
        raise InputError(f"metrics are named, but {self.task} has a score and no predictions; leave them out.")

    def check_references(self) -> None:
        """Refuse named metrics, by an InputError, where a task has no predictions that they could compare."""
        if type(self).references is TaskDataModule.references:
            self.references({})

    def rows_of(self, tokenizer: Any, split: Split) -> TokenRows:
        """Tokens and segments of a split's rows as any fast tokenizer makes them, in the order of `prepare`."""
        raise NotImplementedError(f"{type(self).__name__} has no pairs of texts.")

    def judges(self, config: Any) -> None:
        """Let labels, positions and padding be those of this configuration's model; its tokenizer may be elsewhere."""
        self._config = config

    @property
    def config(self) -> Any:
        """The configuration of `model_name_or_path`, read at first use.

        Raises:
            InputError: it cannot be had.
        """
        if self._config is None:
            self._config = hub.load_config(self.model_name_or_path, self.cache_dir)
        return self._config

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer of `model_name_or_path`, loaded at first use.

        Raises:
            InputError: it cannot be had.
        """
        if self._tokenizer is None:
            tokenizer = hub.load_tokenizer(self.model_name_or_path, self.cache_dir)
            self._tokenizer = fit_tokenizer(self.model_name_or_path, tokenizer, self.config)
        return self._tokenizer

    @property
    def width(self) -> int:
        """Tokens per row at most.

        The model's positions are the limit; what its tokenizer's file says of them is often nothing, or wrong.

        Raises:
            InputError: the model has fewer positions.
        """
        check_length(self.model_name_or_path, self.config, self.max_seq_length)
        return self.max_seq_length

    @property
    def pad_token_id(self) -> int:
        """The token that fills up rows."""
        return padding(self.config, self.tokenizer)

    def teacher_segments(self, name: str, tokenizer: Any, split: Split = "train") -> Ragged:
        """`token_type_ids` of the rows of a split as a teacher's tokenizer makes them.

        Args:
            name: the teacher's.
            tokenizer: the teacher's.
            split: `train` or `held`.

        Raises:
            InputError: it cuts a text into other tokens than the student's, so that the rows are none of the teacher's.
        """
        features, other = self.features(split), self.rows_of(tokenizer, split)
        own = features.columns["input_ids"]
        assert isinstance(own, Ragged)
        if not (
            np.array_equal(own.offsets, other.input_ids.offsets) and np.array_equal(own.values, other.input_ids.values)
        ):
            raise InputError(
                f"The teacher {name} has another tokenizer than the student {self.model_name_or_path}: it cuts the "
                f"training texts into other tokens, or joins two texts otherwise."
            )
        return other.segments

    def features(self, split: Split) -> FeatureSet:
        """The prepared rows of a split, prepared at first use.

        Raises:
            InputError: the data cannot be read, or holds no example.
        """
        if split not in self._features:
            prepared = self.prepare(split)
            if len(prepared) == 0:
                trained = split in ("train", "held")
                name, option = ("training", "--train-file") if trained else ("evaluation", "--predict-file")
                raise InputError(f"The {name} data of {self.task} ({option}) hold no example.")
            tokens = prepared.columns["input_ids"]
            largest = (tokens.values if isinstance(tokens, Ragged) else tokens).max(initial=0)
            check_tokens(self.model_name_or_path, int(largest), self.config)
            self._features[split] = prepared
        return self._features[split]

    @property
    def mean_tokens(self) -> int:
        """Tokens per training row on average, of which costs are told."""
        return max(1, round(float(self.features("train").lengths.mean())))

    @property
    def judged(self) -> Split:
        """The split that evaluations score now: while training the one held out for it, if any."""
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return "held" if (fitting or self._judging) and self.held_out > 0 else "eval"

    @contextmanager
    def judging_held_out(self) -> Iterator[None]:
        """Let evaluations score what is held out while the block runs, although nothing trains."""
        self._judging = True
        try:
            yield
        finally:
            self._judging = False

    def has_labels(self, split: Split) -> bool:
        """Whether a split's labels are read."""
        return split != "predict" and (self.labelled or split == "eval")

    def held_back(self, groups: Sequence[Hashable]) -> tuple[Rows, Rows]:
        """Numbers of the training examples to train on and of those held out, see `held_out.held_back`."""
        return held_back(groups, self.held_out, self.task)

    def training_subset(self, count: int) -> Rows:
        """Numbers of the examples to train on, ascending: all `count`, or `max_train_examples` random ones."""
        if self.max_train_examples is None or self.max_train_examples >= count:
            return np.arange(count, dtype=np.int64)
        chosen = np.random.default_rng(self.seed).choice(count, self.max_train_examples, replace=False)
        return np.sort(chosen).astype(np.int64)

    def prepare_data(self) -> None:
        """Fill caches on the first process of a machine, before the others look for them."""
        stage = None if self.trainer is None else self.trainer.state.fn
        self.setup({None: "fit", TrainerFn.FITTING: "fit", TrainerFn.PREDICTING: "predict"}.get(stage, "validate"))

    def setup(self, stage: str | None = None) -> None:
        """Prepare what `stage` (fit, validate, test, predict; None: all) needs."""
        if stage in ("fit", None):
            self.features("train")
            if self.held_out > 0:
                self.features("held")
        self.features("predict" if stage == "predict" else "eval")

    def settings(self) -> dict[str, Any]:
        """What this data module was made with, as plain values."""
        parameters = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in parameters if hasattr(self, name)}

    def steps_per_epoch(self, world_size: int = 1) -> int:
        """Batches that each of `world_size` processes trains on in one epoch."""
        return max(1, len(self.features("train")) // (self.train_batch_size * world_size))

    def train_dataloader(self) -> ResumableDataLoader:
        """Shuffled batches that resume in mid-epoch.

        Raises:
            InputError: so small a part of an epoch is asked for that not one batch is in it.
        """
        loader = self._dataloader("train", self.train_batch_size)
        part = 1.0 if self.trainer is None else getattr(self.trainer, "limit_train_batches", 1.0)
        if isinstance(part, float) and part > 0 and int(part * len(loader)) < 1:
            raise InputError(
                f"num_train_epochs {part:g} of {len(loader)} batches is not one batch; at least "
                f"{math.ceil(1e4 / len(loader)) / 1e4:g} is needed, or max_steps."
            )
        resume, self._resume = self._resume, None
        if resume is not None:
            loader.load_state_dict(resume)
        return loader

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Let the next training loader go on after the batches that `checkpoint` was trained on.

        Lightning hands a loader its state only if it makes it after the checkpoint is read. It makes it before where
        it must know how many steps an epoch has: in every run whose length is given in epochs.
        """
        loops = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
        states = loops.get("combined_loader") or [None]
        self._resume = states[0]

    def val_dataloader(self) -> ResumableDataLoader:
        """Every row of the split that is judged by once, longest first."""
        return self._dataloader(self.judged, self.eval_batch_size)

    def test_dataloader(self) -> ResumableDataLoader:
        """Every evaluation row once, longest first."""
        return self._dataloader("eval", self.eval_batch_size)

    def predict_dataloader(self) -> ResumableDataLoader:
        """Every row to predict once, longest first."""
        return self._dataloader("predict", self.eval_batch_size)

    def _dataloader(self, split: Split, batch_size: int) -> ResumableDataLoader:
        features, training = self.features(split), split == "train"
        sampler = GlobalBatchSampler(
            features.lengths,
            batch_size,
            world_size=self.trainer.world_size if self.trainer is not None else 1,
            rank=self.trainer.global_rank if self.trainer is not None else 0,
            seed=self.seed,
            shuffle=training,
            group_by_length=self.group_by_length or not training,
        )
        collator = Collator(features, self.pad_token_id, self.width)
        trained = self._trained_batches if training else None
        return ResumableDataLoader(len(features), sampler, collator, self.num_workers, trained)

    def _trained_batches(self) -> int | None:
        """Batches of the epoch whose training step has ended; a batch that is being trained on is not among them."""
        if self.trainer is None:
            return None
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.current.processed)
