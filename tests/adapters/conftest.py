"""Tiny random models with either adapter, for the tests that both must pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering

from splora.adapters import SPLoPAConfig, SPLoRAConfig, attach_block_masks
from splora.masks.block_mask import update_global_cutoffs

METHODS = ("splopa", "splora")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """PEFT 0.21 reads an attribute that transformers 5 has renamed."""
    ignored = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(ignored)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """Each of the two adapters in turn."""
    name: str = request.param
    return name


@pytest.fixture
def config_of() -> Callable[..., Any]:
    """Settings of an adapter of all layers of the tiny BERT: blocks of 8 × 8, or whole channels for SPLoRA."""

    def make(method: str, **changes: Any) -> Any:
        common: dict[str, Any] = {
            "target_modules": ["query", "key", "value", "dense"],
            "task_type": "QUESTION_ANS",
            "bias": "all",
        }
        if method == "splopa":
            own = {"num_prototypes": 4, "prototype_rank": 2, "block_shape": (8, 8), "init_range": 0.05}
            return SPLoPAConfig(**(common | own | changes))
        own = {"rank": 2, "block_shape": (1, 16), "block_shapes": {"output.dense": (16, 1)}, "init_range": 0.1}
        own["block_shapes"]["intermediate.dense"] = (8, 16)
        return SPLoRAConfig(**(common | own | changes))

    return make


@pytest.fixture(scope="session")
def _pretrained() -> BertForQuestionAnswering:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=40, intermediate_size=32, max_position_embeddings=16, **sizes)
    return BertForQuestionAnswering(config).eval()


@pytest.fixture
def bert(_pretrained: BertForQuestionAnswering) -> Callable[[], BertForQuestionAnswering]:
    """A fresh copy of one and the same tiny random BERT."""
    return lambda: copy.deepcopy(_pretrained)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 40, (3, 12), generator=generator)
    return {"input_ids": ids, "start_positions": torch.tensor([1, 2, 0]), "end_positions": torch.tensor([3, 5, 0])}


@pytest.fixture
def train(batch: dict[str, Tensor]) -> Callable[..., None]:
    """A few steps on the one batch."""

    def steps(model: nn.Module, count: int = 3, rate: float = 0.03) -> None:
        model.train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
        for _ in range(count):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
        model.eval()

    return steps


@pytest.fixture
def logits(batch: dict[str, Tensor]) -> Callable[[nn.Module], Tensor]:
    """Start and end logits of the one batch, dropout off."""

    @torch.no_grad()
    def run(model: nn.Module) -> Tensor:
        output = model.eval()(input_ids=batch["input_ids"])
        return torch.stack([output.start_logits, output.end_logits])

    return run


@pytest.fixture
def trained(bert: Any, config_of: Any, train: Any) -> Callable[..., PeftModel]:
    """A model whose adapter has learned a little under movement masks that keep `density` of the blocks."""

    def make(
        method: str, density: float = 0.5, pruning: str = "topK", name: str = "default", **changes: Any
    ) -> PeftModel:
        model = get_peft_model(bert(), config_of(method, **changes), adapter_name=name)
        masks = attach_block_masks(model, pruning, "uniform", 0.1, name)
        for mask in masks:
            mask.set_threshold(density)
        update_global_cutoffs(masks)
        train(model)
        update_global_cutoffs(masks)
        return model

    return make
