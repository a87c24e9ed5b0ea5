"""A tiny encoder and a run specification that trains it in seconds on the embedded questions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splora.training.specification import RunSpecification


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, 32 wide, 2 heads, 64 neurons, with the embedded vocabulary, saved in half precision."""
    import torch
    from transformers import BertModel

    from splora.tasks.embedded.model import embedded_config
    from splora.tasks.embedded.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = embedded_config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config).half().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def few_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty of the embedded evaluation questions, as a file."""
    from splora.tasks.embedded.corpus import corpus

    path = tmp_path_factory.mktemp("questions") / "dev.json"
    path.write_text(json.dumps(corpus("dev", 60)), encoding="utf-8")
    return path


@pytest.fixture
def tiny_spec(tiny_model: Path, few_questions: Path) -> Callable[..., RunSpecification]:
    """Makes specifications of short runs: 6 steps of 4 examples out of 24, unless told otherwise."""

    def make(**changes: Any) -> RunSpecification:
        settings: dict[str, Any] = {
            "exp_id": 1,
            "sheet": "Tiny",
            "model_name_or_path": str(tiny_model),
            "train_file": "embedded",
            "predict_file": str(few_questions) if changes.get("task", "squad") == "squad" else "embedded",
            "max_seq_length": 64,
            "doc_stride": 16,
            "max_train_examples": 24,
            "per_gpu_train_batch_size": 4,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "dropout": 0.0,
            "attention_block_rows": 8,
            "attention_block_cols": 8,
            "ffn_block_rows": 16,
            "ffn_block_cols": 16,
            "num_splopa_prototypes": 4,
            "splopa_init_range": 0.02,
            "splora_rank": 4.0,
            "checkpoint_every_n_steps": 2,
        }
        if changes.get("pruning_method") in ("topK", "topK_global", "magnitude"):
            settings |= {"final_threshold": 0.5, "final_warmup": 1.0, "warmup_steps": 1}
        if changes.get("pruning_method") == "topK_global":
            # A fraction of blocks is a fraction of weights only where all blocks are of one size.
            settings |= {"ffn_block_rows": 8, "ffn_block_cols": 8}
        if changes.get("pruning_method", "none").startswith("sig"):
            settings |= {"initial_threshold": 0.0, "final_threshold": 0.1, "regularization": "l1", "final_lambda": 5.0}
        if changes.get("pruning_method") == "l0":
            settings |= {"mask_scale": 2.197, "regularization": "l0", "final_lambda": 5.0}
        if changes.get("pruning_method", "none") not in ("none", "magnitude"):
            settings["mask_scores_learning_rate"] = 0.1
        return RunSpecification(**(settings | changes))

    return make


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few of the embedded questions."""
    from splora.tasks.embedded.corpus import corpus

    folder = tmp_path_factory.mktemp("data")
    for name, split, count in (("train.json", "train", 60), ("dev.json", "dev", 40)):
        (folder / name).write_text(json.dumps(corpus(split, count)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny question-answering model."""
    import torch
    from transformers import BertForQuestionAnswering

    from splora.tasks.embedded.model import embedded_config
    from splora.tasks.embedded.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("dense")
    torch.manual_seed(0)
    config = embedded_config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertForQuestionAnswering(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def half(pruned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pruned model, stored in half precision."""
    import torch

    from splora.export.folder import load_pruned, save_pruned
    from splora.tasks.hub import load_tokenizer

    folder = tmp_path_factory.mktemp("half")
    save_pruned(load_pruned(pruned), load_tokenizer(str(pruned)), folder, dtype=torch.float16)
    return folder


@pytest.fixture(scope="session")
def pruned(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of it: odd numbers of neurons, and a layer without heads."""
    from splora.export.cut import cut
    from splora.export.folder import load_pruned, save_pruned
    from splora.export.plan import Plan
    from splora.tasks.hub import load_tokenizer

    folder = tmp_path_factory.mktemp("pruned")
    plan = Plan(((1,), ()), (tuple(range(37)), (3, 5, 61)))
    save_pruned(cut(load_pruned(dense), plan), load_tokenizer(str(dense)), folder)
    return folder
