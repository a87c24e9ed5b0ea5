"""Each folder that this program writes may be where a row starts, and what it learns from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splora.hparams.lineage import check_lineage
from splora.training.preflight import preflight, with_resolved
from splora.training.run import run
from splora.training.specification import RunSpecification

Make = Callable[..., RunSpecification]
Command = Callable[..., tuple[int, str]]
SHORT = ("--task", "squad", "--max_seq_length", 64, "--doc_stride", 16)
FEW = ("held_out=4", "per_gpu_train_batch_size=4", "num_splopa_prototypes=4")


def kept(folder: Path) -> float:
    """MACs that a run or a command left."""
    return float(json.loads((folder / "result.json").read_text())["macs_kept"])


def test_rows_start_from_and_learn_from_every_kind_of_folder(
    command: Command, tiny_spec: Make, dense: Path, tmp_path: Path
) -> None:
    """Folders of prune, heal and export, of rows with adapters and with masks, and `run:ID` of each."""
    from splora.tasks.embedded.corpus import corpus

    data = tmp_path / "data"
    data.mkdir()
    for name, split in (("train.json", "train"), ("dev.json", "dev")):
        (data / name).write_text(json.dumps(corpus(split, 24)), encoding="utf-8")
    pruned, healed, served = (tmp_path / name for name in ("pruned", "healed", "served"))
    samples = ("--data", data, "--num_samples", 24)
    words = ("prune", "stat", "--model", dense, *SHORT, *samples, "--budget", "mac=0.8", "--output", pruned)
    assert command(*words)[0] == 0
    sets = [word for each in FEW for word in ("--set", each)]
    words = ("heal", pruned, *SHORT, "--data", data, "--max_steps", 1, *sets, "--output", healed)
    status, told = command(*words)
    assert status == 0, told
    masks = {"pruning_method": "topK_global", "pruning_units": "heads_and_neurons", "adapter": "splopa"}
    row = tiny_spec(exp_id=7, model_name_or_path=str(healed), **masks, initial_threshold=0.6, final_threshold=0.6)
    run(row, tmp_path / "7")
    assert command("export", tmp_path / "7", "--output", served)[0] == 0

    folders = {name: tmp_path / name for name in ("pruned", "healed", "7", "served")}
    left = {name: kept(folder) for name, folder in folders.items()}
    close = {"rel": 1e-2}  # lengths of texts differ a little, by which MACs are counted
    assert left["healed"] == pytest.approx(left["pruned"], **close)
    assert left["served"] == pytest.approx(left["7"], **close)
    assert 1 > left["healed"] > 1.1 * left["7"]
    for name, folder in folders.items():
        start: dict[str, Any] = {"model_name_or_path": str(folder), "max_steps": 1}
        spec = tiny_spec(**start, teacher_name_or_path=str(folder), alpha_hidden=1.0, adapter="lora")
        assert not preflight(spec), name
        run(spec, tmp_path / f"after {name}")
        assert kept(tmp_path / f"after {name}") == pytest.approx(left[name], **close), name
    # The same row by its number, as a plan of the sheet resolves it.
    named = tiny_spec(exp_id=8, model_name_or_path="run:7", teacher_name_or_path="run:7", max_steps=1)
    assert not check_lineage(named, {"7": row})
    resolved = with_resolved(named, {"7": str(tmp_path / "7" / "model")})
    assert not preflight(resolved)
    run(resolved, tmp_path / "8")
    assert kept(tmp_path / "8") == pytest.approx(left["7"], **close)


@pytest.mark.parametrize("family", ["Roberta", "DistilBert"])
@pytest.mark.parametrize("task", ["mnli", "stsb"])
def test_sentences_of_other_families_heal(command: Command, tmp_path: Path, family: str, task: str) -> None:
    """Pruned and healed with the task's own score, three classes and a regression; by `splora prune --heal`."""
    import transformers

    from splora.tasks.embedded.tokenizer import build_tokenizer

    torch.manual_seed(1)
    tokenizer: Any = build_tokenizer()
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    if family == "DistilBert":
        sizes = {"dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 40}
    labels = {"mnli": ["contradiction", "neutral", "entailment"], "stsb": ["score"]}[task]
    settings = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 128}
    config = getattr(transformers, f"{family}Config")(
        **sizes, **settings, id2label=dict(enumerate(labels)), label2id={name: n for n, name in enumerate(labels)}
    )
    model, output = tmp_path / "model", tmp_path / "healed"
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    words = ("prune", "stat", "--model", model, "--task", task, "--data", _pairs(task, tmp_path / "data"))
    heal = ("--heal", 1, "--max_steps", 2, "--adapter", "lora", "--set", "held_out=6", "--num_samples", 40)
    status, told = command(*words, "--budget", "mac=0.7", *heal, "--max_seq_length", 32, "--output", output)
    assert status == 0, told
    result = json.loads((output / "result.json").read_text())
    assert result["metric"] == {"mnli": "accuracy", "stsb": "pearson"}[task]
    assert result["macs_kept"] < 1
    assert set(result["chosen"]["scores"]) == {"0", "2"}


def _pairs(task: str, folder: Path) -> Path:
    """A folder of a few pairs as CSV files."""
    folder.mkdir()
    labels = {"mnli": ["entailment", "neutral", "contradiction"], "stsb": ["0.5", "4.0", "2.5"]}[task]
    rows = [f"the {n} dogs run,a dog number {n} sleeps,{labels[n % 3]}" for n in range(48)]
    for name in ("train.csv", "dev.csv"):
        (folder / name).write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n", encoding="utf-8")
    return folder
