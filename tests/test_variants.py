"""Random combinations of checkpoint, tokenizer and data variants end in the plain one's score or in one sentence.

    python tests/test_variants.py --count 200 [--seed 0] [--shared ../shared]

The tiny models are random; what they predict is written into their data as the answers, so that they are good at them.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from splora.errors import InputError
from splora.posttraining import pipeline
from splora.posttraining.budget import Budget
from splora.posttraining.checkpoint import load_checkpoint
from splora.posttraining.evaluation import predict
from splora.posttraining.request import PruneRequest
from splora.posttraining.stages import silent
from splora.tasks.embedded import classification, corpus
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.tasks.glue_tables import Table, parse_table
from splora.tasks.glue_tasks import TASKS
from splora.tasks.sources import data_sources, make_data_module
from splora.training.model import load_base
from splora.training.sense import ask

Weights = dict[str, torch.Tensor]
Settings = dict[str, Any]
#: Examples to train and to evaluate on.
TRAIN, EVAL = 160, 80
FAMILIES = ("Bert", "Roberta", "DistilBert")
GLUE, QUESTIONS = ("sst2", "mnli", "qnli", "mrpc"), "squad"
#: Weights in half precision move a few predictions.
TOLERANCE = 100.0 / EVAL * 2 + 1e-6


@dataclass(frozen=True)
class Plain:
    """A checkpoint's folder, its task, its data's folder, and the score."""

    model: Path
    task: str
    data: Path
    score: float


# Checkpoints ----------------------------------------------------------------------------------------------------------


def _rename(how: Callable[[str], str]) -> Callable[[Weights, Settings, str], Weights]:
    return lambda weights, settings, task: {how(name): value for name, value in weights.items()}


def _without(part: str) -> Callable[[Weights, Settings, str], Weights]:
    return lambda weights, settings, task: {name: value for name, value in weights.items() if part not in name}


def _configured(**changes: Any) -> Callable[[Weights, Settings, str], Weights]:
    def change(weights: Weights, settings: Settings, task: str) -> Weights:
        settings.update(changes)
        return weights

    return change


def _swapped(name: str) -> Callable[[Weights, Settings, str], Weights]:
    """The same function with its first two outputs exchanged, and what a configuration may say of them."""

    def change(weights: Weights, settings: Settings, task: str) -> Weights:
        if task == QUESTIONS:
            return weights
        labels = list(TASKS[task].labels)
        order = [1, 0, *range(2, len(labels))]
        last = "classifier.out_proj." if "classifier.out_proj.weight" in weights else "classifier."
        weights |= {key: value[order].contiguous() for key, value in weights.items() if key.startswith(last)}
        names = {str(number): labels[label] for number, label in enumerate(order)}
        plain = {label: number for number, label in enumerate(labels)}
        for key in ("id2label", "label2id"):
            settings.pop(key, None)
        settings |= {
            "id2label": {"id2label": names},
            "upper": {"id2label": {number: label.upper() for number, label in names.items()}},
            "stale": {"id2label": names, "label2id": plain},
            "numbered": {"id2label": {number: f"LABEL_{order[int(number)]}" for number in names}},
            "label2id": {"label2id": {label: int(number) for number, label in names.items()}},
            "both": {"id2label": names, "label2id": {label: int(number) for number, label in names.items()}},
            "unnamed": {"num_labels": len(labels)},
            "other": {"id2label": {number: f"kind {number}" for number in names}},
        }[name]
        return weights

    return change


def _damaged(weights: Weights, settings: Settings, task: str) -> Weights:
    weights[next(name for name in weights if "layer.1" in name)].view(-1)[0] = float("nan")
    return weights


def _half(weights: Weights, settings: Settings, task: str) -> Weights:
    return {name: value.half() for name, value in weights.items()}


CHECKPOINTS: dict[str, Callable[[Weights, Settings, str], Weights]] = {
    "plain": _configured(),
    **{prefix: _rename(lambda key, prefix=prefix: prefix + key) for prefix in ("module.", "model.", "_orig_mod.")},
    "nested": _rename(lambda key: f"module._orig_mod.network.{key}"),
    "unknown prefix": _rename(lambda key: f"net.{key}"),
    "old norms": _rename(lambda key: key.replace("LayerNorm.weight", "LayerNorm.gamma")),
    "no head": _without("classifier"),
    "no answers": _without("qa_outputs"),
    "half a head": _without("classifier.bias"),
    "no layer 1": _without("layer.1."),
    "no words": _without("word_embeddings"),
    **{f"outputs swapped, {name}": _swapped(name) for name in ("id2label", "upper", "stale", "numbered", "label2id")},
    **{f"outputs swapped, {name}": _swapped(name) for name in ("both", "unnamed", "other")},
    "dropout": _configured(hidden_dropout_prob=0.5, dropout=0.5, qa_dropout=0.5, seq_classif_dropout=0.5),
    "pruned heads": _configured(pruned_heads={"1": [0]}),
    "no pruned heads": _configured(pruned_heads={}),
    "one segment": _configured(type_vocab_size=1),
    "few positions": _configured(max_position_embeddings=20),
    "neurons": _configured(intermediate_size=12, hidden_dim=12),
    "one layer less": _configured(num_hidden_layers=1, n_layers=1),
    "one layer more": _configured(num_hidden_layers=3, n_layers=3),
    "architecture": _configured(architectures=None),
    "other architecture": _configured(architectures=["BertForMaskedLM"]),
    "family": _configured(model_type="gpt2"),
    "words": _configured(vocab_size=50),
    "nan": _damaged,
    "half": _half,
}


# Tokenizers -----------------------------------------------------------------------------------------------------------


def _told(**changes: Any) -> Callable[[Path], None]:
    """Changes of `tokenizer_config.json`; None removes a setting."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) | changes
        settings = {name: value for name, value in settings.items() if value is not None}
        path.write_text(json.dumps(settings), encoding="utf-8")

    return change


def _in_file(**changes: Any) -> Callable[[Path], None]:
    """Changes of `tokenizer.json`."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return change


def _keeping_capitals(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    _in_file(normalizer=content["normalizer"] | {"lowercase": False})(folder)
    _told(do_lower_case=False)(folder)


def _longer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = content["model"]["vocab"]
    shifted = {word: number + 1000 * (number > 120) for word, number in words.items()}
    _in_file(model=content["model"] | {"vocab": shifted})(folder)


_CUT = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
_FILL = {"strategy": {"Fixed": 48}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "plain": lambda folder: None,
    "no length": _told(model_max_length=None),
    "short": _told(model_max_length=8),
    "endless": _told(model_max_length=10**30),
    "without segments": _told(model_input_names=["input_ids", "attention_mask"]),
    "with segments": _told(model_input_names=["input_ids", "token_type_ids", "attention_mask"]),
    "left": _told(padding_side="left"),
    "cuts": _in_file(truncation=_CUT),
    "fills": _in_file(padding=_FILL | {"pad_token": "[PAD]"}),
    "capitals": _keeping_capitals,
    "another's": _longer,
    "no file": lambda folder: (folder / "tokenizer.json").unlink(),
}


# Data -----------------------------------------------------------------------------------------------------------------


def _write_tsv(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
    lines = ["\t".join(map(str, row)) for row in [header, *rows]]
    path.with_suffix(".tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_csv(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _write_lines(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
    lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    path.with_suffix(".jsonl").write_text("\n".join(lines), encoding="utf-8")


def _named(how: Callable[[str], str], write: Callable[..., None]) -> Callable[..., None]:
    def change(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
        write(path, header, [[*row[:-1], how(labels[row[-1]])] for row in rows], labels)

    return change


def _write_parquet(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
    """As `datasets` does, with classes in an order of their own."""
    import datasets

    own = [*labels[1:], labels[0]]
    features = datasets.Features(
        {name: datasets.Value("string") for name in header[:-1]} | {header[-1]: datasets.ClassLabel(names=own)}
    )
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    columns[header[-1]] = [own.index(labels[number]) for number in columns[header[-1]]]
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path.with_suffix(".parquet"))


DATA: dict[str, Callable[..., None]] = {
    "tsv": _write_tsv,
    "csv": _write_csv,
    "lines": _write_lines,
    "names": _named(str, _write_csv),
    "upper names": _named(str.upper, _write_lines),
    "numbered names": _named(lambda name: f"kind {name}", _write_tsv),
    "classes": _write_parquet,
}


#: Variants that mean the plain one in other words: refusing them is as wrong as another score.
HARMLESS = {
    *("plain", "module.", "model.", "_orig_mod.", "nested", "old norms", "dropout", "no pruned heads", "half"),
    *(f"outputs swapped, {name}" for name in ("id2label", "upper", "numbered", "label2id", "both")),
    *("no length", "endless", "with segments", "left", "cuts", "fills"),
    *("tsv", "csv", "lines", "names", "upper names", "classes"),
}


def write_table(folder: Path, split: str, task: str, table: Table, how: str) -> None:
    """Write the examples of a split as a file of one of the kinds of `DATA`; labels are GLUE's numbers."""
    description = TASKS[task]
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[*texts, int(label)] for *texts, label in zip(*table.texts, table.labels, strict=True)]
    stem = description.files("train" if split == "train" else "eval")[""].removesuffix(".tsv")
    DATA[how](folder / stem, [*description.sentences, description.label], rows, description.labels)


def write_questions(folder: Path, split: str, content: dict[str, Any], how: str) -> None:
    """SQuAD's JSON, or a line per question as on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    if how in ("tsv", "csv", "names"):
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
        return
    rows = [
        {"id": asked["id"], "title": article["title"], "context": paragraph["context"], "question": asked["question"]}
        | {"answers": {key: [answer[key] for answer in asked["answers"]] for key in ("text", "answer_start")}}
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


# Plain ones -----------------------------------------------------------------------------------------------------------


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


def _module(model: str, task: str, data: Path, **options: Any) -> Any:
    return make_data_module(
        task, model, *data_sources(str(data), task), max_seq_length=64, cache_dir=str(data.parent / "cache"), **options
    )


def _logits(folder: Path, task: str, data: Path) -> Any:
    return predict(load_checkpoint(str(folder), task), _module(str(folder), task, data)).logits["logits"]


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
        module = _module(str(model), task, data)
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
        module = _module(str(model), QUESTIONS, data, doc_stride=16)
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


# Combinations ---------------------------------------------------------------------------------------------------------


def by_pruning(model: str, task: str, data: Path) -> float:
    """The dense score that `splora prune` starts from."""
    more = {"doc_stride": 16} if task == QUESTIONS else {}
    request = PruneRequest(
        "fisher", model, task, str(data), Budget("mac", 0.5), data.parent / "out", samples=4, max_seq_length=64, **more
    )
    subject = pipeline.prepare(request, silent)
    return pipeline.predicted_dense(model, subject, silent).metrics[subject.data.primary_metric]


def by_training(model: str, task: str, data: Path) -> float:
    """The score of a run's base before its first step."""
    module = _module(model, task, data, **({"doc_stride": 16} if task == QUESTIONS else {}))
    base = load_base(model, task, label2id=getattr(module, "label2id", None), dropout=0.0)
    base.eval()
    names = ("input_ids", "token_type_ids", "attention_mask")
    ask(model, lambda batch: base(**{name: batch[name] for name in names if name in batch}), module)
    return predict(base, module).metrics[module.primary_metric]


USES = {"prune": by_pruning, "train": by_training}


def combine(plain: Plain, folder: Path, checkpoint: str, tokenizer: str, data: str) -> Path:
    """Write the variants of a plain checkpoint, its tokenizer and its data."""
    model = folder / "model"
    shutil.copytree(plain.model, model)
    for path in (model, *model.iterdir()):
        path.chmod(0o755)
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    weights = {name: value.clone() for name, value in load_file(model / "model.safetensors").items()}
    weights = CHECKPOINTS[checkpoint](weights, settings, plain.task)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    (model / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    TOKENIZERS[tokenizer](model)
    for split in ("train", "dev" if plain.task == QUESTIONS else "eval"):
        if plain.task == QUESTIONS:
            content = json.loads((plain.data / f"{split}.json").read_text(encoding="utf-8"))
            write_questions(folder / "data", split, copy.deepcopy(content), data)
        else:
            module = _module(str(plain.model), plain.task, plain.data)
            table = module.tables("train" if split == "train" else "eval")[""]
            write_table(folder / "data", split, plain.task, table, data)
    return model


def outcome(plain: Plain, folder: Path, use: str, checkpoint: str, tokenizer: str, data: str) -> tuple[str, str]:
    """`score`, `sentence` or `wrong`, and what was met."""
    model = combine(plain, folder, checkpoint, tokenizer, data)
    try:
        score = USES[use](str(model), plain.task, folder / "data")
    except InputError as error:
        right = len(error.problems) == 1 and "\n" not in str(error) and len(str(error)) < 600
        right = right and not {checkpoint, tokenizer, data} <= HARMLESS
        return ("sentence" if right else "wrong"), str(error).replace(str(folder), "")
    except Exception as error:  # what must not be
        return "wrong", f"{type(error).__name__}: {error}"
    fresh = use == "train" and checkpoint in ("no head", "no answers")
    near = abs(score - plain.score) <= (TOLERANCE if checkpoint == "half" else 1e-6)
    return ("score" if near or fresh else "wrong"), f"{score:.2f}, plain {plain.score:.2f}"


def plain_ones(folder: Path, chosen: list[tuple[str, str]]) -> dict[tuple[str, str], Plain]:
    """Checkpoints and data with their scores, by family and task."""
    made = {}
    for family, task in chosen:
        plain = make_plain(family, task, folder / f"{family}-{task}")
        score = by_pruning(str(plain.model), task, plain.data)
        made[family, task] = Plain(plain.model, task, plain.data, score)
    return made


def real_ones(shared: Path, folder: Path) -> dict[tuple[str, str], Plain]:
    """The real checkpoints and the first of their data."""
    table = _module(str(shared / "models/minilm-sst2"), "sst2", shared / "data/sst2")
    for split, count in (("train", TRAIN), ("eval", EVAL)):
        found: Table = table.tables("train" if split == "train" else "eval")[""]
        write_table(folder / "sst2/data", split, "sst2", found.take(torch.arange(count).numpy()), "tsv")
    for split in ("train", "dev"):
        content = json.loads((shared / f"data/squad/{split}.json").read_text(encoding="utf-8"))
        content["data"] = [content["data"][0] | {"paragraphs": content["data"][0]["paragraphs"][:6]}]
        write_questions(folder / "squad/data", split, content, "tsv")
    made = {}
    for task in ("sst2", "squad"):
        model, data = shared / f"models/minilm-{task}", folder / task / "data"
        made["Bert", task] = Plain(model, task, data, by_pruning(str(model), task, data))
    return made


def trial(number: int, plain: dict[tuple[str, str], Plain], folder: Path, seed: int = 0) -> tuple[str, str, str]:
    """One random combination: what it was, how it ended, and what was met."""
    draw = random.Random(f"{seed}/{number}")
    key = draw.choice(sorted(plain))
    choice = [draw.choice([*kinds]) for kinds in (USES, CHECKPOINTS, TOKENIZERS, DATA)]
    for place in (1, 2, 3):  # most combinations should get far
        if draw.random() < 0.4:
            choice[place] = next(iter((CHECKPOINTS, TOKENIZERS, DATA)[place - 1]))
    with tempfile.TemporaryDirectory(dir=folder) as made:
        ended, met = outcome(plain[key], Path(made), *choice)
    return " · ".join([*key, *choice]), ended, met


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Plain]:
    made = plain_ones(tmp_path_factory.mktemp("plain"), [("Bert", "mnli"), ("DistilBert", "sst2"), ("Bert", "squad")])
    assert all(plain.score > 80 for plain in made.values()), made
    return made


@pytest.mark.parametrize("number", range(24))
def test_a_random_combination(number: int, few: dict[tuple[str, str], Plain], tmp_path: Path) -> None:
    what, ended, met = trial(number, few, tmp_path)
    assert ended in ("score", "sentence"), f"{what}: {met}"


def main() -> None:
    """Try combinations and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path, help="folder of real checkpoints and data")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        chosen = [(family, task) for family in FAMILIES for task in (*GLUE, QUESTIONS)]
        plain = real_ones(options.shared, folder) if options.shared else plain_ones(folder, chosen)
        print({" ".join(key): round(one.score, 2) for key, one in plain.items()}, flush=True)
        counts: Counter[str] = Counter()
        for number in range(options.count):
            what, ended, met = trial(number, plain, folder, options.seed)
            counts[ended] += 1
            if ended == "wrong":
                print(f"{number} {what}: {met}", flush=True)
    print(dict(counts))
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
