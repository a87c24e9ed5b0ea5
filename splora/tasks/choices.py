"""Multiple choice as a data module: each ending after its context is a row, whose log-likelihood decides."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from splora.anatomy import family_of
from splora.errors import InputError
from splora.tasks import hub
from splora.tasks.choice_tasks import TASKS, Question, read_questions
from splora.tasks.data_module import Split, TaskDataModule
from splora.tasks.features import FeatureSet, Ragged, TaskResult
from splora.tasks.model_inputs import WINDOW, positions
from splora.tasks.task import known_task

logger = logging.getLogger(__name__)

#: Stands for the log-likelihood of an ending that a question does not have.
MISSING = -1e9
#: Stands between a context and an ending.
DELIMITER = " "


class ChoicesDataModule(TaskDataModule):
    """Questions with endings, of which the right one should be the likeliest.

    Args:
        model_name_or_path: whose tokenizer and number of positions are used: hub name or folder.
        train_file: questions to calibrate on, with their right endings as text: a file (JSON lines, Parquet), a folder,
            or None for the hub.
        predict_file: the same for evaluation.
        max_seq_length: tokens that the model sees at most; None or more than it has positions: as many as it has.
            Longer contexts are cut on the left.
        task: choices, or one of the data sets that it is made of; see `choice_tasks`.

    The other arguments are those of `TaskDataModule`.
    """

    auto_model = "AutoModelForCausalLM"

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
        group_by_length: bool = True,
        num_workers: int = 0,
        cache_dir: str | None = None,
        task: str = "choices",
    ) -> None:
        most = positions(hub.load_config(model_name_or_path, cache_dir)) or WINDOW
        super().__init__(
            model_name_or_path=model_name_or_path,
            train_file=train_file,
            predict_file=predict_file,
            max_seq_length=min(max_seq_length or most, most),
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            max_train_examples=max_train_examples,
            group_by_length=group_by_length,
            num_workers=num_workers,
            cache_dir=cache_dir,
        )
        self.task = known_task(task, TASKS)
        self.primary_metric = TASKS[task].metrics[0]
        self._questions: list[Question] | None = None

    @property
    def questions(self) -> list[Question]:
        """The evaluation questions.

        Raises:
            InputError: as `read_questions`.
        """
        if self._questions is None:
            self._questions = read_questions(self.predict_file, self.task, "eval", self.cache_dir)
        return self._questions

    def prepare(self, split: Split) -> FeatureSet:
        """Rows of a split.

        Of evaluation, one for each ending in the order of the questions: `input_ids` are the tokens of context and
        ending but the last, `targets` those of the ending, which the last of the former predict. Of training, one for
        each question: context and right ending.

        Raises:
            InputError: questions cannot be had, or an ending is longer than the model has positions.
        """
        if split == "train":
            questions = read_questions(self.train_file, self.task, "train", self.cache_dir)
            chosen = [questions[row] for row in self.training_subset(len(questions))]
            pairs = [(question, question.answer) for question in chosen]
            rows = [(before + after)[-self.width :] for before, after in self._encoded(pairs)]
            inputs = Ragged.from_rows(rows)
            return FeatureSet({"input_ids": inputs}, inputs.lengths)
        pairs = [(question, ending) for question in self.questions for ending in range(len(question.endings))]
        encoded = self._encoded(pairs)
        for (question, ending), (_, after) in zip(pairs, encoded, strict=True):
            if not 0 < len(after) <= self.width:
                raise InputError(
                    f"{question.where}: ending {ending + 1} has {len(after):,} tokens; from 1 to {self.width:,} fit."
                )
        long = sum(len(before) + len(after) - 1 > self.width for before, after in encoded)
        if long:
            logger.warning(
                "%s: %d of %d endings with their contexts are longer than the %d tokens that the model sees; the "
                "contexts are cut on the left.",
                self.predict_file or self.task,
                long,
                len(encoded),
                self.width,
            )
        inputs = Ragged.from_rows([(before + after)[:-1][-self.width :] for before, after in encoded])
        targets = Ragged.from_rows([after for _, after in encoded])
        return FeatureSet({"input_ids": inputs, "targets": targets}, inputs.lengths)

    def _encoded(self, pairs: list[tuple[Question, int]]) -> list[tuple[list[int], list[int]]]:
        """Tokens of contexts and of endings, as the harness cuts them: those of both together, parted where the
        context's own tokens end, and spaces at a context's end belong to the ending."""
        texts = []
        for question, ending in pairs:
            context = question.contexts[ending]
            kept = context.rstrip()
            texts.append((kept, context[len(kept) :] + DELIMITER + question.endings[ending]))
        contexts = self._tokens([context for context, _ in texts])
        wholes = self._tokens([context + ending for context, ending in texts])
        # Without a context something has to predict the first token; some families know no text that begins otherwise.
        begin = [self._first_token]
        always = family_of(self.config).begins
        return [
            (begin * (always or not before) + before, whole[len(before) :])
            for before, whole in zip(contexts, wholes, strict=True)
        ]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        found: list[list[int]] = self.tokenizer(texts, **options)["input_ids"]
        return found

    @property
    def _first_token(self) -> int:
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0)
        return next(int(token) for token in known if token is not None)

    def by_question(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Values of endings as float32 (questions, most endings), filled up with `MISSING`."""
        counts = np.array([len(question.endings) for question in self.questions])
        table = np.full((len(counts), counts.max()), MISSING, np.float32)
        table[np.arange(counts.max()) < counts[:, None]] = values
        return table

    def evaluate(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> TaskResult:
        """Score the evaluation split.

        Args:
            outputs: `losses`, the negative log-likelihood of each ending in nats, float (rows,).

        Returns:
            Percent: `accuracy`, by the log-likelihood of endings, and `accuracy_norm`, by it over their characters;
            artifact `predictions`: number of the likeliest ending by question.
        """
        likelihoods = -np.asarray(outputs["losses"], np.float64)
        sizes = np.array([len(ending) for question in self.questions for ending in question.endings])
        answers = np.array([question.answer for question in self.questions])
        chosen = {
            "accuracy": self.by_question(likelihoods).argmax(1),
            "accuracy_norm": self.by_question(likelihoods / sizes).argmax(1),
        }
        metrics = {name: round(100 * float((chosen[name] == answers).mean()), 4) for name in TASKS[self.task].metrics}
        return TaskResult(metrics, {"predictions": dict(enumerate(chosen["accuracy"].tolist()))})

    def references(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> tuple[list[Any], list[Any]]:
        """See `TaskDataModule`: numbers of endings."""
        predictions = self.evaluate(outputs, split).artifacts["predictions"]
        return list(predictions.values()), [question.answer for question in self.questions]
