"""Which heads and neurons of each layer stay: what every post-training method decides, and what export cuts by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.errors import InputError, cut
from splora.files import replacing, write_json
from splora.json_values import read_object


@dataclass(frozen=True)
class Plan:
    """Numbers of the heads and neurons that stay, ascending, by layer; a layer may keep none of either."""

    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]

    @classmethod
    def dense(cls, model: nn.Module) -> Plan:
        """All heads and neurons that `model` has."""
        layers = anatomy.layers(model)
        return cls(
            tuple(tuple(range(layer.heads)) for layer in layers),
            tuple(tuple(range(layer.neurons)) for layer in layers),
        )

    @classmethod
    def from_masks(cls, heads: Sequence[Tensor], neurons: Sequence[Tensor]) -> Plan:
        """What is non-zero in the masks, one of shape (heads,) and one of shape (neurons,) per layer."""
        return cls(_kept(heads), _kept(neurons))

    @property
    def head_counts(self) -> list[int]:
        """Heads kept in each layer."""
        return [len(kept) for kept in self.heads]

    @property
    def neuron_counts(self) -> list[int]:
        """Neurons kept in each layer."""
        return [len(kept) for kept in self.neurons]

    def masks(self, dense: Plan) -> dict[str, Tensor]:
        """Boolean masks by name (`layer.3.heads`, `layer.3.neurons`), True for what stays of `dense`."""
        named = {}
        for part, kept, of in (("heads", self.heads, dense.heads), ("neurons", self.neurons, dense.neurons)):
            for layer, (stays, every) in enumerate(zip(kept, of, strict=True)):
                mask = torch.zeros(len(every), dtype=torch.bool)
                mask[list(stays)] = True
                named[f"layer.{layer}.{part}"] = mask
        return named

    def save(self, folder: str | Path, dense: Plan) -> None:
        """Write `plan.json` (numbers kept, and how many of how many) and `masks.safetensors`.

        Raises:
            InputError: the folder cannot be written to.
        """
        from safetensors.torch import save_file

        write_json(Path(folder) / "plan.json", self.as_json(dense))
        with replacing(Path(folder) / "masks.safetensors") as beside:
            save_file(self.masks(dense), beside)

    def as_json(self, dense: Plan) -> dict[str, Any]:
        """The content of `plan.json`."""
        return {
            "layers": [
                {
                    "heads_kept": len(heads),
                    "heads_of": len(all_heads),
                    "neurons_kept": len(neurons),
                    "neurons_of": len(all_neurons),
                    "heads": list(heads),
                    "neurons": list(neurons),
                }
                for heads, neurons, all_heads, all_neurons in zip(
                    self.heads, self.neurons, dense.heads, dense.neurons, strict=True
                )
            ]
        }

    @classmethod
    def load(cls, folder: str | Path) -> Plan:
        """Read `plan.json` of a folder.

        Raises:
            InputError: it is not there, is damaged, or holds something else.
        """
        path = Path(folder) / "plan.json"
        try:
            layers = (read_object(path) or {})["layers"]
            heads, neurons = (tuple(tuple(layer[kind]) for layer in layers) for kind in ("heads", "neurons"))
            odd = [unit for units in (*heads, *neurons) for unit in units if type(unit) is not int]
            if odd:
                raise ValueError(f"{cut(odd[0])} is no number of a unit")
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: is no plan of a pruned model ({type(error).__name__}: {error}).") from error
        return cls(heads, neurons)


def _kept(masks: Iterable[Tensor]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(torch.nonzero(mask).flatten().tolist()) for mask in masks)
