"""SPLoPA on a model: the tuner that holds what its layers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from splora.adapters.model import MaskedAdapterModel
from splora.adapters.packing import keep_rows, restore_rows
from splora.adapters.splopa.config import SPLoPAConfig
from splora.adapters.splopa.layer import PARTS, SPLoPALayer


class SPLoPAModel(MaskedAdapterModel):
    """A model with SPLoPA adapters.

    Attributes:
        splopa_columns, splopa_rows: adapter → ``32x32`` → shared c (K, p, rank) and r (K, rank, q).
        splopa_position_weights: adapter → ``768x768_32x32`` → shared P (R·C, K).
    """

    prefix = "splopa_"
    tuner_layer_cls = SPLoPALayer
    uses_shared_state = True

    def _pre_injection_hook(self, model: nn.Module, config: SPLoPAConfig, adapter_name: str) -> None:
        for part in PARTS:
            setattr(self, f"splopa_{part}", nn.ModuleDict())

    def new_layer(self, base_layer: nn.Linear, where: str) -> SPLoPALayer:
        return SPLoPALayer(base_layer, where, {part: getattr(self, f"splopa_{part}") for part in PARTS})

    def learned_parameters(self, adapter: str) -> int:
        shared = 0
        for part in PARTS:
            bank = getattr(self, f"splopa_{part}")
            for key, value in bank[adapter].items() if adapter in bank else ():
                rows = int(self._union(self, key, adapter).sum()) if part == "position_weights" else value.shape[0]
                shared += rows * value[0].numel()
        return int(super().learned_parameters(adapter)) + shared

    @staticmethod
    def _union(model: nn.Module, key: str, adapter: str, masks: dict[str, Tensor] | None = None) -> Tensor:
        """The blocks (R·C,) bool that some layer sharing the position weights `key` keeps; `masks` are by model key."""
        union: Tensor | None = None
        for name, layer in model.named_modules():
            if (
                isinstance(layer, SPLoPALayer)
                and adapter in layer.block_shapes
                and not layer.owns("position_weights", adapter)
                and layer.shared_key("position_weights", adapter) == key
            ):
                mask = layer.binary_mask(adapter) if masks is None else masks[f"{name}.splopa_mask.{adapter}"]
                kept = layer.used_blocks(adapter, mask).flatten()
                union = kept if union is None else union | kept.to(union.device)
        assert union is not None  # a shared parameter was made for a layer
        return union

    @torch.no_grad()
    def clear_pruned(self, adapter: str) -> None:
        """Zero the shared position weights of blocks that every layer prunes."""
        bank = self.splopa_position_weights
        for key, value in bank[adapter].items() if adapter in bank else ():
            value[~self._union(self, key, adapter)] = 0.0

    @classmethod
    def _packed_shared(cls, model: nn.Module, adapter: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        packed: dict[str, Tensor] = {}
        for part, key, name in cls._shared_names(model, adapter):
            value = state[name]
            packed[name] = keep_rows(value, cls._union(model, key, adapter)) if part == "position_weights" else value
        return packed

    @classmethod
    def _unpack_shared(cls, model: nn.Module, adapter: str, dense: dict[str, Tensor]) -> None:
        for part, key, name in cls._shared_names(model, adapter):
            if part == "position_weights" and name in dense:
                dense[name] = restore_rows(dense[name], cls._union(model, key, adapter, dense), name)

    @classmethod
    def _shared_names(cls, model: nn.Module, adapter: str) -> list[tuple[str, str, str]]:
        """(part, key, name in the model's state dict) of each shared parameter."""
        tuners = [(name, module) for name, module in model.named_modules() if isinstance(module, cls)]
        names = []
        for tuner_name, tuner in tuners:
            for part in PARTS:
                bank = getattr(tuner, f"splopa_{part}")
                start = f"{tuner_name}." if tuner_name else ""
                keys = bank[adapter].keys() if adapter in bank else []
                names += [(part, key, f"{start}splopa_{part}.{adapter}.{key}") for key in keys]
        return names
