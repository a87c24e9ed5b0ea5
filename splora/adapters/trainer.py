"""The Trainer of transformers, for adapters with masks in training: it resumes where the plain one cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer

from splora.errors import InputError
from splora.files import replacing
from splora.masks.block_mask import BlockMask

#: In a checkpoint's folder, beside the adapter.
STATE = "masks_in_training.safetensors"


class MaskedTrainer(Trainer):
    """A `Trainer` whose checkpoints hold the scores, and what pruned blocks have learned.

    An adapter's file holds neither: it is what the task needs, with the masks of its moment as bits. With the plain
    `Trainer` such an adapter trains and saves as well, but does not go on from a checkpoint.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save and _masks(self.model):
            folder = Path(output_dir if output_dir is not None else self.args.output_dir)
            with replacing(folder / STATE) as beside:
                save_file({name: value.detach().clone() for name, value in _state(self.model).items()}, beside)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        network = self.model if model is None else model
        if not _masks(network):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        _load(network, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if _masks(self.model):
            _load(self.model, Path(str(self.state.best_model_checkpoint)))
        else:
            super()._load_best_model()


def _masks(network: nn.Module) -> dict[str, BlockMask]:
    return {name: module for name, module in network.named_modules() if isinstance(module, BlockMask)}


def _state(network: nn.Module) -> dict[str, Tensor]:
    """All that trains, and the buffers of the masks, by name."""
    state: dict[str, Tensor] = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for name, mask in _masks(network).items():
        state |= {f"{name}.{key}": value for key, value in mask.state_dict().items()}
    return state


def _load(network: nn.Module, folder: Path) -> None:
    """Put the state of a checkpoint back.

    Raises:
        InputError: the checkpoint has none, is damaged, or is of another model.
    """
    path = folder / STATE
    if not path.is_file():
        raise InputError(
            f"{folder}: has no {STATE}: it was written by the plain Trainer, whose checkpoints lack the masks' scores; "
            "start anew with MaskedTrainer of splora.adapters.trainer, or resume without masks in training."
        )
    try:
        saved = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    known = {name: value.shape for name, value in _state(network).items()}
    other = [name for name in {**known, **saved} if name not in saved or known.get(name) != saved[name].shape]
    if other:
        raise InputError(f"{path}: is of another model or other masks: {other[0]} differs, and {len(other) - 1} more.")
    network.load_state_dict(saved, strict=False)
