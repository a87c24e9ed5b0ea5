"""ΔW of `W = expand(M) ⊙ (W0 + ΔW)` as PEFT methods: SPLoPA (blocks) and SPLoRA (channels).

Importing this package is what makes `get_peft_model` and `PeftModel.from_pretrained` know both.
"""

from splora.adapters.layer import MaskedAdapterLayer
from splora.adapters.model import MaskedAdapterModel
from splora.adapters.registry import register
from splora.adapters.splopa.config import SPLoPAConfig
from splora.adapters.splopa.model import SPLoPAModel
from splora.adapters.splora.config import SPLoRAConfig
from splora.adapters.splora.model import SPLoRAModel
from splora.adapters.training import attach_block_masks, freeze_masks

register("SPLOPA", SPLoPAConfig, SPLoPAModel)
register("SPLORA", SPLoRAConfig, SPLoRAModel)

__all__ = [
    "MaskedAdapterLayer",
    "MaskedAdapterModel",
    "SPLoPAConfig",
    "SPLoPAModel",
    "SPLoRAConfig",
    "SPLoRAModel",
    "attach_block_masks",
    "freeze_masks",
]
