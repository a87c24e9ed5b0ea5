"""Models larger than memory: parameters that lie in files, and are in memory while their layer is at work.

A parked parameter has a shape and a type and, like one on the meta device, no values. `present` gives the parameters of
some modules their values for as long as a block runs; what was changed in place there is kept in a temporary file. For
a model in memory all of this does nothing: whatever walks through layers works alike on both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from splora.scratch import Held, Keep, Scratch

#: From values to values; also asked what shape and type it makes of a tensor without values.
Change = Callable[[Tensor], Tensor]


class Parked(nn.Parameter):
    """A parameter whose values are elsewhere; needs no gradient.

    Args:
        source: reads its values, on the CPU and in the type that they are stored in.
        like: a tensor of its shape, in the type that its values are given in.
        device: where they are given.
        scratch: where changed values go.
    """

    def __new__(cls, source: Callable[[], Tensor], like: Tensor, device: torch.device, scratch: Scratch) -> Parked:
        """A tensor on the meta device."""
        made = torch.Tensor._make_subclass(cls, torch.empty_like(like, device="meta"), False)
        made.source, made.given_on, made.scratch = source, device, scratch
        return made

    source: Callable[[], Tensor]
    given_on: torch.device
    scratch: Scratch

    def values(self) -> Tensor:
        """A new tensor of its values."""
        with torch.inference_mode(False):
            return self.source().to(self.given_on, self.dtype, copy=True)


@contextmanager
def present(*modules: nn.Module, without: Collection[nn.Module] = (), stays: bool = True) -> Iterator[None]:
    """Give parked parameters of modules their values while the block runs.

    Args:
        without: modules inside of these whose parameters stay parked.
        stays: whether what is changed in place there stays.
    """
    inside = {module for outer in without for module in outer.modules()}
    places = [
        (owner, name, parameter)
        for module in modules
        for owner in module.modules()
        if owner not in inside
        for name, parameter in owner._parameters.items()
        if isinstance(parameter, Parked)
    ]
    loaded: dict[Parked, tuple[nn.Parameter, int]] = {}
    try:
        for owner, name, parked in places:
            if parked not in loaded:
                values = nn.Parameter(parked.values(), requires_grad=False)
                loaded[parked] = values, values._version
            owner._parameters[name] = loaded[parked][0]
        yield
    finally:
        for owner, name, parked in places:
            owner._parameters[name] = parked
        for parked, (values, version) in loaded.items():
            if stays and values._version != version:
                parked.source = parked.scratch.put(values.cpu())


def is_offloaded(model: nn.Module) -> bool:
    """Whether parameters of a model are parked."""
    return any(isinstance(parameter, Parked) for parameter in model.parameters())


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes."""
    first = next(model.parameters())
    return first.given_on if isinstance(first, Parked) else first.device


def values_of(parameter: Tensor) -> Tensor:
    """The values of a parameter, wherever they are; to be read only."""
    return parameter.values() if isinstance(parameter, Parked) else parameter.detach()


def derived(parameter: nn.Parameter, change: Change) -> nn.Parameter:
    """A new parameter whose values a change makes of another one's: now, or of a parked one whenever they are read.

    Later changes in place of the parameter do not reach the new one.
    """
    if not isinstance(parameter, Parked):
        return nn.Parameter(change(parameter.detach()), parameter.requires_grad)
    source = parameter.source
    return Parked(lambda: change(source()), change(parameter.detach()), parameter.given_on, parameter.scratch)


def keeper(model: nn.Module) -> Keep:
    """Where tensors that a walk through a model's layers leaves for later are kept: in memory, or for a model that is
    larger than that, in a file."""
    return Scratch().put if is_offloaded(model) else Held


def from_safetensors(path: Path, key: str) -> Tensor:
    """One tensor of a file, of which no more is read."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensor: Tensor = file.get_tensor(key)
    return tensor
