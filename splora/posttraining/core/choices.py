"""What options of the methods after training may be: for help and checks alike; imports no torch."""

from __future__ import annotations

from typing import Literal

#: What calibration computes in (`precision`).
PRECISIONS = ("auto", "fp32", "bf16")
#: Where hidden states of the samples are kept between layers (`states`).
Storage = Literal["auto", "fp32", "bf16", "disk"]
STORAGES: tuple[Storage, ...] = ("auto", "fp32", "bf16", "disk")
#: Bits of a quantized weight (`quantization_grid`), and how it is rounded (`quantize_options`).
BITS = (2, 3, 4, 8)
Quantizer = Literal["gptq", "rtn"]
QUANTIZERS: tuple[Quantizer, ...] = ("gptq", "rtn")
#: Fisher pruning (`fisher`): whose labels the loss is of, what is rescaled towards, and whether biases are corrected.
FISHER_LABELS = ("model", "data")
TEACHERS = ("dense", "sqrt")
BIAS_CORRECTIONS = ("auto", "on", "off")
