"""What both methods do with a model: put layers in place, keep the rest frozen, write and read packed files."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from splora import anatomy
from splora.adapters.config import MaskedAdapterConfig
from splora.adapters.layer import MaskedAdapterLayer
from splora.errors import SHOWN, InputError, cut, nearest

ALL_LINEAR = "all-linear"


class MaskedAdapterModel(BaseTuner):
    """A model whose targeted linears are adapter layers; see PEFT's `BaseTuner` for the life of one."""

    prefix: str
    tuner_layer_cls: type[MaskedAdapterLayer]
    #: The adapter whose masks with scores a file has just replaced.
    lost_scores: str | None = None
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - PEFT's name and type; the user names the targets

    @abstractmethod
    def new_layer(self, base_layer: nn.Linear, where: str) -> MaskedAdapterLayer:
        """The adapter layer to put in the place of `base_layer`."""

    # Injection

    def _prepare_adapter_config(self, peft_config: MaskedAdapterConfig, model_config: dict[str, Any]) -> Any:
        if not peft_config.target_modules:
            raise InputError(
                f"{type(peft_config).__name__}: target_modules is empty; name the linears to adapt, or all-linear."
            )
        return peft_config

    def _prepare_model(self, peft_config: MaskedAdapterConfig, model: nn.Module) -> None:
        """Refuse targets that match nothing, before anything is changed; name the task's head among what is saved."""
        if peft_config.trains_head and anatomy.is_supported(model):
            own = peft_config.modules_to_save or []
            heads = [name for name in anatomy.head_names(model) if name not in own]
            peft_config.modules_to_save = [*own, *heads]
        targets = peft_config.target_modules
        if targets is None or targets == ALL_LINEAR:
            return
        names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | MaskedAdapterLayer)]
        allowed = sorted({name.rpartition(".")[2] for name in names})
        option = f"{type(peft_config).__name__}: target_modules"
        if isinstance(targets, str):
            if not any(re.fullmatch(targets, name) for name in names):
                close = nearest(targets[:SHOWN], allowed)
                raise InputError(f"{option} is {cut(targets)}, which matches no linear layer of the model{close}.")
            return
        missing = [t for t in sorted(targets) if not any(n == t or n.endswith(f".{t}") for n in names)]
        if missing:
            raise InputError(
                f"{option} has {cut(target)}, which matches no linear layer of the model"
                f"{nearest(target[:SHOWN], allowed)}."
                for target in missing
            )

    def _check_new_adapter_config(self, config: MaskedAdapterConfig) -> None:
        """PEFT allows one adapter with biases, because it trains the base model's; here each adapter has its own."""

    def _create_and_replace(
        self,
        peft_config: MaskedAdapterConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.add_adapter(adapter_name, peft_config)
            return
        if not isinstance(target, nn.Linear):
            raise InputError(
                f"{current_key}: is a {type(target).__name__}; {type(peft_config).__name__} adapts nn.Linear layers "
                f"only, so take it out of target_modules."
            )
        layer = self.new_layer(target, current_key)
        layer._active_adapter = self.active_adapters
        layer.add_adapter(adapter_name, peft_config)
        layer.train(target.training)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Put `new_module` in its parent. PEFT's also hands on a weight, which a head of several layers has not."""
        setattr(parent, child_name, new_module)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        before = [(parameter, parameter.requires_grad) for parameter in self._shared_parameters()]
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        # PEFT puts back what it finds inside the model; the shared parameters lie beside it
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)

    def _shared_parameters(self) -> Iterator[nn.Parameter]:
        for name, module in self.named_children():
            if name != "model":
                yield from module.parameters()

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        """Freeze the base model. Unlike PEFT's, this leaves base biases frozen: adapters train copies of their own."""
        owned: set[int] = set()
        for module in model.modules():
            if isinstance(module, AuxiliaryTrainingWrapper):
                owned.update(map(id, module.parameters()))
            elif isinstance(module, MaskedAdapterLayer):
                owned.update(id(p) for name, p in module.named_parameters() if not name.startswith("base_layer."))
        for parameter in model.parameters():
            if id(parameter) not in owned:
                parameter.requires_grad_(False)

    def disable_adapter_layers(self) -> None:
        """Let the model compute what the base model would, biases included."""
        self._enable_adapter_layers(enabled=False)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Also the last thing that `PeftModel.load_adapter` asks for: what it has put out of the way is told here.

        Raises:
            InputError: masks that were to be trained had their scores replaced by a file's bits: a Trainer resumes.
        """
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        lost, self.lost_scores = self.lost_scores, None
        if lost is not None:
            raise InputError(
                f"adapter {lost!r}: masks in training are attached, and an adapter's file holds no scores; "
                "resume with MaskedTrainer of splora.adapters.trainer (from a checkpoint that it wrote), or load the "
                "adapter before attach_block_masks to start its masks anew."
            )

    # Counting

    def adapter_layers(self, adapter: str | None = None) -> dict[str, MaskedAdapterLayer]:
        """Full name (in the base model) → adapter layer, those of `adapter` or all."""
        return {name: layer for name, layer in _layers(self.model) if adapter is None or adapter in layer.block_shapes}

    def learned_parameters(self, adapter: str) -> int:
        """Number of learned values of ΔW and biases, without pruned blocks, shared parts once; no modules_to_save."""
        return sum(layer.learned_parameters(adapter) for layer in self.adapter_layers(adapter).values())

    def clear_pruned(self, adapter: str) -> None:
        """Set to zero what no layer that shares it keeps."""

    # Files

    @classmethod
    def _get_learnable_bias_state_dict(cls, model: nn.Module, state_dict: Any, config: Any) -> dict[str, Tensor]:
        return {}

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: MaskedAdapterConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """What the task needs and no more: bits of the masks, ΔW of kept blocks, shared parts once, own biases."""
        packed: dict[str, Tensor] = {}
        ending = f".{adapter_name}"
        for name, layer in _layers(model, adapter_name):
            start = f"{name}."
            own = {
                key.removeprefix(start).removesuffix(ending): value
                for key, value in state_dict.items()
                if key.startswith(start) and key.endswith(ending)
            }
            packed |= {
                f"{start}{attribute}{ending}": v for attribute, v in layer.packed_state(adapter_name, own).items()
            }
        return packed | cls._packed_shared(model, adapter_name, state_dict)

    @classmethod
    def _packed_shared(cls, model: nn.Module, adapter: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Model key → tensor of what layers share, as it is saved."""
        return {}

    @classmethod
    def _unpack_shared(cls, model: nn.Module, adapter: str, dense: dict[str, Tensor]) -> None:
        """Turn the shared tensors of `dense`, model key → tensor, into what the model holds, in place."""

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: MaskedAdapterConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Saved key → tensor to the model's key → dense tensor. A mask that was attached gives way to the loaded one.

        Raises:
            InputError: the file is of another model or damaged: a layer is missing, unknown, or of another shape.
        """
        remaining = dict(state_dict)
        dense: dict[str, Tensor] = {}
        for name, layer in _layers(model, adapter_name):
            start = f"{name}."
            ours = [k for k in remaining if k.startswith(start + cls.prefix) and "." not in k.removeprefix(start)]
            saved = {key.removeprefix(start): remaining.pop(key) for key in ours}
            unpacked = layer.unpacked_state(adapter_name, saved)
            dense |= {f"{start}{attribute}.{adapter_name}": value for attribute, value in unpacked.items()}
            if layer.awaits_scores(adapter_name):
                for tuner in model.modules():
                    if isinstance(tuner, cls):
                        tuner.lost_scores = adapter_name
            layer.detach_block_mask(adapter_name)
        dense |= super()._remap_adapter_state_dict_for_load(model, config, adapter_name, remaining)
        cls._unpack_shared(model, adapter_name, dense)
        problems = list(cls._misfits(model.state_dict(), dense, adapter_name))
        if problems:
            raise InputError(problems)
        return dense

    @classmethod
    def _misfits(cls, present: dict[str, Tensor], dense: dict[str, Tensor], adapter: str) -> Iterator[str]:
        """A sentence for each tensor of an adapter file that the model lacks, has in another shape, or that is missing.

        PEFT only warns of what is missing, and goes on with what an untrained adapter has there.
        """
        for key, value in dense.items():
            if key not in present:
                if f".{cls.prefix}" in f".{key}":
                    yield f"{key}: the adapter file holds this, but the model has no such layer."
            elif value.shape != present[key].shape:
                found, wanted = ("×".join(map(str, tensor.shape)) or "one" for tensor in (value, present[key]))
                yield f"{key}: the adapter file holds {found} values where the model has {wanted}."
            elif value.is_floating_point() and not bool(value.isfinite().all()):
                yield f"{key}: the adapter file holds NaN or infinite values."
        for key in present:
            if f".{cls.prefix}" in key and key.endswith(f".{adapter}") and key not in dense:
                yield f"{key}: the adapter file lacks this; it is damaged, or of another model or other settings."


def _layers(model: nn.Module, adapter: str | None = None) -> Iterator[tuple[str, MaskedAdapterLayer]]:
    for name, module in model.named_modules():
        if isinstance(module, MaskedAdapterLayer) and (adapter is None or adapter in module.block_shapes):
            yield name, module
