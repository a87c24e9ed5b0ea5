"""SPLoRA on a model."""

from __future__ import annotations

from torch import nn

from splora.adapters.model import MaskedAdapterModel
from splora.adapters.splora.layer import SPLoRALayer


class SPLoRAModel(MaskedAdapterModel):
    """A model with SPLoRA adapters; its layers share nothing."""

    prefix = "splora_"
    tuner_layer_cls = SPLoRALayer

    def new_layer(self, base_layer: nn.Linear, where: str) -> SPLoRALayer:
        return SPLoRALayer(base_layer, where)
