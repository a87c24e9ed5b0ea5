"""SQuAD 1.1 and 2.0 as a data module: questions from a file, the hub or the embedded corpus; windows; scores."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, Literal

import numpy.typing as npt

from splora.errors import InputError
from splora.tasks import hub, squad_features, squad_json
from splora.tasks.cache import cached, digest
from splora.tasks.data_module import Split, TaskDataModule, TokenRows
from splora.tasks.features import FeatureSet, Ragged, TaskResult
from splora.tasks.model_inputs import SEGMENTS
from splora.tasks.source_names import EMBEDDED, is_data_set
from splora.tasks.squad_answers import Answers, find_answers
from splora.tasks.squad_features import Windows, cut_windows, tokenizer_digest
from splora.tasks.squad_json import Question, questions_from_content, questions_from_rows, read_squad
from splora.tasks.squad_metric import References, best_thresholds, scores, totals, totals_v2
from splora.tasks.squad_tasks import TASKS
from splora.tasks.task import known_task

#: Data sets of the hub, used where no file is named.
HUB = {name: str((task.hub or ("",))[0]) for name, task in TASKS.items()}
HUB_SPLITS: dict[Split, str] = {"train": "train", "held": "train", "eval": "validation", "predict": "validation"}


class SquadDataModule(TaskDataModule):
    """Questions about paragraphs.

    Args:
        model_name_or_path: whose tokenizer is used: hub name, folder, or `embedded`.
        train_file: JSON or JSON lines, a hub name (`owner/name`), `embedded`, or None for SQuAD from the hub.
        predict_file: the same for evaluation.
        task: `squad` (1.1: every question has an answer) or `squad_v2` (some have none).
        doc_stride: tokens that neighbouring windows of a long context share.
        n_best_size: entries of an n-best list, and start and end tokens looked at per window.
        max_answer_length: tokens of an answer at most.
        null_score_diff_threshold: in 2.0 the answer is empty where "no answer" scores higher by more than this.

    The other arguments are those of `TaskDataModule`.
    """

    primary_metric = "f1"
    auto_model = "AutoModelForQuestionAnswering"

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
        task: str = "squad",
        doc_stride: int = 128,
        n_best_size: int = 20,
        max_answer_length: int = 30,
        null_score_diff_threshold: float = 0.0,
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
        self.doc_stride = doc_stride
        self.n_best_size = n_best_size
        self.max_answer_length = max_answer_length
        self.null_score_diff_threshold = null_score_diff_threshold
        self._evaluated: dict[Split, tuple[list[Question], Windows]] = {}

    @property
    def version_2(self) -> bool:
        """Whether questions may have no answer."""
        return TASKS[self.task].unanswerable

    def questions(self, split: Split) -> list[Question]:
        """All questions of a split, read and checked; answers are not looked at where they are to be predicted.

        Raises:
            InputError: as `read_squad`; the hub cannot be reached; or a question of 1.1 has no answer.
        """
        source = self.train_file if split in ("train", "held") else self.predict_file
        found = self._read(source, split)
        unanswered = sum(not question.answers for question in found)
        if unanswered and not self.version_2 and self.has_labels(split):
            raise InputError(
                f"{source or HUB[self.task]}: {unanswered:,} of {len(found):,} questions have no answer; "
                f"task squad (1.1) needs one for each, task squad_v2 does not."
            )
        return found

    def prepare(self, split: Split) -> FeatureSet:
        """Windows of a split; those of training have answer positions, and only questions it can learn from."""
        found = self._chosen(split)
        windows = self._windows(found, split, self.tokenizer)
        if split != "train":
            self._evaluated[split] = found, windows
        return windows.feature_set(
            SEGMENTS in self.tokenizer.model_input_names, labels=split == "train" and self.labelled
        )

    def rows_of(self, tokenizer: Any, split: Split) -> TokenRows:
        """See `TaskDataModule`."""
        windows = self._windows(self._chosen(split), split, tokenizer)
        return TokenRows(Ragged(windows.input_ids, windows.offsets), Ragged(windows.token_type_ids, windows.offsets))

    def _chosen(self, split: Split) -> list[Question]:
        found = self.questions(split)
        if split not in ("train", "held"):
            return found
        usable = [question for question in found if question.usable]
        trained, held = self.held_back([question.context for question in usable])
        if split == "held":
            return [usable[number] for number in held]
        return [usable[trained[number]] for number in self.training_subset(len(trained))]

    def evaluate(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> TaskResult:
        """Score a split.

        Args:
            outputs: `start_logits` and `end_logits`, float (windows, width), in the order of the windows.
            split: `eval` or `held`.

        Returns:
            Metrics `exact_match`, `f1` and, in 2.0, the official ones with their prefixes and best thresholds;
            artifacts `predictions`, `nbest_predictions`, `scores` and, in 2.0, `null_odds`, all by question ID.
        """
        answers, found = self._answers(outputs, split)
        return score_answers(answers, found, self.version_2)

    def predict(self, outputs: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """`predictions`, `nbest_predictions` and, in 2.0, `null_odds`, all by question ID; see `evaluate`."""
        answers, found = self._answers(outputs, "predict")
        return answers_by_id(answers, found, self.version_2)

    def references(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> tuple[list[Any], list[Any]]:
        """See `TaskDataModule`: texts, and lists of those that are right; an empty one where there is no answer."""
        answers, found = self._answers(outputs, split)
        return list(answers.texts), [list(question.answers) or [""] for question in found]

    def _answers(self, outputs: dict[str, npt.NDArray[Any]], split: Split) -> tuple[Answers, list[Question]]:
        found, windows = self._evaluation(split)
        answers = find_answers(
            outputs["start_logits"],
            outputs["end_logits"],
            windows,
            found,
            version_2=self.version_2,
            n_best=self.n_best_size,
            max_answer_length=self.max_answer_length,
            null_score_diff_threshold=self.null_score_diff_threshold,
        )
        return answers, found

    def _evaluation(self, split: Split = "eval") -> tuple[list[Question], Windows]:
        if split not in self._evaluated:
            self.features(split)  # `prepare` sets it
        return self._evaluated[split]

    def _read(self, source: str | None, split: Split) -> list[Question]:
        if source == EMBEDDED:
            return list(_embedded("train" if split in ("train", "held") else "dev", self.version_2))
        if source is None or is_data_set(source):
            name_on_hub = source or HUB[self.task]
            rows = hub.load_dataset(name_on_hub, None, HUB_SPLITS[split], self.cache_dir)
            return questions_from_rows(rows, name_on_hub, answered=self.has_labels(split))
        return read_squad(source, answered=self.has_labels(split))

    def _windows(self, questions: list[Question], split: Split, tokenizer: Any) -> Windows:
        contexts = {text: number for number, text in enumerate(dict.fromkeys(q.context for q in questions))}
        content = [(q.question, contexts[q.context], q.span) for q in questions]
        key = digest(_code(), tokenizer_digest(tokenizer), self.width, self.doc_stride, list(contexts), content)
        arrays = cached(
            self.cache_dir,
            f"{self.task}-{split}",
            key,
            lambda: cut_windows(questions, tokenizer, self.width, self.doc_stride).arrays(),
        )
        return Windows(**arrays)


@cache
def _embedded(split: Literal["train", "dev"], impossible: bool) -> tuple[Question, ...]:
    """The embedded questions, made once in a process: that takes half as long as a short run itself."""
    from splora.tasks.embedded import corpus

    count = corpus.TRAIN_QUESTIONS if split == "train" else corpus.DEV_QUESTIONS
    return tuple(questions_from_content(corpus.corpus(split, count, impossible=impossible), EMBEDDED))


def score_answers(answers: Answers, questions: list[Question], version_2: bool) -> TaskResult:
    """Metrics and artifacts (see `SquadDataModule.evaluate`) of answers in the questions' order."""
    names = [question.id for question in questions]
    references: References = {question.id: question.answers for question in questions}
    artifacts = answers_by_id(answers, questions, version_2)
    scored = scores(artifacts["predictions"], references, version_2)
    artifacts["scores"] = {name: {"exact_match": s.exact, "f1": s.f1} for name, s in scored.items()}
    if not version_2:
        return TaskResult(totals(scored), artifacts)
    best = dict(zip(names, answers.best_texts, strict=True))
    thresholds = best_thresholds(scores(best, references, version_2), best, artifacts["null_odds"], references)
    return TaskResult(totals_v2(scored, references) | thresholds, artifacts)


def answers_by_id(answers: Answers, questions: list[Question], version_2: bool) -> dict[str, Any]:
    """Artifacts that need no reference answers (see `SquadDataModule.predict`), in the questions' order."""
    names = [question.id for question in questions]
    artifacts: dict[str, Any] = {
        "predictions": dict(zip(names, answers.texts, strict=True)),
        "nbest_predictions": {
            name: [entry.as_json() for entry in entries] for name, entries in zip(names, answers.n_best, strict=True)
        },
    }
    if version_2:
        artifacts["null_odds"] = dict(zip(names, answers.no_answer.tolist(), strict=True))
    return artifacts


def _code() -> str:
    """The source that makes windows, so that a change of it makes them again."""
    return "".join(inspect.getsource(module) for module in (squad_features, squad_json))
