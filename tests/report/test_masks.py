"""Masks are read from saved weights as the model itself has them, without torch and without reading it all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from splora import anatomy
from splora.adapters import MaskedAdapterLayer, SPLoPAConfig, SPLoRAConfig, attach_block_masks
from splora.masks import fold, mask_linears
from splora.report.bitmap import png
from splora.report.heatmap import density_map, describe, draw_blocks
from splora.report.masks import EMBEDDED_HEAD_SIZE, Masks, head_densities, read_masks
from splora.report.weights_file import weights_file
from splora.tasks.embedded.model import embedded_config
from splora.training.counting import effective_weight

ATTENTION = (6, 3)
Tiny = Any


def _targets(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Blocks of 6 × 3 in attention weights and of 4 × 4 in the others, which are 20 × 24 and 24 × 20."""
    places = anatomy.encoder_linears(model)
    return {name: ATTENTION if place.in_attention else (4, 4) for name, place in places.items()}


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert"])
@pytest.mark.parametrize("kind", ["splopa", "splora"])
def test_the_masks_of_an_adapter_are_read(tiny: Tiny, tmp_path: Path, family: str, kind: str) -> None:
    base = tiny(f"{family}ForQuestionAnswering")
    base.config.save_pretrained(tmp_path / "base")
    shapes = _targets(base)
    options: dict[str, Any] = {"block_shape": (1, 1), "block_shapes": shapes, "target_modules": list(shapes)}
    options |= {"modules_to_save": [*anatomy.norm_names(base)], "bias": "all", "task_type": "QUESTION_ANS"}
    config = SPLoPAConfig(num_prototypes=2, **options) if kind == "splopa" else SPLoRAConfig(rank=2, **options)
    model = get_peft_model(base, config)
    for mask in attach_block_masks(model, "topK", "uniform", 0.1):
        mask.set_threshold(0.4)
    model.eval().save_pretrained(str(tmp_path / "run" / "adapter"))
    expected = {
        (place.layer, place.role): layer.binary_mask("default").numpy()
        for name, place in anatomy.encoder_linears(model).items()
        if isinstance(layer := model.get_submodule(name), MaskedAdapterLayer)
    }
    masks = read_masks(tmp_path / "run", None, str(tmp_path / "base"))
    assert masks is not None
    assert masks.head_size == 6
    assert [(matrix.layer, matrix.role) for matrix in masks.matrices] == [
        (layer, role) for layer in range(3) for role in anatomy.FAMILIES["bert"].linears
    ]
    for matrix in masks.matrices:
        assert np.array_equal(matrix.kept, expected[matrix.layer, matrix.role])
    from_above = read_masks(tmp_path / "run", None, "base")
    assert from_above is not None
    assert from_above.head_size == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_zeros_of_a_model_are_read(tiny: Tiny, tmp_path: Path, dtype: torch.dtype) -> None:
    model = tiny("BertForQuestionAnswering")
    # 6 × 12 and 4 × 24 or 4 × 20: blocks of at least 64 weights.
    places = anatomy.encoder_linears(model)
    targets = {
        name: (6, 12) if place.in_attention else (4, 20 if place.role == "ffn_out" else 24)
        for name, place in places.items()
    }
    for mask in mask_linears(model, targets, "topK", "uniform", 0.1):
        mask.set_threshold(0.5)
    folded = fold(model).to(dtype)
    folded.save_pretrained(tmp_path / "model")
    folded_weights = {places[name]: effective_weight(folded.get_submodule(name)).float() for name in targets}
    masks = read_masks(tmp_path, ((6, 12), (4, 4)), "elsewhere")
    assert masks is not None
    assert masks.head_size == 6
    for matrix in masks.matrices:
        if matrix.role in anatomy.ATTENTION_ROLES:
            weight = folded_weights[anatomy.Place(matrix.layer, matrix.role)]
            kept = weight.reshape(4, 6, 2, 12).abs().sum((1, 3)) > 0
            assert np.array_equal(matrix.kept, kept.numpy())
            assert 0 < matrix.density < 1


def test_single_weights_are_shown_by_cells(tmp_path: Path) -> None:
    weight = torch.zeros(64, 96)
    weight[:32, :32] = -1.0
    weight[32:, 32:64] = torch.arange(32).remainder(2).float()
    weight[0, 95] = -0.0
    (tmp_path / "model").mkdir()
    save_file({"bert.encoder.layer.0.attention.self.query.weight": weight}, tmp_path / "model" / "model.safetensors")
    masks = read_masks(tmp_path, ((1, 1), (1, 1)), "")
    assert masks is not None
    assert masks.head_size is None
    assert masks.matrices[0].kept.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]]


def test_densities_of_heads_are_shares_of_their_weights(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("BertForQuestionAnswering")
    with torch.no_grad():
        for name, place in anatomy.encoder_linears(model).items():
            if place.in_attention:
                weight: Tensor = model.get_submodule(name).weight
                mask = torch.rand(4, 2, generator=torch.Generator().manual_seed(place.layer)) < 0.5
                weight.mul_(mask.repeat_interleave(6, 0).repeat_interleave(12, 1))
    model.save_pretrained(tmp_path / "model")
    masks = read_masks(tmp_path, ((6, 12), (1, 1)), "")
    assert masks is not None
    for number, matrices in enumerate(masks.by_layer):
        parts = []
        for role in anatomy.ATTENTION_ROLES:
            weight = anatomy.layers(model)[number].linears[role].weight
            kept = (weight != 0).float()
            rows = kept.T if role == "attention_output" else kept
            parts.append(rows.reshape(4, 6, 24).mean((1, 2)))
        naive = torch.stack(parts).mean(0)
        assert head_densities(matrices, 6) == pytest.approx(naive.numpy(), abs=1e-6)


BROKEN: list[tuple[bytes, str]] = [
    (b"", "cannot be read|empty|mmap"),
    (b"\xff" * 40, "ends within its heading"),
    (b"\x10" + bytes(7) + b"not json at all!", "Expecting value"),
]


@pytest.mark.parametrize(("content", "told"), BROKEN)
def test_damaged_weights_are_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_masks(tmp_path, None, "")


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "model.safetensors"
    save_file({"bert.encoder.layer.0.attention.self.query.weight": torch.ones(64, 64)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="ends before bert"):
        read_masks(tmp_path, None, "")
    with weights_file(path) as weights:
        assert weights.shape(weights.names()[0]) == (64, 64)


def test_a_run_without_weights_has_no_masks(tmp_path: Path) -> None:
    assert read_masks(tmp_path, None, "") is None


def test_the_embedded_model_has_the_heads_that_the_report_thinks() -> None:
    config = embedded_config()
    assert config.hidden_size // config.num_attention_heads == EMBEDDED_HEAD_SIZE


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 16), (2, 33)])
@pytest.mark.parametrize("levels", [2, 16])
def test_pictures_hold_the_values(shape: tuple[int, int], levels: int, tmp_path: Path) -> None:
    from matplotlib.image import imread

    generator = np.random.default_rng(0)
    shares = generator.integers(0, levels, shape) / (levels - 1)
    (tmp_path / "x.png").write_bytes(png(shares))
    found = imread(tmp_path / "x.png")
    assert found.shape == (*shape, 4)
    assert found[..., :3].max() == 0
    assert found[..., 3] == pytest.approx(shares, abs=1 / 255)


def test_heat_maps_say_what_they_show(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("BertForQuestionAnswering")
    with torch.no_grad():
        anatomy.layers(model)[1].linears["query"].weight.zero_()
    model.save_pretrained(tmp_path / "model")
    masks = read_masks(tmp_path, ((6, 12), (1, 1)), "")
    assert masks is not None
    found = density_map(masks)
    assert found.shares.shape == (3, 4 + 6)
    assert "layer 1 keeps least (83 %)" in describe(found)
    picture = draw_blocks(masks, "x", "title")
    assert picture is not None
    assert picture.count("<image") == 6
    assert picture.count('class="heads"') == 4
    layers = masks.by_layer
    odd = Masks((*layers[0], *layers[1][:5]), None)
    assert draw_blocks(odd, "x", "title") is None
    assert json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["num_attention_heads"] == 4
