"""What calibration computes in: fp32, or bf16 where the hardware multiplies it natively."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from splora.errors import InputError, nearest
from splora.posttraining.core.choices import PRECISIONS


@dataclass(frozen=True)
class Precision:
    """Contexts for forward passes and for the products that least squares are made of.

    Attributes:
        name: `fp32`; or `bf16`: forward passes under bf16 autocast, fp32 products split into bf16 ones where the
            processor does so (sums stay fp32, and so does nearly all of their precision).
    """

    name: Literal["fp32", "bf16"] = "fp32"

    @classmethod
    def parse(cls, text: str, option: str = "--precision") -> Precision:
        """Read `auto` (bf16 where it is fast), `fp32` or `bf16`.

        Raises:
            InputError: anything else.
        """
        if text not in PRECISIONS:
            raise InputError(
                f"{option} is {text!r}; allowed are {', '.join(PRECISIONS)}{nearest(text, PRECISIONS) or '.'}"
            )
        from splora.precision import resolve

        wanted = {"auto": resolve("auto"), "bf16": "bf16-mixed"}.get(text, "32-true")
        return cls("bf16" if wanted == "bf16-mixed" else "fp32")

    @property
    def itemsize(self) -> int:
        """Bytes of a number that a linear layer puts out in a forward pass."""
        return 2 if self.name == "bf16" else 4

    def forward(self, device: torch.device) -> torch.autocast:
        """A context for forward passes on `device`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.name == "bf16")

    @contextmanager
    def products(self, device: torch.device) -> Iterator[None]:
        """A context for products of fp32 matrices on `device`, also within one of forward passes."""
        settings: Any = cast(Any, torch.backends.mkldnn).matmul
        before = settings.fp32_precision
        try:
            if self.name == "bf16":
                settings.fp32_precision = "bf16"
            with torch.autocast(device.type, enabled=False):
                yield
        finally:
            settings.fp32_precision = before
