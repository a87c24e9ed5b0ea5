"""Decompositions from Gram matrices of a model's activations against SciPy's pivoted QR of the activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from splora import anatomy
from splora.posttraining.core.layer_grams import layer_grams
from splora.posttraining.core.precision import Precision
from splora.posttraining.stat.interpolative import combine, expand, group_gram, pivoted_cholesky

FAMILIES = ["BertForSequenceClassification", "DistilBertForQuestionAnswering", "OPTForCausalLM"]
ROLES = {"heads": "attention_output", "neurons": "ffn_out"}
Floats = npt.NDArray[np.float64]


def batches(model: Any) -> list[dict[str, Tensor]]:
    """Three batches of different widths, with padding."""
    generator, found = torch.Generator().manual_seed(3), []
    for width in (12, 9, 5):
        ids = torch.randint(5, 60, (30, width), generator=generator)
        mask = torch.ones_like(ids)
        ids[1::3, width - 2 :], mask[1::3, width - 2 :] = model.config.pad_token_id, 0
        found.append({"input_ids": ids, "attention_mask": mask})
    return found


def stacked(model: Any, samples: list[dict[str, Tensor]]) -> list[dict[str, Floats]]:
    """What met the two output projections of each layer in the model's own forward passes, without padding."""
    rows: list[dict[str, list[Tensor]]] = [{part: [] for part in ROLES} for _ in anatomy.layers(model)]
    keep = torch.empty(0)

    def keeper(kept: list[Tensor]) -> Any:
        def see(_: nn.Module, arguments: tuple[Tensor]) -> None:
            # OPT's feed-forward part may have tokens in a row.
            kept.append(arguments[0].reshape(*keep.shape, -1)[keep].double())

        return see

    handles = [
        layer.linears[role].register_forward_pre_hook(keeper(rows[number][part]))
        for number, layer in enumerate(anatomy.layers(model))
        for part, role in ROLES.items()
    ]
    with torch.no_grad():
        for batch in samples:
            keep = batch["attention_mask"].bool()
            model(**batch)
    for handle in handles:
        handle.remove()
    return [{part: torch.cat(kept).numpy() for part, kept in by_part.items()} for by_part in rows]


def pivoted_qr(matrix: Floats) -> tuple[Floats, list[int], int]:
    """|diag R|, pivots, and how many of them lead clearly: the next best column is shorter by more than rounding."""
    triangle, pivots = scipy.linalg.qr(matrix, pivoting=True, mode="r")
    columns = matrix.shape[1]
    triangle = triangle[:columns]
    clear = 0
    while clear < columns:
        left = np.linalg.norm(triangle[clear:, clear:], axis=0)
        if left[1:].max(initial=0.0) > (1 - 1e-4) * left[0]:
            break
        clear += 1
    return np.abs(triangle.diagonal()), pivots.tolist(), clear


def combinations(matrix: Floats, kept: Tensor, removed: Tensor) -> Tensor:
    """T of A[:, removed] ≈ A[:, kept] T, from the factorization with the kept columns in front."""
    triangle = scipy.linalg.qr(matrix[:, [*kept.tolist(), *removed.tolist()]], mode="r")[0]
    count = len(kept)
    return torch.from_numpy(scipy.linalg.solve_triangular(triangle[:count, :count], triangle[:count, count:]))


@pytest.mark.parametrize("name", FAMILIES)
def test_neurons_are_decomposed_as_by_the_pivoted_qr_of_scaled_activations(tiny: Any, name: str) -> None:
    model = tiny(name)
    samples = batches(model)
    agreed = 0
    gathered = layer_grams(model, samples, precision=Precision("fp32"))
    for found, activations in zip(gathered, stacked(model, samples), strict=True):
        norms = found.layer.linears["ffn_out"].weight.detach().double().norm(dim=0)
        gram, rows = found.grams["neurons"], activations["neurons"]
        ours = pivoted_cholesky(gram.matrix, gram.tolerance, norms)
        diagonal, pivots, clear = pivoted_qr(rows * norms.numpy())
        assert ours.rank == rows.shape[1]
        np.testing.assert_allclose(ours.residuals.numpy(), diagonal, rtol=1e-3)
        assert ours.order[:clear].tolist() == pivots[:clear]
        agreed += clear
        kept, removed = ours.order[:12], ours.order[12:]
        # Scaling decides what stays; what stays is combined as it is.
        solved = combine(gram.matrix, kept, removed, gram.tolerance).weights
        torch.testing.assert_close(solved, combinations(rows, kept, removed), rtol=1e-3, atol=1e-4)
    assert agreed >= 50  # of 60


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_are_decomposed_as_by_the_pivoted_qr_of_long_columns(tiny: Any, name: str) -> None:
    model = tiny(name)
    samples = batches(model)
    gathered = layer_grams(model, samples, precision=Precision("fp32"))
    for found, activations in zip(gathered, stacked(model, samples), strict=True):
        size, gram, contexts = found.layer.head_size, found.grams["heads"], activations["heads"]
        ours = pivoted_cholesky(group_gram(gram.matrix, size))
        columns = contexts.reshape(len(contexts), -1, size).transpose(0, 2, 1).reshape(-1, found.layer.heads)
        diagonal, pivots, clear = pivoted_qr(columns)
        np.testing.assert_allclose(ours.residuals.numpy(), diagonal, rtol=1e-3)
        assert clear == found.layer.heads
        assert ours.order.tolist() == pivots
        kept, removed = expand(ours.order[:2], size), expand(ours.order[2:], size)
        solved = combine(gram.matrix, kept, removed, gram.tolerance).weights
        torch.testing.assert_close(solved, combinations(contexts, kept, removed), rtol=1e-3, atol=1e-3)
