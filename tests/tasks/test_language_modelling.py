"""Running text: how it is joined and cut, what perplexity is, and the small OPT that is trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from splora.errors import InputError
from splora.posttraining.core.evaluation import predict
from splora.posttraining.core.precision import Precision
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.tasks.language_modelling import TextDataModule
from splora.tasks.text_sources import find_text, read_text
from splora.tasks.text_windows import consecutive_windows, drawn_windows, tokenize
from splora.training.small_decoder import SmallDecoder, SmallLlama, SmallOPT, train_small_decoder

TINY = SmallOPT(vocabulary=300, positions=24, layers=1, hidden=16, heads=2, neurons=32, steps=2, batch_size=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny OPT after two steps, and its folder."""
    folder = tmp_path_factory.mktemp("opt")
    return train_small_decoder(TINY, "embedded", folder, "wikitext2", accelerator="cpu"), folder


def naive_windows(text: str, folder: Path, width: int) -> list[list[int]]:
    """Windows of a text, one after the other; the whole text begins with the tokenizer's first token."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = [tokenizer.bos_token_id]
    for token in tokenizer.tokenize(text):
        tokens.append(tokenizer.convert_tokens_to_ids(token))
    windows = []
    while len(tokens) >= width:
        windows.append(tokens[:width])
        tokens = tokens[width:]
    return windows


def test_perplexity_is_that_of_a_naive_loop(trained: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = trained
    lines = [" = A heading = ", *(f" line {number} of a story that goes on . " for number in range(20))]
    (tmp_path / "wiki.test.tokens").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    data = TextDataModule(str(folder), None, str(tmp_path / "wiki.test.tokens"))
    found = predict(model, data, Precision("fp32")).metrics["perplexity"]
    # Records are lines with their break and blank ones without; two line breaks stand between records.
    windows = naive_windows("\n\n\n\n\n".join(lines) + "\n", folder, 24)
    assert len(windows) > 10
    means = []
    with torch.no_grad():
        for row in map(torch.tensor, windows):
            probabilities = model(input_ids=row[None]).logits[0].double().softmax(-1)
            told = [float(probabilities[place, row[place + 1]].log()) for place in range(23)]
            means.append(-sum(told) / 23)
    assert found == pytest.approx(float(np.exp(np.mean(means))), rel=1e-4)


def test_the_first_token_stands_once_before_the_whole_text(trained: tuple[Any, Path], tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained[1])
    text = "a story \n\n and its end"
    tokens = tokenize(text, tokenizer, "text", str(tmp_path)).tolist()
    assert tokens[0] == tokenizer.bos_token_id
    assert not set(tokens[1:]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(tokens[1:]) == text
    # An encoder's tokenizer has no such token, and its others are not for running text.
    plain = build_tokenizer()
    assert plain.bos_token_id is None
    assert not set(tokenize(text, plain, "text", str(tmp_path)).tolist()) & {plain.cls_token_id, plain.sep_token_id}


def test_of_c4_the_first_documents_and_windows_are_evaluated(trained: tuple[Any, Path], tmp_path: Path) -> None:
    documents = [f"document number {number} tells of {number % 7} things" for number in range(1200)]
    (tmp_path / "c4-validation.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8"
    )
    path, cache = str(tmp_path / "c4-validation.jsonl"), str(tmp_path / "cache")
    every = naive_windows(" ".join(documents[:1100]), trained[1], 24)
    assert len(every) > 256
    c4 = TextDataModule(str(trained[1]), path, path, task="c4", cache_dir=cache)
    found = c4.features("eval").columns["input_ids"]
    assert isinstance(found, np.ndarray)
    assert found.tolist() == every[:256]
    # Both are limits of evaluation alone, and of this text alone.
    train = c4.features("train").columns["input_ids"]
    assert isinstance(train, np.ndarray)
    assert train.tolist() == naive_windows(" ".join(documents), trained[1], 24)
    other = TextDataModule(str(trained[1]), path, path, task="ptb", cache_dir=cache)
    assert len(other.features("eval")) == len(train)


def test_windows_follow_one_another_and_drawn_ones_lie_anywhere() -> None:
    tokens = np.arange(23, dtype=np.int32)
    assert consecutive_windows(tokens, 5).tolist() == [list(range(start, start + 5)) for start in (0, 5, 10, 15)]
    assert len(consecutive_windows(tokens, 5, most=2)) == 2
    drawn = drawn_windows(tokens, 5, 7, seed=1)
    assert all(row.tolist() == list(range(row[0], row[0] + 5)) for row in drawn)
    assert len({int(row[0]) for row in drawn}) == 7
    assert np.array_equal(drawn, drawn_windows(tokens, 5, 7, seed=1))


def test_texts_are_joined_as_the_literature_joins_them(tmp_path: Path) -> None:
    (tmp_path / "wiki.test.tokens").write_text("a b\n\nc\n", encoding="utf-8")
    (tmp_path / "wiki.valid.tokens").write_text("d\n", encoding="utf-8")
    assert read_text(str(tmp_path / "wiki.test.tokens"), "wikitext2", "eval") == "a b\n\n\n\n\nc\n"
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in "xy"), encoding="utf-8")
    assert read_text(str(tmp_path / "lines.jsonl"), "c4", "eval") == "x y"
    # Without a training text the validation text calibrates, since it is not evaluated on.
    assert find_text(tmp_path, "train") == tmp_path / "wiki.valid.tokens"
    assert find_text(tmp_path, "eval") == tmp_path / "wiki.test.tokens"


def test_a_text_shorter_than_one_window_is_told(trained: tuple[Any, Path], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("word", encoding="utf-8")
    data = TextDataModule(str(trained[1]), None, str(tmp_path / "short.txt"))
    with pytest.raises(InputError, match="fewer than one window of 24"):
        data.features("eval")


def test_a_missing_text_and_an_unknown_task_are_told(trained: tuple[Any, Path]) -> None:
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        read_text("nowhere.txt", "ptb", "eval")
    with pytest.raises(InputError, match="did you mean 'wikitext2'"):
        TextDataModule(str(trained[1]), task="wikitext")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (SmallOPT(vocabulary=10, hidden=10, heads=3, steps=0), ["vocabulary is 10", "which 3 heads", "steps is 0"]),
        (SmallLlama(heads=8, key_value_heads=3, dropout=1.0), ["which 8 heads cannot share", "dropout is 1.0"]),
        (SmallLlama(hidden=12, heads=4, key_value_heads=0), ["key_value_heads is 0", "heads of even size"]),
        (SmallOPT(learning_rate=float("nan"), weight_decay=-1), ["learning_rate is nan", "weight_decay is -1"]),
    ],
)
def test_sizes_that_do_not_fit_are_told_together(settings: SmallDecoder, told: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        settings.check()
    assert len(raised.value.problems) == len(told)
    assert all(any(text in problem for problem in raised.value.problems) for text in told)


def test_a_small_llama_shares_keys_and_is_trained_with_dropout_that_does_not_stay(tmp_path: Path) -> None:
    settings = {name: getattr(TINY, name) for name in ("vocabulary", "positions", "layers", "hidden", "steps")}
    models = {}
    for dropout in (0.0, 0.5):
        sizes = SmallLlama(**settings, heads=4, key_value_heads=2, neurons=24, batch_size=2, dropout=dropout)
        folder = tmp_path / str(dropout)
        folder.mkdir()
        models[dropout] = train_small_decoder(sizes, "embedded", folder, "wikitext2", accelerator="cpu")
    layer = models[0.5].model.layers[0]
    assert layer.self_attn.k_proj.out_features == layer.self_attn.q_proj.out_features // 2
    assert not {**layer.self_attn.o_proj._forward_hooks, **layer.mlp.down_proj._forward_hooks}
    assert not torch.equal(layer.mlp.down_proj.weight, models[0.0].model.layers[0].mlp.down_proj.weight)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "0.5")
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(again.train()(ids).logits, models[0.5](ids).logits)
