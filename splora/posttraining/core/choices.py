"""What options of the methods after training may be: for help and checks alike; imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from splora.posttraining.core.options import option

#: What calibration computes in (`precision`).
PRECISIONS = ("auto", "fp32", "bf16")
#: Where hidden states of the samples are kept between layers (`states`).
Storage = Literal["auto", "fp32", "bf16", "disk"]
STORAGES: tuple[Storage, ...] = ("auto", "fp32", "bf16", "disk")
#: Bits of a quantized weight (`quantization_grid`), and how it is rounded (`quantize_options`).
BITS = (2, 3, 4, 8)
Quantizer = Literal["gptq", "rtn"]
QUANTIZERS: tuple[Quantizer, ...] = ("gptq", "rtn")


def states_option() -> Any:
    """The option of every method that takes hidden states from layer to layer."""
    return option(
        "auto",
        "where hidden states of the samples are kept between layers: in memory as fp32 or bf16, in temporary files, or "
        "(auto) in memory while they are small",
        "--states",
    )
