"""Tiny checkpoints with data that they are good at: what they predict is written into the data as the answers."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from variant_checkpoints import QUESTIONS
from variant_data import write_questions, write_table

from splora.checkpoints.checkpoint import load_checkpoint
from splora.posttraining.core.evaluation import predict
from splora.tasks.embedded import classification, corpus
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.tasks.glue_tables import Table, parse_table
from splora.tasks.glue_tasks import TASKS
from splora.tasks.sources import data_sources, make_data_module

#: Examples to train and to evaluate on.
TRAIN, EVAL = 160, 80
FAMILIES = ("Bert", "Roberta", "DistilBert")
GLUE = ("sst2", "mnli", "qnli", "mrpc")
#: Weights in half precision move a few predictions.
TOLERANCE = 100.0 / EVAL * 2 + 1e-6


@dataclass(frozen=True)
class Plain:
    """A checkpoint's folder, its task, its data's folder, and the score."""

    model: Path
    task: str
    data: Path
    score: float


def tiny(family: str, task: str, folder: Path, seed: int) -> None:
    """A random model of 2 layers that says different things of different texts, with its tokenizer."""
    torch.manual_seed(seed)
    head = "ForQuestionAnswering" if task == QUESTIONS else "ForSequenceClassification"
    words = {"vocab_size": len(build_tokenizer()), "max_position_embeddings": 80, "pad_token_id": 0}
    bert = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    settings = {
        "Bert": bert,
        "Roberta": bert | {"type_vocab_size": 1},
        "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 40},
    }[family]
    outputs = 2 if task == QUESTIONS else len(TASKS[task].labels)
    config = getattr(transformers, f"{family}Config")(num_labels=outputs, initializer_range=0.3, **settings, **words)
    getattr(transformers, family + head)(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def _centred(folder: Path, task: str, data: Path) -> None:
    """Shift a classifier's biases so that all its labels are met."""
    weights = load_file(folder / "model.safetensors")
    bias = "classifier.out_proj.bias" if "classifier.out_proj.bias" in weights else "classifier.bias"
    weights[bias] -= torch.from_numpy(_logits(folder, task, data).mean(0))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def module_of(model: str, task: str, data: Path, **options: Any) -> Any:
    return make_data_module(
        task, model, *data_sources(str(data), task), max_seq_length=64, cache_dir=str(data.parent / "cache"), **options
    )


def _logits(folder: Path, task: str, data: Path) -> Any:
    return predict(load_checkpoint(str(folder), task), module_of(str(folder), task, data)).logits["logits"]


def make_plain(family: str, task: str, folder: Path, seed: int = 0) -> Plain:
    """A tiny model and data that it is good at: what it says itself, with some answers changed."""
    model, data = folder / "model", folder / "data"
    tiny(family, task, model, seed)
    if task == QUESTIONS:
        _own_answers(model, data)
        return Plain(model, task, data, 0.0)
    numbers = random.Random(seed)
    names = TASKS[task].files("eval")[""], TASKS[task].files("train")[""]
    for name, split, count in ((names[0], "eval", EVAL), (names[1], "train", TRAIN)):
        part = "train" if split == "train" else next(iter(TASKS[task].files("eval").values()))
        table = parse_table(classification.table(task, part), name, TASKS[task])
        rows = torch.randperm(len(table))[:count].numpy()
        write_table(data, split, task, table.take(rows), "tsv")
    _centred(model, task, data)
    for split in ("train", "eval"):
        module = module_of(str(model), task, data)
        table = module.tables(split)[""]
        if split == "train":
            module.predict_file = str(next(data.glob("train*")))
        own = predict(load_checkpoint(str(model), task), module).logits["logits"].argmax(1)
        labels = [int(label) if numbers.random() > 0.05 else 0 for label in own]
        write_table(data, split, task, Table(table.texts, torch.tensor(labels).numpy()), "tsv")
    return Plain(model, task, data, 0.0)


def _own_answers(model: Path, data: Path) -> None:
    for split, count in (("train", TRAIN), ("dev", EVAL)):
        content = corpus.corpus(split, count)
        write_questions(data, "train", content, "tsv")
        write_questions(data, "dev", content, "tsv")
        module = module_of(str(model), QUESTIONS, data, doc_stride=16)
        network = load_checkpoint(str(model), QUESTIONS)
        logits = predict(network, module).logits
        said = module.evaluate(dict(logits)).artifacts["predictions"]
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    text = said[asked["id"]]
                    start = paragraph["context"].find(text)
                    if text and start >= 0:
                        asked["answers"] = [{"text": text, "answer_start": start}]
        write_questions(data, split, content, "tsv")
        if split == "train":
            shutil.copy(data / "train.json", data / "kept")
    shutil.move(data / "kept", data / "train.json")
