"""The layer both adapters put in a linear's place: masks, biases, merging and switching; ΔW is the subclass's.

Attributes that belong to an adapter start with the method's prefix: so PEFT, and a reader of a state dict, know them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from splora.adapters.config import MaskedAdapterConfig
from splora.adapters.packing import pack_mask, unpack_mask
from splora.errors import InputError
from splora.masks.block_mask import BlockMask
from splora.masks.grid import BlockShape, block_mean_abs, grid_shape, touched_blocks
from splora.masks.units import FollowingMask

#: Rows or columns that a block may have whatever the weight: pruned layers may be smaller than one block.
_REACH = 256


class MaskedAdapterLayer(nn.Module, BaseTunerLayer):
    """x ↦ x (expand(M) ⊙ (W0 + ΔW))ᵀ + bias, with ΔW, M and bias of the active adapter.

    Attributes:
        base_layer: the linear with W0 (out, in), frozen.
        where: the layer's full name, for messages.
        block_shapes: adapter → (p, q) of ΔW's blocks, whose last ones may reach beyond the weight.
        mask_shapes: adapter → rows × cols of the mask's blocks.
    """

    prefix: ClassVar[str]
    # of BaseTunerLayer
    adapter_layer_names: tuple[str, ...]
    other_param_names: tuple[str, ...]
    active_adapters: list[str]
    disable_adapters: bool
    merged: bool
    set_adapter: Callable[..., None]

    def __init__(self, base_layer: nn.Linear, where: str) -> None:
        nn.Module.__init__(self)
        self.base_layer = base_layer
        self.where = where
        self.block_shapes: dict[str, BlockShape] = {}
        self.mask_shapes: dict[str, BlockShape] = {}
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        #: Adapters whose attached masks have been through a training step.
        self.stepped: set[str] = set()
        self._unmerged: tuple[Tensor, Tensor | None] | None = None
        setattr(self, f"{self.prefix}mask", BufferDict(persistent=True))
        setattr(self, f"{self.prefix}bias", nn.ParameterDict())
        setattr(self, f"{self.prefix}block_mask", nn.ModuleDict())

    # What a subclass adds: ΔW

    @abstractmethod
    def create(self, adapter: str, config: Any) -> None:
        """Make the parameters of ΔW for a new adapter whose block shape is known."""

    @abstractmethod
    def adapted(self, x: Tensor, adapter: str, mask: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output (…, out) for x (…, in) under `mask` (R, C)."""

    @abstractmethod
    def effective_weight(self, adapter: str, mask: Tensor) -> Tensor:
        """expand(mask) ⊙ (W0 + ΔW), (out, in), without a gradient."""

    @abstractmethod
    def get_delta_weight(self, adapter: str) -> Tensor:
        """ΔW, (out, in), not masked, without a gradient."""

    @abstractmethod
    def packed_parameters(self, adapter: str, state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """(attribute, tensor) for each own parameter of ΔW as it is saved, its dense values taken from `state`."""

    @abstractmethod
    def unpacked_parameters(self, adapter: str, mask: Tensor, saved: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The inverse of `packed_parameters`: saved attribute → dense (attribute, tensor)."""

    @abstractmethod
    def clear_pruned(self, adapter: str) -> None:
        """Set to zero what pruned blocks make meaningless."""

    @abstractmethod
    def learned_parameters(self, adapter: str) -> int:
        """Number of learned values of this layer alone: of its unpruned blocks, and its bias."""

    # The adapters of this layer

    @property
    def in_features(self) -> int:
        return int(self.base_layer.in_features)

    @property
    def out_features(self) -> int:
        return int(self.base_layer.out_features)

    @property
    def frozen_weight(self) -> Tensor:
        """W0 (out, in), whether an adapter is merged or not."""
        return self.base_layer.weight if self._unmerged is None else self._unmerged[0]

    @property
    def parameter_dtype(self) -> torch.dtype:
        """Adapters train in fp32 over weights stored in half precision."""
        return torch.promote_types(self.base_layer.weight.dtype, torch.float32)

    def add_adapter(self, adapter: str, config: MaskedAdapterConfig) -> None:
        """Give this layer a further adapter: nothing pruned, ΔW = 0.

        Raises:
            InputError: its mask's blocks do not divide the weight.
        """
        weight = self.base_layer.weight
        shape = (self.out_features, self.in_features)
        self.block_shapes[adapter] = block = config.block_shape_of(self.where)
        if any(side > max(size, _REACH) for side, size in zip(block, shape, strict=True)):
            raise InputError(
                f"{self.where}: blocks of {block[0]} × {block[1]} reach far beyond the weight, {shape[0]} × {shape[1]}."
            )
        self.mask_shapes[adapter] = config.mask_shape_of(self.where, shape)
        grid = grid_shape(shape, self.mask_shapes[adapter], self.where)
        self._masks[adapter] = torch.ones(grid, dtype=torch.bool, device=weight.device)
        if config.bias == "all" and self.base_layer.bias is not None:
            self._biases[adapter] = nn.Parameter(self.base_layer.bias.detach().to(self.parameter_dtype).clone())
        self.create(adapter, config)
        self.set_adapter(self.active_adapters)

    @property
    def _masks(self) -> Any:
        return getattr(self, f"{self.prefix}mask")

    @property
    def _biases(self) -> Any:
        return getattr(self, f"{self.prefix}bias")

    @property
    def _block_masks(self) -> Any:
        return getattr(self, f"{self.prefix}block_mask")

    def current_adapter(self) -> str | None:
        """The active adapter if this layer has it.

        Raises:
            InputError: several are active; masks of several adapters have no sum.
        """
        active = [name for name in self.active_adapters if name in self.block_shapes]
        if len(active) > 1:
            raise InputError(
                f"{self.where}: adapters {', '.join(active)} are active together; one at a time is allowed."
            )
        return active[0] if active else None

    def bias_of(self, adapter: str) -> Tensor | None:
        """The adapter's own bias (out,), or the base layer's."""
        own: Tensor | None = self._biases.get(adapter, self.base_layer.bias)
        return own

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        adapter = self.current_adapter()
        if self.disable_adapters or self.merged or adapter is None:
            output: Tensor = self.base_layer(x, *args, **kwargs)
            return output
        return self.adapted(x, adapter, self.step_mask(adapter), self.bias_of(adapter))

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move, without PEFT's cast to the weight's type: over half-precision weights it would round the adapter."""
        target = device or self.base_layer.weight.device
        for name in (*self.adapter_layer_names, *self.other_param_names):
            entries = getattr(self, name)
            if not isinstance(entries, dict) and adapter_name in entries:
                entry = entries[adapter_name]
                entries[adapter_name] = entry.to(target)

    # Masks

    @property
    def block_mask(self) -> BlockMask | None:
        """The mask in training of the active adapter, if one is attached."""
        adapter = self.current_adapter()
        if adapter not in self._block_masks:
            return None
        found: BlockMask = self._block_masks[adapter]
        return found

    def step_mask(self, adapter: str) -> Tensor:
        """The mask of this forward pass, (R, C): computed from the attached `BlockMask`, else the frozen one."""
        if adapter in self._block_masks:
            if self.training and torch.is_grad_enabled():
                self.stepped.add(adapter)
            if isinstance(self._block_masks[adapter], FollowingMask):
                return self._everything(adapter)
            mask: Tensor = self._block_masks[adapter](lambda: self.block_means(adapter))
            return mask
        frozen: Tensor = self._masks[adapter]
        return frozen

    def _everything(self, adapter: str) -> Tensor:
        """A mask that keeps all, over the blocks of ΔW where these divide the weight: that is the fastest."""
        (p, q), device = self.block_shapes[adapter], self.base_layer.weight.device
        divided = self.out_features % p == 0 and self.in_features % q == 0
        grid = (self.out_features // p, self.in_features // q) if divided else (1, 1)
        return torch.ones(grid, dtype=torch.bool, device=device)

    def awaits_scores(self, adapter: str) -> bool:
        """Whether a mask with learned scores is attached that no training step has used yet."""
        attached = adapter in self._block_masks and self._block_masks[adapter].scores is not None
        return attached and adapter not in self.stepped

    def binary_mask(self, adapter: str | None = None) -> Tensor:
        """The blocks that stay, (R, C) bool, as evaluation uses and `save_pretrained` writes them."""
        adapter = self._or_active(adapter)
        if adapter in self._block_masks:
            mask: Tensor = self._block_masks[adapter].binary(lambda: self.block_means(adapter))
            return mask.bool()
        frozen: Tensor = self._masks[adapter]
        return frozen

    def block_means(self, adapter: str | None = None) -> Tensor:
        """Mean |W0 + ΔW| of each block, (R, C), without a gradient."""
        adapter = self._or_active(adapter)
        everything = torch.ones_like(self._masks[adapter])
        return block_mean_abs(self.effective_weight(adapter, everything), self.mask_shapes[adapter])

    def attach_block_mask(self, adapter: str, block_mask: BlockMask) -> None:
        """Let `block_mask` decide at each step which blocks of `adapter` stay."""
        self._block_masks[adapter] = block_mask.to(self.base_layer.weight.device)
        self.stepped.discard(adapter)
        block_mask.train(self.training)
        block_mask.requires_grad_(adapter in self.active_adapters)

    def detach_block_mask(self, adapter: str) -> None:
        """Drop the attached `BlockMask`, if any; the frozen mask counts again."""
        if adapter in self._block_masks:
            del self._block_masks[adapter]

    def freeze_mask(self, adapter: str) -> None:
        """Make the binary mask of now the adapter's own and drop the attached `BlockMask`."""
        self._masks[adapter] = self.binary_mask(adapter).clone()
        self.detach_block_mask(adapter)

    def kept_blocks(self, adapter: str | None = None) -> int:
        """Number of the mask's blocks that stay."""
        return int(self.binary_mask(adapter).sum())

    def used_blocks(self, adapter: str, mask: Tensor | None = None) -> Tensor:
        """The blocks of ΔW that meet something a mask (of now, if None) keeps, bool (⌈out/p⌉, ⌈in/q⌉)."""
        mask = self.binary_mask(adapter) if mask is None else mask
        return touched_blocks(mask, self.mask_shapes[adapter], self.block_shapes[adapter])

    def _or_active(self, adapter: str | None) -> str:
        adapter = adapter or self.current_adapter()
        if adapter is None or adapter not in self.block_shapes:
            raise InputError(
                f"{self.where}: has no adapter {adapter!r}; it has {', '.join(self.block_shapes) or 'none'}."
            )
        return adapter

    # Files

    def packed_state(self, adapter: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Attribute → tensor of all that a file holds of this layer; `state` holds the layer's dense values."""
        packed = {f"{self.prefix}mask": pack_mask(self.binary_mask(adapter))}
        if adapter in self._biases:
            packed[f"{self.prefix}bias"] = state[f"{self.prefix}bias"]
        packed.update(self.packed_parameters(adapter, state))
        return packed

    def unpacked_state(self, adapter: str, saved: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `packed_state`: the dense values to load into this layer.

        Raises:
            InputError: the file lacks this layer's mask, or holds another shape.
        """
        attribute = f"{self.prefix}mask"
        if attribute not in saved:
            raise InputError(f"{self.where}: the adapter file has no mask for this layer; it is of another model.")
        mask = unpack_mask(saved[attribute], tuple(self._masks[adapter].shape), self.where)
        dense = {attribute: mask}
        dense.update({name: value for name, value in saved.items() if name == f"{self.prefix}bias"})
        dense.update(self.unpacked_parameters(adapter, mask, saved))
        return dense

    # Merging

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the effective weight and the adapter's bias in the base layer; what was there is kept for `unmerge`.

        Raises:
            InputError: more than one adapter, or one on top of another.
            ValueError: `safe_merge` and a value that is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.block_shapes]
        if not names:
            return
        if len(names) > 1 or self.merged:
            asked = ", ".join([*self.merged_adapters, *names])
            raise InputError(f"{self.where}: adapters {asked} cannot be merged into one weight; merge one at a time.")
        adapter = names[0]
        bias = self.bias_of(adapter)
        # + 0 turns the −0 of pruned negative weights into 0
        weight = self.effective_weight(adapter, self.binary_mask(adapter)).add_(0.0)
        if safe_merge and not (torch.isfinite(weight).all() and (bias is None or torch.isfinite(bias).all())):
            raise ValueError(
                f"{self.where}: the weight merged with adapter {adapter!r} has values that are not finite."
            )
        base = self.base_layer
        self._unmerged = (base.weight.data, None if base.bias is None else base.bias.data)
        base.weight.data = weight
        if bias is not None and adapter in self._biases:
            base.bias.data = bias.detach().to(base.bias.dtype).clone()
        self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Put the very tensors back that `merge` took out."""
        if self._unmerged is None:
            return
        weight, bias = self._unmerged
        device = self.base_layer.weight.device
        self.base_layer.weight.data = weight.to(device)
        if bias is not None:
            self.base_layer.bias.data = bias.to(device)
        self._unmerged = None
        self.merged_adapters.clear()
