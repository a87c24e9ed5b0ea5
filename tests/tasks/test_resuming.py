"""A real Trainer that is stopped in mid-epoch and resumed sees the batches of one that was not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from splora.errors import InputError
from splora.tasks.data_module import FeatureSet, Ragged, Split, TaskDataModule, TaskResult
from splora.tasks.sampler import GlobalBatchSampler, ResumableDataLoader

pytestmark = [
    # Lightning's own use of a torch name that is about to go.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning"),
    # A resumed run does write where the first one wrote.
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]

STEPS_PER_EPOCH = 7


class Numbers(TaskDataModule):
    """30 rows in batches of 4: 7 steps per epoch, two rows left over."""

    task = "numbers"
    primary_metric = "score"

    def prepare(self, split: Split) -> FeatureSet:
        rows = Ragged.from_rows([[1] * (1 + i % 5) for i in range(30)])
        return FeatureSet({"input_ids": rows}, rows.lengths)

    def evaluate(self, outputs: dict[str, Any]) -> TaskResult:
        return TaskResult({"score": 100.0})

    @property
    def config(self) -> Any:
        return SimpleNamespace(model_type="bert", vocab_size=10, max_position_embeddings=512, pad_token_id=0)

    @property
    def tokenizer(self) -> Any:
        return type("Tokenizer", (), {"pad_token_id": 0, "model_max_length": 512})()


class Killed(BaseException):
    """Ends a run from inside, as a kill would."""


class Recorder(LightningModule):
    """Writes down what it trains on."""

    def __init__(self, killed_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.killed_at = killed_at
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.global_step == self.killed_at:
            raise Killed
        self.seen.append((self.current_epoch, batch["index"].tolist()))
        return self.weight * batch["input_ids"].float().mean()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(
    folder: Path, every: int, killed_at: int | None = None, resume: Path | None = None, workers: int = 0, **options: Any
) -> Recorder:
    checkpoints = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=every, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        logger=False,
        callbacks=[checkpoints],
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    model = Recorder(killed_at)
    data = Numbers("-", "-", "-", train_batch_size=4, eval_batch_size=8, num_workers=workers)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    except Killed:
        assert killed_at is not None
    return model


def assert_same_after(folder: Path, whole: Recorder, every: int, killed_at: int, **options: Any) -> None:
    first = run(folder, every, killed_at, **options)
    saved = killed_at // every * every
    assert first.seen == whole.seen[:killed_at]
    second = run(folder, every, resume=folder / f"step={saved}.ckpt", **options)
    assert second.seen == whole.seen[saved:]


@pytest.mark.parametrize(("every", "killed_at"), [(1, 1), (2, 5), (3, 7), (3, 11), (7, 8), (7, 15), (5, 20), (1, 14)])
def test_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path: Path, every: int, killed_at: int) -> None:
    whole = run(tmp_path / "whole", 100)
    assert len(whole.seen) == 3 * STEPS_PER_EPOCH
    assert [epoch for epoch, _ in whole.seen] == sorted(epoch for epoch, _ in whole.seen)
    assert_same_after(tmp_path / "cut", whole, every, killed_at)


def test_with_workers_only_batches_handed_out_count(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 100)
    assert_same_after(tmp_path / "cut", whole, 2, 11, workers=2)


def test_with_validation_inside_the_epoch(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 100, val_check_interval=3)
    assert_same_after(tmp_path / "cut", whole, 4, 13, val_check_interval=3)


def test_epochs_that_are_cut_short_resume_too(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 100, limit_train_batches=4)
    assert len(whole.seen) == 12
    assert_same_after(tmp_path / "a", whole, 4, 5, limit_train_batches=4)
    assert_same_after(tmp_path / "b", whole, 3, 7, limit_train_batches=4)


def test_a_batch_in_training_does_not_count(tmp_path: Path) -> None:
    """The state is asked for from inside a step: that step's batch comes again."""
    states: list[dict[str, Any]] = []

    class Asking(Recorder):
        def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
            assert self.trainer.fit_loop._combined_loader is not None
            states.extend(self.trainer.fit_loop._combined_loader._state_dicts())
            return super().training_step(batch, batch_idx)

    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=9, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(Asking(), datamodule=Numbers("-", "-", "-", train_batch_size=4))
    assert [(state["epoch"], state["batches"]) for state in states] == [*((0, i) for i in range(7)), (1, 0), (1, 1)]


def test_predicting_and_testing_see_every_row_once(tmp_path: Path) -> None:
    class Predicting(Recorder):
        def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
            return batch["index"]

    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    batches = trainer.predict(Predicting(), datamodule=Numbers("-", eval_batch_size=8))
    assert batches is not None
    assert torch.cat(batches).sort().values.tolist() == list(range(30))  # type: ignore[arg-type]


def loader(batch_size: int = 4, world_size: int = 1) -> ResumableDataLoader:
    sampler = GlobalBatchSampler(np.ones(30), batch_size, world_size, shuffle=True)
    return ResumableDataLoader(30, sampler, lambda rows: {"index": torch.tensor(rows)})


def test_state_without_a_trainer() -> None:
    whole, cut, resumed = loader(), loader(), loader()
    everything = [batch["index"].tolist() for batch in whole]
    iterator = iter(cut)
    before = [next(iterator)["index"].tolist() for _ in range(3)]
    state = cut.state_dict()
    assert state == {"epoch": 0, "batches": 3, "global_batch_size": 4}
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert len(resumed) == 7
    assert before + [batch["index"].tolist() for batch in resumed] == everything
    resumed.sampler.set_epoch(1)
    whole.sampler.set_epoch(1)
    assert [b["index"].tolist() for b in resumed] == [b["index"].tolist() for b in whole]


def test_a_finished_epoch_resumes_at_the_next() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 0, "batches": 7, "global_batch_size": 4})
    assert resumed.state_dict()["epoch"] == 1
    assert len(list(resumed)) == 7


def test_resuming_with_other_batches_is_refused_and_with_other_ranks_is_not() -> None:
    state = {"epoch": 0, "batches": 2, "global_batch_size": 4}
    loader(batch_size=2, world_size=2).load_state_dict(state)
    with pytest.raises(InputError, match="4 examples per step over all processes, now there are 8"):
        loader(batch_size=8).load_state_dict(state)


def test_subset_is_seeded_and_sorted() -> None:
    data = Numbers("-", max_train_examples=5, seed=1)
    subset = data.training_subset(30)
    assert subset.tolist() == sorted(set(subset.tolist()))
    assert len(subset) == 5
    assert data.training_subset(30).tolist() == subset.tolist()
    assert Numbers("-", max_train_examples=5, seed=2).training_subset(30).tolist() != subset.tolist()
    assert Numbers("-", max_train_examples=50).training_subset(30).tolist() == list(range(30))


def test_steps_per_epoch_counts_what_the_loader_gives() -> None:
    data = Numbers("-", train_batch_size=4)
    assert data.steps_per_epoch(1) == len(data.train_dataloader()) == 7
    assert data.steps_per_epoch(2) == 3


def test_a_split_is_prepared_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    data, prepared = Numbers("-"), []
    prepare = data.prepare
    monkeypatch.setattr(data, "prepare", lambda split: prepared.append(split) or prepare(split))
    data.setup("validate")
    assert prepared == ["eval"]
    data.prepare_data()
    data.setup("fit")
    assert prepared == ["eval", "train"]


def test_empty_data_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data, nothing = Numbers("-"), Ragged.from_rows([])
    monkeypatch.setattr(data, "prepare", lambda split: FeatureSet({"input_ids": nothing}, nothing.lengths))
    with pytest.raises(InputError, match=r"training data of numbers \(--train-file\) hold no example"):
        data.setup("fit")
