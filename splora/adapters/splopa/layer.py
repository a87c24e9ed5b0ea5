"""A linear with SPLoPA adapters: ΔW from prototypes and position weights, its own or shared with other layers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from splora.adapters.layer import MaskedAdapterLayer
from splora.adapters.packing import keep_rows, restore_rows
from splora.adapters.splopa import functional
from splora.adapters.splopa.config import SPLoPAConfig

#: What ΔW is made of. Attributes of a layer and of the tuner: ``splopa_`` + one of these.
PARTS = ("position_weights", "columns", "rows")


class SPLoPALayer(MaskedAdapterLayer):
    """x ↦ x (expand(M) ⊙ (W0 + Σ_k P_k ⊗ c_k r_k))ᵀ + bias, see `functional`.

    Attributes:
        splopa_position_weights: adapter → P (R·C, K), unless shared.
        splopa_columns, splopa_rows: adapter → c (K, p, rank), r (K, rank, q), unless shared.
        shared: part → the tuner's containers, adapter → key → parameter. Not registered here, so that a state dict and
            `parameters()` show a shared parameter once, where it belongs.
    """

    prefix = "splopa_"
    adapter_layer_names = (
        *(f"splopa_{part}" for part in PARTS),
        *(f"shared_{part}" for part in PARTS),
        "splopa_bias",
        "splopa_block_mask",
    )
    other_param_names = ("splopa_mask", "block_shapes", "mask_shapes")

    def __init__(self, base_layer: nn.Linear, where: str, shared: dict[str, nn.ModuleDict]) -> None:
        super().__init__(base_layer, where)
        for part in PARTS:
            setattr(self, f"splopa_{part}", nn.ParameterDict())
            self.__dict__[f"shared_{part}"] = shared[part]

    def create(self, adapter: str, config: SPLoPAConfig) -> None:
        (p, q), rank = self.block_shapes[adapter], config.prototype_rank
        shared = config.shared_prototypes
        # entries of c_k r_k are sums of `rank` products of two normals: their variance is rank · deviation⁴
        deviation = (config.init_range / rank**0.5) ** 0.5
        self._put("columns", adapter, shared, (config.num_prototypes, p, rank), deviation)
        self._put("rows", adapter, shared, (config.num_prototypes, rank, q), deviation)
        grid = functional.grid_of(self.base_layer.weight.shape, p, q)
        blocks = grid[0] * grid[1]
        self._put("position_weights", adapter, config.shared_position_weights, (blocks, config.num_prototypes), 0.0)

    def _put(self, part: str, adapter: str, shared: bool, shape: tuple[int, ...], deviation: float) -> None:
        container = getattr(self, f"splopa_{part}")
        key = adapter
        if shared:
            banks = getattr(self, f"shared_{part}")
            if adapter not in banks:
                banks[adapter] = nn.ParameterDict()
            container, key = banks[adapter], self.shared_key(part, adapter)
            if key in container:
                return
        value = torch.empty(shape, dtype=self.parameter_dtype, device=self.base_layer.weight.device)
        container[key] = nn.Parameter(nn.init.normal_(value, 0.0, deviation) if deviation else value.zero_())

    def shared_key(self, part: str, adapter: str) -> str:
        """Layers with the same key share: ``32x32``, for position weights with the weight's shape before it."""
        p, q = self.block_shapes[adapter]
        weight = f"{self.out_features}x{self.in_features}_" if part == "position_weights" else ""
        return f"{weight}{p}x{q}"

    def owns(self, part: str, adapter: str) -> bool:
        """Whether the part of ΔW belongs to this layer alone."""
        return adapter in getattr(self, f"splopa_{part}")

    def part(self, part: str, adapter: str) -> Tensor:
        """A part of ΔW, this layer's own or the shared one."""
        found: Tensor
        if self.owns(part, adapter):
            found = getattr(self, f"splopa_{part}")[adapter]
        else:
            found = getattr(self, f"shared_{part}")[adapter][self.shared_key(part, adapter)]
        return found

    def delta_parts(self, adapter: str) -> tuple[Tensor, Tensor, Tensor]:
        return self.part("columns", adapter), self.part("rows", adapter), self.part("position_weights", adapter)

    def adapted(self, x: Tensor, adapter: str, mask: Tensor, bias: Tensor | None) -> Tensor:
        return functional.splopa_linear(x, self.base_layer.weight, *self.delta_parts(adapter), mask, bias)

    def effective_weight(self, adapter: str, mask: Tensor) -> Tensor:
        return functional.effective_weight(self.frozen_weight, *self.delta_parts(adapter), mask)

    @torch.no_grad()
    def get_delta_weight(self, adapter: str) -> Tensor:
        return functional.delta_weight(*self.delta_parts(adapter), (self.out_features, self.in_features))

    def packed_parameters(self, adapter: str, state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        if self.owns("position_weights", adapter):
            kept = self.used_blocks(adapter).flatten()
            yield "splopa_position_weights", keep_rows(state["splopa_position_weights"], kept)
        for part in ("columns", "rows"):
            if self.owns(part, adapter):
                yield f"splopa_{part}", state[f"splopa_{part}"]

    def unpacked_parameters(self, adapter: str, mask: Tensor, saved: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name, value in saved.items():
            if name == "splopa_position_weights":
                value = restore_rows(value, self.used_blocks(adapter, mask).flatten(), f"{self.where}.{name}")
            if name in ("splopa_position_weights", "splopa_columns", "splopa_rows"):
                yield name, value

    @torch.no_grad()
    def clear_pruned(self, adapter: str) -> None:
        """Zero the position weights of pruned blocks, if they are this layer's own."""
        if self.owns("position_weights", adapter):
            self.part("position_weights", adapter)[~self.used_blocks(adapter).flatten()] = 0.0

    def learned_parameters(self, adapter: str) -> int:
        """Position weights of kept blocks, own prototypes and own bias; shared parts are counted by the tuner, once."""
        count = self._biases[adapter].numel() if adapter in self._biases else 0
        if self.owns("position_weights", adapter):
            count += int(self.used_blocks(adapter).sum()) * self.part("position_weights", adapter).shape[1]
        return count + sum(self.part(p, adapter).numel() for p in ("columns", "rows") if self.owns(p, adapter))
