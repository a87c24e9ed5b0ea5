"""Losses of texts: hidden states may be made in bf16, what is read off them is not rounded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from splora.posttraining.core import text_evaluation
from splora.posttraining.core.precision import Precision
from splora.tasks.language_modelling import TextDataModule

BF16 = Precision("bf16")


@pytest.fixture
def windows() -> Any:
    """What the functions look at of a data module."""
    ids = np.random.default_rng(1).integers(5, 60, (6, 12))
    features = SimpleNamespace(columns={"input_ids": ids.astype(np.int32)})
    return cast(TextDataModule, SimpleNamespace(features=lambda split: features, width=12))


def exact(model: Any, windows: Any) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all tokens in fp64, from hidden states made in bf16; and the tokens that come."""
    ids = torch.from_numpy(windows.features("eval").columns["input_ids"]).long()
    with torch.no_grad():
        with BF16.forward(ids.device):
            hidden = model.base_model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, :-1]
        logits = hidden.double() @ model.get_output_embeddings().weight.double().T
    return logits.log_softmax(-1), ids[:, 1:]


@pytest.mark.parametrize("changes", [{}, {"word_embed_proj_dim": 12}])
def test_logits_are_not_rounded_to_bf16(tiny: Any, windows: Any, changes: dict[str, int]) -> None:
    model = tiny("OPTForCausalLM", **changes)
    found = text_evaluation.text_losses(model, windows, BF16)
    wanted = F.nll_loss(*(part.flatten(0, 1) for part in exact(model, windows)), reduction="none").view(6, -1).sum(1)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)


def test_nor_are_those_that_two_models_are_compared_by(tiny: Any, windows: Any) -> None:
    model, other = tiny("OPTForCausalLM"), tiny("OPTForCausalLM")
    with torch.no_grad():
        other.model.decoder.layers[0].fc1.weight.mul_(0.98)
    found = text_evaluation.text_divergence(model, other, windows, BF16)
    dense, changed = (exact(each, windows)[0].flatten(0, 1) for each in (model, other))
    assert found == pytest.approx(float(F.kl_div(changed, dense, reduction="batchmean", log_target=True)), rel=1e-3)
