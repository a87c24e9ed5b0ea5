"""Training examples that are held out: whole texts, the same for every seed, and never trained on."""

from __future__ import annotations

import json
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


def test_a_fifth_at_most() -> None:
    data = SquadDataModule("embedded", **OPTIONS, doc_stride=16, held_out=10**6)
    held, trained = len(data._chosen("held")), len(data._chosen("train"))
    assert held == pytest.approx((held + trained) / 5, abs=20)


def test_one_text_cannot_be_parted(tmp_path: Path) -> None:
    from splora.tasks.embedded.corpus import corpus

    content = corpus("train", 40)
    content["data"] = [{**content["data"][0], "paragraphs": content["data"][0]["paragraphs"][:1]}]
    (tmp_path / "train.json").write_text(json.dumps(content), encoding="utf-8")
    options = OPTIONS | {"train_file": str(tmp_path / "train.json")}
    data = SquadDataModule("embedded", **options, doc_stride=16, held_out=5)
    with pytest.raises(InputError, match=r"held_out is 5, and all \d+ training examples of squad belong to one text"):
        data.features("train")
