"""Callbacks: the schedule reaches masks and λ, counts are logged, pictures show masks, lines stand in for a bar."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering

from splora.callbacks import MaskPictures, RunProgressBar, SparsitySchedule, WeightCount
from splora.masks import lambda_at, threshold_at
from splora.training.counting import count_weights, effective_weight
from splora.training.model import prepare
from splora.training.options import AdapterOptions, OptimizerOptions, PruningOptions

TINY = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


class FakeModule:
    """What callbacks see of a module: it records what is set and logged."""

    def __init__(self, **attributes: Any) -> None:
        self.logged: dict[str, float] = {}
        self.thresholds: list[float] = []
        self.penalty_weight = -1.0
        self.__dict__.update(attributes)

    def log(self, name: str, value: float, **_: Any) -> None:
        """Record a logged value."""
        self.logged[name] = float(value)

    def set_threshold(self, threshold: float) -> None:
        """Record the threshold."""
        self.thresholds.append(threshold)

    def end_of_schedule(self) -> None:
        """Record that the threshold is final."""
        self.logged["over"] = 1.0


def test_the_schedule_sets_and_logs_threshold_and_lambda() -> None:
    options = OptimizerOptions(warmup_steps=10, schedule_total_steps=200)
    schedule = SparsitySchedule(0.0, 0.1, 1.0, 2.0, final_lambda=50.0)
    module = FakeModule(optimizer_options=options)
    for step in (0, 5, 6, 50, 89, 90, 99):
        trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=100)
        schedule.on_train_batch_start(trainer, module, None, 0)  # type: ignore[arg-type]
        wanted = threshold_at(step, 100, 0.0, 0.1, 5, 1.0, 2.0)  # 10 steps of 200 are 5 of 100
        assert module.thresholds[-1] == wanted == module.logged["threshold"]
        assert module.penalty_weight == lambda_at(wanted, 0.1, 50.0) == module.logged["lambda"]
        assert ("over" in module.logged) == (step >= 90)  # final for twice 5 of 100 steps
    assert module.thresholds[0] == 0.0
    assert module.thresholds[-1] == 0.1
    assert module.penalty_weight == pytest.approx(50.0)


def _masked(adapter: str) -> Any:
    torch.manual_seed(0)
    base = BertForQuestionAnswering(BertConfig(**TINY))
    pruning = PruningOptions(
        method="topK", mask_init="uniform", mask_scale=1.0, attention_block=(8, 8), ffn_block=(8, 8)
    )
    network, masks = prepare(base, AdapterOptions(kind=adapter, num_prototypes=2), pruning)
    for mask in masks:
        mask.set_threshold(0.25)
    return network, masks


@pytest.mark.parametrize("adapter", ["none", "splopa"])
def test_pictures_have_a_panel_per_matrix_and_heads_parted(tmp_path: Path, adapter: str) -> None:
    network, masks = _masked(adapter)
    files = MaskPictures().draw(network, tmp_path)
    assert [path.name for path in files] == ["layer_00.png", "layer_01.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
    assert len(masks) == 12


def test_a_picture_is_drawn_again_when_something_changed_or_it_is_gone(tmp_path: Path) -> None:
    network, masks = _masked("none")
    pictures = MaskPictures()
    first, second = pictures.draw(network, tmp_path)
    before = first.read_bytes()
    first.write_bytes(b"")
    second.unlink()
    assert pictures.draw(network, tmp_path) == [first, second]
    assert first.read_bytes() == b""
    assert second.is_file()
    for mask in masks:
        mask.set_threshold(0.5)
    pictures.draw(network, tmp_path)
    assert first.read_bytes() not in (b"", before)


def test_a_panel_shows_the_mask_and_the_boundaries_of_heads() -> None:
    from splora import anatomy
    from splora.callbacks.mask_pictures import SIZE, Matrix, corner, picture
    from splora.masks import masked_layers

    network, _ = _masked("none")
    layers = masked_layers(network)
    places = anatomy.encoder_linears(network)
    for role, lines in (("query", (1, 0)), ("attention_output", (0, 1)), ("ffn_in", (0, 0))):
        name = next(name for name, place in places.items() if place.role == role)
        matrix = Matrix.of(layers[name])
        assert matrix.kept == 0.25
        # The second of two panels: its place is part of what is shown.
        drawn = picture(1, {"another": matrix, role: matrix}, head_size=8)
        left, top = corner(1)
        panel = np.asarray(drawn)[top : top + SIZE[1], left : left + SIZE[0]].astype(int)
        # Pixels in the middle of the blocks, beside where a line may be.
        rows, cols = (
            (np.arange(n) + 0.4) * size / n for n, size in zip(matrix.strength.shape, SIZE[::-1], strict=True)
        )
        shown = panel[np.ix_(rows.astype(int), cols.astype(int))]
        assert np.array_equal(shown[..., 0] < 255, layers[name].binary_mask().numpy())
        np.testing.assert_allclose(shown[..., 0], 255 * (1 - matrix.strength / matrix.strength.max()), atol=0.51)
        red = (panel == (255, 0, 0)).all(axis=2)
        assert (red.all(axis=1).sum(), red.all(axis=0).sum()) == lines, role


def test_counts_are_logged_at_validation() -> None:
    network, _ = _masked("splopa")
    module = FakeModule(weight_counts=lambda: count_weights(network))
    WeightCount().on_validation_epoch_end(SimpleNamespace(), module)  # type: ignore[arg-type]
    weights = [
        effective_weight(network.get_submodule(name)) for name, m in network.named_modules() if hasattr(m, "where")
    ]
    nonzero = sum(int(weight.count_nonzero()) for weight in weights)
    assert module.logged["remaining_weights_percent"] == 100 * nonzero / sum(weight.numel() for weight in weights) == 25
    assert 0 < module.logged["learned_weights_percent"] < 100


def test_without_a_terminal_progress_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    bar = RunProgressBar()
    assert bar.is_disabled
    metrics = {"loss": torch.tensor(0.5), "threshold": torch.tensor(0.25)}
    trainer: Any = SimpleNamespace(
        is_global_zero=True, training=True, progress_bar_metrics=metrics, global_step=3, estimated_stepping_batches=9
    )
    bar.tell(trainer)
    assert capsys.readouterr().out == "step 3 of 9  loss 0.5  threshold 0.25\n"
