"""A linear with SPLoRA adapters: ΔW = B A."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from splora.adapters.layer import MaskedAdapterLayer
from splora.adapters.packing import keep_rows, restore_rows
from splora.adapters.splora import functional
from splora.adapters.splora.config import SPLoRAConfig


class SPLoRALayer(MaskedAdapterLayer):
    """x ↦ x (expand(M) ⊙ (W0 + B A))ᵀ + bias, see `functional`.

    Attributes:
        splora_B: adapter → B (out, r).
        splora_A: adapter → A (r, in).
    """

    prefix = "splora_"
    adapter_layer_names = ("splora_B", "splora_A", "splora_bias", "splora_block_mask")
    other_param_names = ("splora_mask", "block_shapes", "mask_shapes")

    def __init__(self, base_layer: nn.Linear, where: str) -> None:
        super().__init__(base_layer, where)
        self.splora_B = nn.ParameterDict()
        self.splora_A = nn.ParameterDict()

    def create(self, adapter: str, config: SPLoRAConfig) -> None:
        weight, rank = self.base_layer.weight, config.rank_of(self.out_features)
        a = torch.empty((rank, self.in_features), dtype=self.parameter_dtype, device=weight.device)
        b = torch.zeros((self.out_features, rank), dtype=self.parameter_dtype, device=weight.device)
        self.splora_A[adapter] = nn.Parameter(nn.init.uniform_(a, -config.init_range, config.init_range))
        self.splora_B[adapter] = nn.Parameter(b)

    def delta_parts(self, adapter: str) -> tuple[Tensor, Tensor]:
        return self.splora_B[adapter], self.splora_A[adapter]

    def adapted(self, x: Tensor, adapter: str, mask: Tensor, bias: Tensor | None) -> Tensor:
        return functional.splora_linear(x, self.base_layer.weight, *self.delta_parts(adapter), mask, bias)

    def effective_weight(self, adapter: str, mask: Tensor) -> Tensor:
        return functional.effective_weight(self.frozen_weight, *self.delta_parts(adapter), mask)

    @torch.no_grad()
    def get_delta_weight(self, adapter: str) -> Tensor:
        b, a = self.delta_parts(adapter)
        return b @ a

    def _kept_channels(self, adapter: str, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of B and columns of A that some kept block reads: (out,) and (in,) bool."""
        p, q = self.mask_shapes[adapter]
        return mask.any(1).repeat_interleave(p), mask.any(0).repeat_interleave(q)

    def packed_parameters(self, adapter: str, state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        rows, cols = self._kept_channels(adapter, self.binary_mask(adapter))
        yield "splora_B", keep_rows(state["splora_B"], rows)
        yield "splora_A", keep_rows(state["splora_A"].t(), cols).t().contiguous()

    def unpacked_parameters(self, adapter: str, mask: Tensor, saved: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        rows, cols = self._kept_channels(adapter, mask)
        if "splora_B" in saved:
            yield "splora_B", restore_rows(saved["splora_B"], rows, f"{self.where}.splora_B")
        if "splora_A" in saved:
            yield "splora_A", restore_rows(saved["splora_A"].t(), cols, f"{self.where}.splora_A").t().contiguous()

    @torch.no_grad()
    def clear_pruned(self, adapter: str) -> None:
        """Zero the rows of B and columns of A that no kept block reads."""
        rows, cols = self._kept_channels(adapter, self.binary_mask(adapter))
        b, a = self.delta_parts(adapter)
        b[~rows] = 0.0
        a[:, ~cols] = 0.0

    def learned_parameters(self, adapter: str) -> int:
        """Kept rows of B, kept columns of A, own bias."""
        rows, cols = self._kept_channels(adapter, self.binary_mask(adapter))
        count = self._biases[adapter].numel() if adapter in self._biases else 0
        return count + int(rows.sum() + cols.sum()) * int(self.splora_B[adapter].shape[1])
