"""Random combinations of checkpoint, tokenizer and data variants end in the plain one's score or in one sentence.

    python tests/variants/test_variants.py --count 200 [--seed 0] [--shared ../shared]

The tiny models are random; what they predict is written into their data as the answers, so that they are good at them.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from variant_checkpoints import CHECKPOINTS, QUESTIONS
from variant_data import DATA, HARMLESS, write_questions, write_table
from variant_models import EVAL, FAMILIES, GLUE, TOLERANCE, TRAIN, Plain, make_plain, module_of
from variant_tokenizers import TOKENIZERS

from splora.errors import InputError
from splora.posttraining import pipeline
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.evaluation import predict
from splora.posttraining.core.request import PruneRequest
from splora.posttraining.core.stages import silent
from splora.tasks.glue_tables import Table
from splora.training.model import load_base
from splora.training.sense import ask


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
    module = module_of(model, task, data, **({"doc_stride": 16} if task == QUESTIONS else {}))
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
            module = module_of(str(plain.model), plain.task, plain.data)
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
    table = module_of(str(shared / "models/minilm-sst2"), "sst2", shared / "data/sst2")
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
