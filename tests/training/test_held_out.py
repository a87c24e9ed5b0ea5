"""Training examples that are held out: whole texts, the same for every seed, and never trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splora.errors import InputError
from splora.tasks.glue import GlueDataModule
from splora.tasks.squad import SquadDataModule

OPTIONS: dict[str, Any] = {"train_file": "embedded", "predict_file": "embedded", "max_seq_length": 64}


def test_questions_about_a_text_are_held_out_together() -> None:
    held, trained = [], []
    for seed in (0, 1):
        data = SquadDataModule("embedded", **OPTIONS, doc_stride=16, held_out=60, seed=seed)
        held.append([question.id for question in data._chosen("held")])
        trained.append([question.id for question in data._chosen("train")])
        contexts = [{question.context for question in data._chosen(split)} for split in ("held", "train")]
        assert not contexts[0] & contexts[1]
    every = [question.id for question in SquadDataModule("embedded", **OPTIONS, doc_stride=16)._chosen("train")]
    assert held[0] == held[1]
    assert trained[0] == trained[1]
    assert sorted(held[0] + trained[0]) == sorted(every)
    assert 60 <= len(held[0]) < 90


def test_a_subset_is_drawn_from_what_is_left() -> None:
    data = SquadDataModule("embedded", **OPTIONS, doc_stride=16, held_out=60, max_train_examples=50)
    left = {question.id for question in data._chosen("train")}
    assert len(left) == 50
    assert not left & {question.id for question in data._chosen("held")}


@pytest.mark.parametrize("task", ["sst2", "mnli", "stsb"])
def test_sentences_are_held_out(task: str) -> None:
    data = GlueDataModule("embedded", **OPTIONS, task=task, held_out=20)
    texts = [set(zip(*data._chosen(split)[""].texts, strict=True)) for split in ("held", "train")]
    assert len(data.features("held")) >= 20
    assert not texts[0] & texts[1]
    outputs = {"logits": np.zeros((len(data.features("held")), data.num_labels or 1), np.float32)}
    assert set(data.evaluate(outputs, "held").metrics) == set(data.description.metrics)


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    data = SquadDataModule("embedded", **OPTIONS, doc_stride=16, held_out=10**6)
    with pytest.raises(InputError, match=r"held_out is 1000000, and the training data of squad have .* examples"):
        data.features("train")
