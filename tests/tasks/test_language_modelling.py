"""Running text: how it is joined and cut, what perplexity is, and the small OPT that is trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from splora.errors import InputError
from splora.posttraining.evaluation import predict
from splora.posttraining.precision import Precision
from splora.tasks.language_modelling import TextDataModule
from splora.tasks.text_sources import find_text, read_text
from splora.tasks.text_windows import consecutive_windows, drawn_windows
from splora.training.small_opt import SmallOPT, train_small_opt

TINY = SmallOPT(vocabulary=300, positions=24, layers=1, hidden=16, heads=2, neurons=32, steps=2, batch_size=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny OPT after two steps, and its folder."""
    folder = tmp_path_factory.mktemp("opt")
    return train_small_opt(TINY, "embedded", folder, "wikitext2", accelerator="cpu"), folder


def test_perplexity_is_that_of_a_naive_loop(trained: tuple[Any, Path]) -> None:
    model, folder = trained
    data = TextDataModule(str(folder), "embedded", "embedded")
    found = predict(model, data, Precision("fp32")).metrics["perplexity"]
    windows = data.features("eval").columns["input_ids"]
    assert isinstance(windows, np.ndarray)
    means = []
    with torch.no_grad():
        for row in torch.from_numpy(windows).long():
            logits = model(input_ids=row[None]).logits[0]
            means.append(F.cross_entropy(logits[:-1], row[1:]).item())
    assert found == pytest.approx(float(np.exp(np.mean(means))), rel=1e-4)


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


def test_sizes_that_do_not_fit_are_told_together() -> None:
    with pytest.raises(InputError) as told:
        SmallOPT(vocabulary=10, hidden=10, heads=3, steps=0).check()
    assert len(told.value.problems) == 3
