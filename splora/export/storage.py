"""What type and how many bytes a checkpoint's weights take on disk, and models in the type that they are stored in.

A post-training method computes in fp32 whatever a checkpoint is stored in. Its result is stored in the checkpoint's own
type, and rounded to it before it is evaluated: the scores are those of what lies on disk.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from splora.errors import InputError, nearest
from splora.json_values import read_or_refuse, table, text
from splora.tasks.source_names import local_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

#: What weights can be stored in; `auto`: in what they came in.
DTYPES = ("auto", "fp32", "fp16", "bf16")
#: Those by the names that torch, and that safetensors files, give them. Others are stored in fp32.
_NAMES = {"fp32": ("float32", "F32"), "fp16": ("float16", "F16"), "bf16": ("bfloat16", "BF16")}
#: Figures of a digest of weights.
DIGEST = 16


def check_dtype(name: str, option: str = "--dtype") -> None:
    """Refuse a type that weights are not stored in.

    Raises:
        InputError: it is none of `DTYPES`.
    """
    if name not in DTYPES:
        raise InputError(f"{option} is {name!r}; allowed are {', '.join(DTYPES)}{nearest(name, DTYPES) or '.'}")


def dtype_of(name: str, checkpoint: str) -> torch.dtype:
    """The type that `name`, one of `DTYPES`, means for what is made of a checkpoint (a folder or hub name)."""
    import torch

    if name == "auto":
        name = stored_in(weight_files(checkpoint))
    found: torch.dtype = getattr(torch, _NAMES[name][0])
    return found


def name_of(dtype: torch.dtype) -> str:
    """The program's own name of a type."""
    return next((name for name, (of_torch, _) in _NAMES.items() if str(dtype) == f"torch.{of_torch}"), str(dtype))


def weight_files(checkpoint: str) -> list[Path]:
    """The files that transformers reads a checkpoint's weights from; of a hub name, those in the cache.

    Raises:
        InputError: the list of its parts is damaged.
    """
    folder = local_folder(checkpoint)
    if folder is None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(checkpoint, "config.json") if checkpoint.count("/") <= 1 else None
        if not isinstance(cached, str):
            return []
        folder = Path(cached).parent
    for stem, ending in (("model", "safetensors"), ("pytorch_model", "bin")):
        if (whole := folder / f"{stem}.{ending}").is_file():
            return [whole]
        if (index := folder / f"{stem}.{ending}.index.json").is_file():
            return [path for path in _parts(index) if path.is_file()]
    return []


def missing_part(folder: Path) -> Path | None:
    """A file of weights that the list of a folder's safetensors files names and that is not there."""
    index = folder / "model.safetensors.index.json"
    listed = _parts(index) if index.is_file() and not (folder / "model.safetensors").is_file() else []
    return next((path for path in listed if not path.is_file()), None)


def _parts(index: Path) -> list[Path]:
    names = {text(part) for part in table((read_or_refuse(index) or {}).get("weight_map")).values()}
    return [index.parent / Path(name).name for name in sorted(names)]


def weight_bytes(checkpoint: str) -> int:
    """Bytes of a checkpoint's files of weights."""
    return sum(path.stat().st_size for path in weight_files(checkpoint))


def weight_digest(checkpoint: str) -> str | None:
    """What tells a folder's weights from others under its name; None where there are none, as of hub names."""
    files = weight_files(checkpoint) if local_folder(checkpoint) is not None else []
    digests = [_digest(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:DIGEST] if files else None


@functools.lru_cache(maxsize=32)
def _digest(path: Path, size: int, changed: int) -> bytes:
    """Of one file; size and time (ns) tell another version of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def stored_in(files: list[Path]) -> str:
    """The type of most floating-point weights in these files, by the program's own name; `fp32` where it is another."""
    import torch
    from safetensors import safe_open

    numbers: Counter[str] = Counter()
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118  (it is no dictionary)
                    tensor = file.get_slice(key)
                    numbers[tensor.get_dtype()] += _product(tensor.get_shape())
        else:
            content = torch.load(path, map_location="meta", weights_only=True)
            for tensor in content.values():
                if isinstance(tensor, torch.Tensor):
                    numbers[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    known = {alias: name for name, aliases in _NAMES.items() for alias in aliases}
    floating = {alias: number for alias, number in numbers.items() if alias.lower().startswith(("f", "bf"))}
    return known.get(max(floating, key=lambda alias: floating[alias], default="F32"), "fp32")


def is_held_by(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether no parameter holds a value that is too large for a type."""
    import torch

    from splora.offload import values_of

    most = torch.finfo(dtype).max
    return all(bool((values_of(one).abs() <= most).all()) for one in model.parameters() if one.numel())


def round_off(model: nn.Module, dtype: torch.dtype) -> None:
    """Round all parameters to values that `dtype` holds, each in a tensor of its own and in the type that it has."""
    _replace(model, dtype, keeps_dtype=True)


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a model whose parameters are in `dtype`; buffers, and parameters that are so already, are shared."""
    found = sharing_copy(model)
    _replace(found, dtype, keeps_dtype=False)
    return found


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of a model's modules that shares all parameters and buffers with it."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _replace(model: nn.Module, dtype: torch.dtype, *, keeps_dtype: bool) -> None:
    """Give all parameters values of a type; tied ones stay tied, and what another model shares is not changed there."""
    from splora.offload import derived

    rounded: dict[int, nn.Parameter] = {}
    for path, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) not in rounded:
            kept = parameter.dtype if keeps_dtype else dtype
            rounded[id(parameter)] = derived(parameter, functools.partial(_rounded, dtype=dtype, kept=kept))
        module, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(module), leaf, rounded[id(parameter)])


def _rounded(values: torch.Tensor, dtype: torch.dtype, kept: torch.dtype) -> torch.Tensor:
    return values.to(dtype).to(kept)


def _product(shape: list[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
