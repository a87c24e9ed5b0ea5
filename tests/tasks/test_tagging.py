"""Tags of words: layouts, labels, pieces, entities as seqeval counts them, and a model's way through the program."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from splora.errors import InputError
from splora.evaluation import evaluate
from splora.posttraining.core.evaluation import Predictions, divergence, outputs_of
from splora.tasks.byte_pairs import train_tokenizer
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.tasks.tag_tasks import read_sentences
from splora.tasks.tagging import NOWHERE, TagDataModule, first_pieces
from splora.training.inference import find_predictor, predict_file
from splora.training.run import run
from splora.training.specification import RunSpecification, check

TAGS = ("B-LOC", "B-PER", "I-PER", "O")
Tagged = list[tuple[str, str]]


def sentences(count: int, seed: int) -> list[Tagged]:
    """Who was born where."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        person = [(draw.choice(("Anna", "Karl", "Marie")), "B-PER"), (draw.choice(("Smith", "Jones")), "I-PER")]
        place = (draw.choice(("Paris", "Rome", "Oslo")), "B-LOC")
        rest = [(word, "O") for word in ("was", "born", "in")]
        found.append([*person[: draw.randint(1, 2)], *rest, place, (".", "O")])
    return found


def conll(path: Path, content: list[Tagged]) -> Path:
    blocks = ["\n".join(f"{word} NN X {tag}" for word, tag in sentence) for sentence in content]
    path.write_text("-DOCSTART- -X- -X- O\n\n" + "\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training and evaluation sentences."""
    path = tmp_path_factory.mktemp("tags")
    conll(path / "train.txt", sentences(60, 1))
    conll(path / "dev.txt", sentences(20, 2))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny BERT whose outputs are named in an order of its own."""
    path, tokenizer = tmp_path_factory.mktemp("model") / "tagger", build_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=20,
        max_position_embeddings=40,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(reversed(TAGS))),
        label2id={tag: number for number, tag in enumerate(reversed(TAGS))},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = transformers.BertForTokenClassification(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    network.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_every_layout_says_the_same(tmp_path: Path) -> None:
    content = sentences(5, 3)
    wanted = [(tuple(w for w, _ in one), tuple(t for _, t in one)) for one in content]
    rows = [{"tokens": list(words), "ner_tags": list(tags)} for words, tags in wanted]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for path in (conll(tmp_path / "dev.conll", content), tmp_path / "dev.jsonl"):
        found = read_sentences(str(path), "ner", "eval")
        assert [(one.words, one.tags) for one in found] == wanted
        assert all(one.tags == () for one in read_sentences(str(path), "ner", "eval", labelled=False))
    (tmp_path / "bare.txt").write_text("\n\nAnna\nsings\n\n", encoding="utf-8")
    assert read_sentences(str(tmp_path / "bare.txt"), "ner", "eval", labelled=False)[0].words == ("Anna", "sings")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("dev.txt", "Anna B-PER\nsings\n", "line 2: the word 'sings' has no tag beside it"),
        ("dev.txt", "Anna PER\n", "line 1: 'PER' is no tag"),
        ("dev.txt", "\n\n", "has no sentences"),
        ("dev.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O"]}', "line 1: has 2 words, and ner_tags is 1 of them"),
        ("dev.jsonl", '{"tokens": ["a"], "ner_tags": [0]}', "line 1: 0 is no tag"),
        ("dev.jsonl", '{"tokens": "a b", "ner_tags": ["O"]}', "line 1: tokens is 'a b' where a list of words"),
        ("dev.jsonl", '{"words": ["a"], "ner_tags": ["O"]}', "has no tokens; it has words, ner_tags"),
        ("dev.jsonl", '{"tokens": ["a"]}', "has no ner_tags; it has tokens"),
    ],
)
def test_what_is_no_sentence_is_told_with_file_and_line(name: str, content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_sentences(str(tmp_path / name), "ner", "eval")
    (problem,) = caught.value.problems
    assert problem.startswith(str(tmp_path / name))
    assert told in problem


def test_the_first_piece_of_a_word_is_that_of_the_tokenizer_itself() -> None:
    # A blank that is a piece of its own begins the word behind it, as where words are given one by one.
    for tokenizer in (build_tokenizer(), train_tokenizer(["Anna Smith was born in Oslo ."] * 9, 300, 64)):
        for words in (("Anna", "unbelievable-7", "was", "."), ("x",), ("a b", "c")):
            text = " ".join(words)
            encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
            found = first_pieces(words, encoded["offset_mapping"], encoded["special_tokens_mask"])
            starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
            wanted = [
                next(
                    place
                    for place, ((_, end), special) in enumerate(
                        zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
                    )
                    if not special and max(start - 1, 0) < end <= start + len(word)
                )
                for start, word in zip(starts, words, strict=True)
            ]
            assert found == wanted
    assert first_pieces(("a", "b"), [(0, 0), (0, 1), (0, 0)], [1, 0, 1]) == [1, NOWHERE]


def entities(tags: list[str]) -> set[tuple[int, int, str]]:
    """Begin, end and type of the entities of a sentence of well-formed tags, by a loop."""
    found, begin = set(), None
    for place, tag in enumerate([*tags, "O"]):
        if begin is not None and not tag.startswith("I-"):
            found.add((begin, place, tags[begin][2:]))
            begin = None
        if tag.startswith("B-"):
            begin = place
    return found


def test_scores_are_of_entities_in_the_model_s_order_of_tags(folder: Path, model: Path) -> None:
    data = TagDataModule(str(model), str(folder), str(folder), 32)
    assert list(data.label2id) == [*reversed(TAGS)]
    assert list(TagDataModule("embedded", str(folder), str(folder)).label2id) == [*TAGS]
    wanted = [[tag for _, tag in one] for one in sentences(20, 2)]
    predicted = [list(tags) for tags in wanted]
    predicted[0] = ["O"] * len(predicted[0])
    predicted[1][-2] = "B-PER"
    _, places = data.features("eval"), data._evaluated["eval"][1]
    logits = np.zeros((20, 40, 4), np.float32)
    for row, tags in enumerate(predicted):
        for place, tag in zip(places[row], tags, strict=True):
            logits[row, place, data.label2id[tag]] = 1
    right = sum(len(entities(a) & entities(b)) for a, b in zip(wanted, predicted, strict=True))
    count, other = (sum(len(entities(tags)) for tags in every) for every in (wanted, predicted))
    result = data.evaluate({"logits": logits})
    assert result.metrics == pytest.approx(
        {"f1": 200 * right / (count + other), "precision": 100 * right / other, "recall": 100 * right / count}, abs=1e-3
    )
    assert [*result.artifacts["predictions"].values()] == predicted


def test_what_fills_up_rows_is_no_prediction(folder: Path, model: Path) -> None:
    data = TagDataModule(str(model), str(folder), str(folder), 32)
    network: Any = transformers.AutoModelForTokenClassification.from_pretrained(model).eval()
    outputs = outputs_of(network, data)
    lengths = data.features("eval").lengths
    shifted = {"logits": outputs["logits"] * np.array([1.0, 1.1, 1.0, 1.0], np.float32)}
    found = divergence(Predictions(outputs, {}), Predictions(shifted, {}))
    logs = [torch.tensor(values["logits"]).double().log_softmax(-1) for values in (outputs, shifted)]
    each = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
    kept = [each[row, : lengths[row]] for row in range(len(lengths))]
    assert found == pytest.approx(float(torch.cat(kept).mean()))


def test_a_tag_that_a_model_does_not_give_is_told(folder: Path, model: Path, tmp_path: Path) -> None:
    path = conll(tmp_path / "dev.txt", [[("Anna", "B-ORG")]])
    with pytest.raises(InputError, match=r"dev\.txt: line 3: the sentence has the tag 'B-ORG', which is none of those"):
        evaluate(model, "ner", path)


def test_a_row_trains_a_tagger_and_its_model_predicts(
    folder: Path, tmp_path: Path, tiny_row: Callable[..., RunSpecification]
) -> None:
    spec = tiny_row()
    assert check(spec) == []
    run(spec, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert {"f1", "precision", "recall"} <= result["metrics"].keys()
    (tmp_path / "some.txt").write_text("Anna\nsings\n", encoding="utf-8")
    said = predict_file(find_predictor(str(tmp_path / "run")), str(tmp_path / "some.txt"), precision="fp32")
    assert len(said[0]) == 2
    assert {*said[0]} <= {*TAGS}
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForTokenClassification"]
    assert [*config["id2label"].values()] == [*TAGS]


@pytest.fixture
def tiny_row(folder: Path, model: Path, tmp_path: Path) -> Callable[..., RunSpecification]:
    """A specification of four steps from a pretrained encoder, which names no tags."""
    encoder = tmp_path / "encoder"
    tagger: Any = transformers.AutoModelForTokenClassification.from_pretrained(model)
    tagger.config.num_labels = 2  # and no names
    tagger.bert.save_pretrained(encoder)
    build_tokenizer().save_pretrained(encoder)
    settings: dict[str, Any] = {
        "exp_id": 1,
        "task": "ner",
        "model_name_or_path": str(encoder),
        "train_file": str(folder),
        "predict_file": str(folder),
        "max_seq_length": 32,
        "max_steps": 4,
        "per_gpu_train_batch_size": 8,
        "pruning_method": "none",
        "dropout": 0.0,
        "checkpoint_every_n_steps": 4,
    }
    return lambda **changes: RunSpecification(**settings | changes)


@pytest.mark.parametrize("method", ["stat", "fisher"])
def test_a_tagger_is_pruned_cut_and_loaded(
    folder: Path, model: Path, tmp_path: Path, method: str, command: Callable[..., tuple[int, str]]
) -> None:
    shared = ["--precision=fp32", "--device=cpu", "--threads=1"]
    status, said = command(
        *("prune", method, f"--model={model}", "--task=conll2003", f"--data={folder}", "--budget=mac=0.5"),
        *(f"--output={tmp_path / 'small'}", "--num_samples=60", "--latency_seq_len=8", "--latency_batch_size=1"),
        *shared,
    )
    assert status == 0, said
    result = json.loads((tmp_path / "small" / "result.json").read_text(encoding="utf-8"))
    assert result["metric"] == "f1"
    assert result["macs_kept"] <= 0.5
    assert all(0 < value < 5 for value in result["kl_divergence"].values())
    status, said = command("evaluate", f"--model={tmp_path / 'small'}", "--task=ner", f"--data={folder}", *shared)
    assert status == 0
    assert f"f1: {result['pruned']:.4f}" in said
    stock: Any = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "small", trust_remote_code=True
    )
    assert stock.config.id2label == dict(enumerate(reversed(TAGS)))


def test_heads_of_the_same_names_are_told_apart(folder: Path, model: Path, tmp_path: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(model)
    for name in ("sentences", "tags"):
        kind = transformers.BertForSequenceClassification if name == "sentences" else None
        network: Any = kind(config) if kind else transformers.BertForTokenClassification(config)
        network.save_pretrained(tmp_path / name)
        build_tokenizer().save_pretrained(tmp_path / name)
    with pytest.raises(InputError, match=r"has no head for ner .its architecture is BertForSequenceClassification"):
        evaluate(tmp_path / "sentences", "ner", folder)
    with pytest.raises(InputError, match=r"mnli"):
        evaluate(tmp_path / "tags", "mnli", "embedded")
