"""The file of a quantized model: codes of a few bits packed without gaps, and the weights that they stand for.

This module needs torch and safetensors, nothing else: it lies beside the weights, for `quantized_modeling.py`.

The file holds, for each quantized weight `w` (out × in), its packed codes `w_codes`; `w_steps`, the distances of
neighbouring values (fp16, out × groups); unless the grid is symmetric, `w_zeros`, the packed codes of the value zero;
and `w_shape`. Code i takes bits `i · bits` to `(i + 1) · bits − 1` of the packed bytes, counted from the lowest bit of
the first byte. All other tensors are stored under their own names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

#: The file, and the configuration's section that says what grid its codes are of.
WEIGHTS, SECTION = "quantized.safetensors", "splora_quantization"
#: The layout described above.
VERSION = 1
#: Endings of the names of a quantized weight's parts.
CODES, STEPS, ZEROS, SHAPE = "_codes", "_steps", "_zeros", "_shape"
#: Bytes to whose multiples torch aligns the memory of a new tensor on the CPU.
_ALIGNMENT = 64
#: Codes that together fill whole bytes, whatever their bits: 8 codes are as many bytes as a code has bits.
_TOGETHER = 8


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that so many codes take."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes without gaps.

    Args:
        codes: uint8 of any shape, each below 2^bits; read row by row.
        bits: per code, 1 to 4, or 8.

    Returns:
        uint8 (`packed_bytes`,); what is left of the last byte is zero.
    """
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.clone()
    together = -(-flat.numel() // _TOGETHER)
    # At most 8 codes of 4 bits: a word of 32.
    words = torch.zeros(together, dtype=torch.int32, device=codes.device)
    for place in range(_TOGETHER):
        part = flat[place::_TOGETHER].int()
        words[: len(part)] |= part << (bits * place)
    found = torch.stack([(words >> (8 * byte)) & 0xFF for byte in range(bits)], 1)
    return found.to(torch.uint8).reshape(-1)[: packed_bytes(flat.numel(), bits)].clone()


def unpack(packed: Tensor, bits: int, shape: Sequence[int]) -> Tensor:
    """The codes that `pack` got, uint8 of this shape.

    Raises:
        ValueError: there are more or fewer bytes than such codes take.
    """
    count = torch.Size(shape).numel()
    if packed.dtype != torch.uint8 or packed.numel() != packed_bytes(count, bits):
        raise ValueError(f"{count} codes of {bits} bits are {packed_bytes(count, bits)} bytes, not {packed.numel()}")
    if bits == 8:
        return packed.reshape(shape).clone()
    together = -(-count // _TOGETHER)
    whole = torch.zeros(together * bits, dtype=torch.uint8, device=packed.device)
    whole[: packed.numel()] = packed
    words = torch.zeros(together, dtype=torch.int32, device=packed.device)
    for byte, part in enumerate(whole.view(together, bits).unbind(1)):
        words |= part.int() << (8 * byte)
    codes = torch.stack([((words >> (bits * place)) & ((1 << bits) - 1)).to(torch.uint8) for place in range(8)], 1)
    return codes.reshape(-1)[:count].reshape(shape)


def dequantize(codes: Tensor, steps: Tensor, zeros: Tensor, width: int) -> Tensor:
    """(code − zero) · step of each weight, which fp32 holds exactly: the same numbers wherever they are computed.

    Args:
        codes: uint8 (out, in).
        steps: float16 (out, groups).
        zeros: codes of the value zero, uint8 (out, groups).
        width: inputs of a group; the last group of a row may have fewer.

    Returns:
        float32 (out, in).
    """
    inputs = codes.shape[1]
    spread = [part.float().repeat_interleave(width, dim=1)[:, :inputs] for part in (steps, zeros)]
    return (codes.float() - spread[1]) * spread[0]


def read_weights(path: str, section: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors of a file by name, quantized weights as the float32 ones that their codes stand for.

    Args:
        section: of the configuration: `version`, `bits`, `group_size` (None: whole rows), `symmetric`; `transposed`, if
            the model's modules want these weights as (in, out).

    Raises:
        ValueError: the file does not hold what the section says.
    """
    if section.get("version") != VERSION:
        raise ValueError(f"its layout has version {section.get('version')!r}; known is {VERSION}")
    stored = load_file(path)
    found: dict[str, Tensor] = {}
    for name in [key.removesuffix(CODES) for key in stored if key.endswith(CODES)]:
        parts = {
            ending: stored.pop(name + ending) for ending in (CODES, STEPS, ZEROS, SHAPE) if name + ending in stored
        }
        try:
            weight = _weight(parts, section["bits"], section["group_size"], section["symmetric"])
            found[name] = weight.T.contiguous() if section.get("transposed") else weight
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{name} is damaged: {error}") from error
    for name, tensor in stored.items():
        # What a file's memory map holds at odd addresses would be added up in another order.
        found[name] = tensor.clone() if tensor.data_ptr() % _ALIGNMENT else tensor
    return found


def _weight(parts: dict[str, Tensor], bits: int, group_size: int | None, symmetric: bool) -> Tensor:
    rows, inputs = (int(size) for size in parts[SHAPE])
    steps = parts[STEPS]
    if symmetric:
        zeros = torch.full(steps.shape, 1 << (bits - 1), dtype=torch.uint8)
    else:
        zeros = unpack(parts[ZEROS], bits, steps.shape)
    return dequantize(unpack(parts[CODES], bits, (rows, inputs)), steps, zeros, group_size or inputs)
