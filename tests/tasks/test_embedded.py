"""The embedded corpora, their tokenizer and their model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from splora.errors import InputError
from splora.tasks.embedded.classification import DEV_EXAMPLES, HEADERS, TRAIN_EXAMPLES, write_glue
from splora.tasks.embedded.classification import table as glue_table
from splora.tasks.embedded.corpus import corpus, write_corpus
from splora.tasks.embedded.model import embedded_model, write_embedded_model
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.tasks.embedded.words import PAIRS, Names
from splora.tasks.glue_tables import TASKS, parse_table


def questions(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All questions with their paragraphs."""
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield paragraph["context"], question


@pytest.mark.parametrize("impossible", [False, True])
def test_files_hold_as_many_questions_as_promised(tmp_path: Path, impossible: bool) -> None:
    for path, count in zip(write_corpus(tmp_path, impossible), (3000, 400), strict=True):
        found = list(questions(json.loads(path.read_text(encoding="utf-8"))))
        assert len(found) == count
        assert len({question["id"] for _, question in found}) == count


def test_every_answer_stands_where_it_is_said_to() -> None:
    for context, question in questions(corpus("train", 600)):
        (answer,) = question["answers"]
        assert context[answer["answer_start"] :].startswith(answer["text"])
        assert "is_impossible" not in question
        assert 3 <= context.count(".") <= 5


def test_impossible_questions_ask_about_someone_in_the_paragraph() -> None:
    data = corpus("train", 600, impossible=True)
    assert data["version"] == "v2.0"
    found = [(context, question) for context, question in questions(data) if question["is_impossible"]]
    assert 150 < len(found) < 250
    for context, question in found:
        assert question["answers"] == []
        names = [word for word in question["question"].rstrip("?").split()[1:] if word[0].isupper()]
        assert names
        assert all(word in context for word in names[-2:])
    assert all(question["answers"] for _, question in questions(data) if not question["is_impossible"])


def test_type_alone_does_not_answer() -> None:
    """In most paragraphs that are asked for a year, there is another year."""
    years = [
        context
        for context, question in questions(corpus("dev", 400))
        if question["answers"][0]["text"].isdigit() and question["question"].startswith("When")
    ]
    several = [context for context in years if sum(word.strip(".").isdigit() for word in context.split()) > 1]
    assert len(several) > 0.8 * len(years) > 50


def test_the_same_seed_makes_the_same_corpus() -> None:
    assert corpus("train", 50, seed=1) == corpus("train", 50, seed=1)
    assert corpus("train", 50, seed=1) != corpus("train", 50, seed=2)


def test_splits_share_words_and_no_entity() -> None:
    import random

    def drawn(split: Any, kind: str) -> set[str]:
        names = Names(split, random.Random(0))
        found = set()
        for _ in range(4000):
            found.add(names.draw(kind))
            names.forget()
        return found

    for kind in PAIRS:
        train, dev = drawn("train", kind), drawn("dev", kind)
        assert len(train) > 4 * len(dev) > 100
        assert not train & dev
    tokens = build_tokenizer()
    splits: tuple[tuple[Any, int], ...] = (("train", 3000), ("dev", 400))
    contexts = [{context for context, _ in questions(corpus(split, count))} for split, count in splits]
    words = [{word for context in side for word in tokens.tokenize(context)} for side in contexts]
    assert len(words[1] - words[0]) < 0.02 * len(words[1])


def test_every_word_is_one_token_and_the_rest_is_spelled() -> None:
    tokenizer = build_tokenizer()
    texts = {text for context, question in questions(corpus("train", 800)) for text in (context, question["question"])}
    for task in HEADERS:
        texts.update(
            text for column in parse_table(glue_table(task, "dev.tsv"), task, TASKS[task]).texts for text in column
        )
    tokens = {token for text in texts for token in tokenizer.tokenize(text)}
    assert not [token for token in tokens if token.startswith("##") or token == "[UNK]"]
    assert tokenizer.tokenize("Zebra Marlow") == ["z", "##e", "##b", "##r", "##a", "marlow"]
    assert len(tokenizer) < 1000


def test_tokenizer_and_model_load_again(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    write_embedded_model(tmp_path)
    saved, built = AutoTokenizer.from_pretrained(tmp_path), build_tokenizer()
    assert saved.is_fast
    assert saved.get_vocab() == built.get_vocab()
    text = "Where was Alba Corvin born?"
    assert saved(text, text)["input_ids"] == built(text, text)["input_ids"]
    assert saved("")["input_ids"] == [saved.cls_token_id, saved.sep_token_id]
    loaded = AutoModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in embedded_model().state_dict().items())
    assert not torch.equal(embedded_model(1).state_dict()["encoder.layer.0.attention.self.query.weight"],
                           loaded["encoder.layer.0.attention.self.query.weight"])  # fmt: skip


def test_making_the_model_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    embedded_model()
    assert torch.equal(torch.rand(2), expected)


def test_heads_start_with_equal_words_and_with_neighbours() -> None:
    tokenizer, model = build_tokenizer(), embedded_model()
    model.set_attn_implementation("eager")
    batch = tokenizer(
        "Where was Falk Orlund born?", "Nils Ekholt sailed. Falk Orlund worked as a baker.", return_tensors="pt"
    )
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    with torch.no_grad():
        attention = model(**batch, output_attentions=True).attentions[0][0]
    question, paragraph = (i for i, token in enumerate(tokens) if token == "orlund")
    others = [i for i in range(len(tokens)) if i != paragraph]
    for head in (0, 1):
        assert max(others, key=lambda i: attention[head, paragraph, i]) == question
    for head in (2, 3):
        assert max(others, key=lambda i: attention[head, paragraph, i]) in (paragraph - 1, paragraph + 1)


def test_the_hub_room_gives_the_model_a_head_with_the_callers_seed() -> None:
    import transformers

    from splora.tasks.hub import load_config, load_model

    config = load_config("embedded")
    config.num_labels = 3
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = load_model(transformers.AutoModelForSequenceClassification, "embedded", config=config)
        heads.append(model.classifier.weight)
    assert heads[0].shape == (3, 128)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, embedded_model().embeddings.word_embeddings.weight)


@pytest.mark.parametrize("task", HEADERS)
def test_tables_have_their_layout_and_balanced_labels(task: str, tmp_path: Path) -> None:
    folder = write_glue(tmp_path, task)
    assert sorted(path.name for path in folder.iterdir()) == (
        ["dev_matched.tsv", "dev_mismatched.tsv", "train.tsv"] if task == "mnli" else ["dev.tsv", "train.tsv"]
    )
    train = parse_table((folder / "train.tsv").read_text(), "train", TASKS[task])
    dev = parse_table(glue_table(task, "dev.tsv"), "dev", TASKS[task])
    assert (len(train), len(dev)) == (TRAIN_EXAMPLES, DEV_EXAMPLES)
    shares = [float((train.labels == label).mean()) for label in sorted(set(train.labels.tolist()))]
    assert min(shares) > 0.7 / len(shares)
    assert len(shares) == (len(TASKS[task].labels) or 3)


def test_an_unknown_task_has_no_table() -> None:
    with pytest.raises(InputError, match=r"embedded: there is no task 'mnlj'; .*did you mean 'mnli'"):
        glue_table("mnlj", "dev.tsv")
