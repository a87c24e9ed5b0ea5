"""Tags of words as a data module: the first piece of a word says its tag, and entities are scored as seqeval counts."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from splora.errors import InputError, named
from splora.tasks.data_module import Split, TaskDataModule, TokenRows
from splora.tasks.features import IGNORED, FeatureSet, Ragged, TaskResult
from splora.tasks.model_inputs import SEGMENTS
from splora.tasks.tag_tasks import OUTSIDE, TASKS, Sentence, read_sentences, tags_of
from splora.tasks.task import known_task

logger = logging.getLogger(__name__)

#: Stands for the first piece of a word that has none: behind the row's end, or of signs that the tokenizer leaves out.
NOWHERE = -1
#: Sentences that the tokenizer gets at once.
BATCH = 10_000


class TagDataModule(TaskDataModule):
    """Sentences whose words are tagged.

    Args:
        model_name_or_path: whose tokenizer is used: hub name, folder, or `embedded`. Where its configuration names
            tags, outputs are numbered by it; else by the sorted tags of the training data.
        train_file: a file or folder (see `tag_tasks`), a hub name (`owner/name`), or None for CoNLL 2003 from the hub.
        predict_file: the same for evaluation.
        max_seq_length: longer sentences are cut; words behind count as outside of entities.
        task: ner.

    The other arguments are those of `TaskDataModule`.
    """

    auto_model = "AutoModelForTokenClassification"

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
        task: str = "ner",
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
        self.primary_metric = TASKS[task].metrics[0]
        self._tags: tuple[str, ...] | None = None
        self._read: dict[bool, list[Sentence]] = {}
        #: Of each evaluated split its sentences, and for each of their words the place of its first piece in the row.
        self._evaluated: dict[Split, tuple[list[Sentence], Ragged]] = {}

    @property
    def label2id(self) -> dict[str, int]:
        """Numbers of the tags: as the model's configuration names them, else as the training data's are sorted.

        Raises:
            InputError: neither says any.
        """
        if self._tags is None:
            own = tags_of(self.config)
            if own is None and not self.labelled:
                TASKS[self.task].check_names(self.model_name_or_path, self.config)
            self._tags = own or tuple(sorted({tag for sentence in self._sentences("train") for tag in sentence.tags}))
        return {tag: number for number, tag in enumerate(self._tags)}

    def prepare(self, split: Split) -> FeatureSet:
        """Token numbers of a split; `labels` are those of words' first pieces, all other tokens have none."""
        chosen = self._chosen(split)
        rows, places = self._tokens(self.tokenizer, chosen)
        columns: dict[str, Any] = {"input_ids": rows.input_ids}
        if SEGMENTS in self.tokenizer.model_input_names:
            columns[SEGMENTS] = rows.segments
        self._evaluated[split] = chosen, places
        if self.has_labels(split):
            labels = np.full(len(rows.input_ids.values), IGNORED, np.int32)
            numbers = self._numbers(chosen)
            starts = np.repeat(rows.input_ids.offsets[:-1], places.lengths)
            known = places.values != NOWHERE
            labels[(starts + places.values)[known]] = numbers[known]
            columns["labels"] = Ragged(labels, rows.input_ids.offsets)
        if split == "eval" and (lost := int((places.values == NOWHERE).sum())):
            logger.warning(
                "%s: %d of %d words lie behind the %d tokens that the model sees, or have none; they count as outside "
                "of entities.",
                self.predict_file or self.task,
                lost,
                len(places.values),
                self.width,
            )
        return FeatureSet(columns, rows.input_ids.lengths)

    def rows_of(self, tokenizer: Any, split: Split) -> TokenRows:
        """See `TaskDataModule`."""
        return self._tokens(tokenizer, self._chosen(split))[0]

    def _sentences(self, split: Split) -> list[Sentence]:
        trained = split in ("train", "held")
        labelled = self.has_labels(split)
        if not trained:
            return read_sentences(self.predict_file, self.task, "eval", labelled, self.cache_dir)
        if labelled not in self._read:
            self._read[labelled] = read_sentences(self.train_file, self.task, "train", labelled, self.cache_dir)
        return self._read[labelled]

    def _chosen(self, split: Split) -> list[Sentence]:
        found = self._sentences(split)
        if split not in ("train", "held"):
            return found
        trained, held = self.held_back([sentence.words for sentence in found] if self.held_out else range(len(found)))
        rows = held if split == "held" else trained[self.training_subset(len(trained))]
        return [found[row] for row in rows]

    def _numbers(self, sentences: list[Sentence]) -> npt.NDArray[np.int32]:
        """Numbers of the tags of all words.

        Raises:
            InputError: one is none of the model's, or of the training data's.
        """
        numbers = self.label2id
        for sentence in sentences:
            unknown = next((tag for tag in sentence.tags if tag not in numbers), None)
            if unknown is not None:
                raise InputError(
                    f"{sentence.where}: the sentence has the tag {unknown!r}, which is none of those that "
                    f"{self.model_name_or_path} gives: {named(numbers)}."
                )
        return np.array([numbers[tag] for sentence in sentences for tag in sentence.tags], np.int32)

    def _tokens(self, tokenizer: Any, sentences: list[Sentence]) -> tuple[TokenRows, Ragged]:
        """Rows of tokens, and for each word of each sentence the place of its first piece.

        Words are joined by blanks, and a piece belongs to the word that its last sign is in: so it is for every
        tokenizer, whether or not it can take words one by one.
        """
        parts: dict[str, list[list[int]]] = {"input_ids": [], SEGMENTS: []}
        places: list[list[int]] = []
        for start in range(0, len(sentences), BATCH):
            batch = sentences[start : start + BATCH]
            encoded = tokenizer(
                [" ".join(sentence.words) for sentence in batch],
                truncation=True,
                max_length=self.width,
                return_attention_mask=False,
                return_token_type_ids=True,
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
            )
            for name, rows in parts.items():
                rows += encoded[name]
            for sentence, offsets, special in zip(
                batch, encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
            ):
                places.append(first_pieces(sentence.words, offsets, special))
        rows_of = {name: Ragged.from_rows(rows) for name, rows in parts.items()}
        return TokenRows(rows_of["input_ids"], rows_of[SEGMENTS]), Ragged.from_rows(places)

    def _predicted(self, outputs: dict[str, npt.NDArray[Any]], split: Split) -> list[list[str]]:
        if split not in self._evaluated:
            self.features(split)
        sentences, places = self._evaluated[split]
        tags, chosen = list(self.label2id), outputs["logits"].argmax(-1)
        return [
            [OUTSIDE if place == NOWHERE else tags[chosen[row, place]] for place in places[row]]
            for row in range(len(sentences))
        ]

    def evaluate(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> TaskResult:
        """Score a split, `eval` or `held`.

        Args:
            outputs: `logits`, float (sentences, tokens, tags).

        Returns:
            Percent of entities (type and extent right): `f1`, `precision`, `recall`; artifact `predictions`: tags by
            sentence.
        """
        from seqeval.metrics import f1_score, precision_score, recall_score

        predicted, wanted = self.references(outputs, split)
        ways = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
        metrics = {
            name: round(100 * float(ways[name](wanted, predicted, zero_division=0)), 4)
            for name in TASKS[self.task].metrics
        }
        return TaskResult(metrics, {"predictions": dict(enumerate(predicted))})

    def predict(self, outputs: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """`predictions`: a list of tags by sentence; see `evaluate`."""
        return {"predictions": dict(enumerate(self._predicted(outputs, "predict")))}

    def references(self, outputs: dict[str, npt.NDArray[Any]], split: Split = "eval") -> tuple[list[Any], list[Any]]:
        """See `TaskDataModule`: lists of tags."""
        predicted = self._predicted(outputs, split)
        return predicted, [list(sentence.tags) for sentence in self._evaluated[split][0]]


def first_pieces(words: tuple[str, ...], offsets: list[tuple[int, int]], special: list[int]) -> list[int]:
    """For each word the place of its first token in the row of a sentence joined by blanks; `NOWHERE`: it has none.

    Args:
        offsets: begin and end of each token in the joined text.
        special: 1 for each token that is not of the text.
    """
    ends = np.cumsum([len(word) + 1 for word in words])  # behind the blank after each word
    places = [NOWHERE] * len(words)
    for place, ((begin, end), apart) in enumerate(zip(offsets, special, strict=True)):
        if apart or begin == end:
            continue
        word = int(np.searchsorted(ends, end - 1, side="right"))
        if end == ends[word] and word + 1 < len(words):  # a blank alone, as some tokenizers cut it, begins the next one
            word += 1
        if places[word] == NOWHERE:
            places[word] = place
    return places
