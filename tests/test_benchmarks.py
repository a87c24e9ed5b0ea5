"""Benchmarks import what there is; the slicing baseline, rotated, says the same, and its operations are counted."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from splora import anatomy
from splora.export.plan import Plan
from splora.posttraining.core.budget import Costs

NAMES = ("OPTForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


@pytest.fixture
def slicegpt(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the benchmark."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    import slicegpt

    yield slicegpt
    sys.modules.pop("slicegpt")


@pytest.fixture
def batches() -> list[dict[str, torch.Tensor]]:
    """Two batches of tokens, the second padded."""
    ids = torch.randint(5, 60, (2, 4, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    return [{"input_ids": ids[number], "attention_mask": mask[number]} for number in range(2)]


def _logits(model: Any, batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(**batch).logits for batch in batches])


def test_benchmarks_import_what_there_is(root: Path) -> None:
    """They run for hours and in no test, so that a name that moved would be noticed by whoever runs them next."""
    missing = [
        f"{path.name}:{node.lineno} {node.module}.{alias.name}"
        for path in sorted((root / "benchmarks").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("splora")
        for alias in node.names
        if not _exists(node.module or "", alias.name)
    ]
    assert not missing


def _exists(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}") is not None


@pytest.mark.parametrize("name", NAMES)
def test_with_nothing_deleted_the_rotated_model_says_the_same(
    name: str, slicegpt: Any, tiny: Any, batches: list[dict[str, torch.Tensor]]
) -> None:
    model = tiny(name)
    rotated = slicegpt.sliced(model, batches, 24)
    assert not torch.allclose(anatomy.layers(rotated)[0].linears["query"].weight[0, :4], torch.zeros(4))
    assert (_logits(rotated, batches) - _logits(model, batches)).abs().max() <= 1e-4


@pytest.mark.parametrize("name", NAMES[:2])
def test_sliced_is_the_dense_model_with_its_signals_projected(
    name: str, slicegpt: Any, tiny: Any, batches: list[dict[str, torch.Tensor]]
) -> None:
    """Deleting components computes what a projection onto the kept ones, between the parts of each layer, computes."""
    from splora.posttraining.core.states import States
    from splora.posttraining.core.sublayers import PARTS

    model = tiny(name)
    small = slicegpt.sliced(model, batches, 9)
    assert {layer.linears["query"].in_features for layer in anatomy.layers(small)} == {9}
    plain = slicegpt.canonical(model).float()
    bases = [basis.float() for basis in slicegpt.principal_bases(plain, batches, 9)]
    states = States(plain, batches)
    with torch.no_grad():
        for number, batch in enumerate(batches):
            order = iter(bases)
            basis = next(order)
            hidden = states[number] @ basis @ basis.T
            for depth, layer in enumerate(anatomy.layers(plain)):
                for part in PARTS:
                    inner = part.inner(layer, hidden, states.call(number, depth))
                    hidden = part.close(layer, hidden, layer.linears[part.role](inner))
                    basis = next(order)
                    hidden = hidden @ basis @ basis.T
            wanted = plain.get_output_embeddings()(slicegpt.Ends.of(plain).norm(hidden))
            torch.testing.assert_close(_logits(small, [batch]), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_macs_are_those_of_pruning(name: str, slicegpt: Any, tiny: Any) -> None:
    model = tiny(name)
    whole = Costs.of(model, 10).of_plan(Plan.dense(model))
    assert slicegpt.macs(model, 10, 24, residuals=False) == whole
    assert slicegpt.macs(model, 10, 24) == whole + 3 * 10 * 2 * 24 * 24
    for part in (0.7, 0.5):
        width = slicegpt.width_of(model, 10, part * whole)
        assert slicegpt.macs(model, 10, width) <= part * whole < slicegpt.macs(model, 10, width + 1)
        assert width < slicegpt.width_of(model, 10, part * whole, residuals=False)
