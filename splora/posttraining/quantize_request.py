"""What a person asks of `splora quantize`, and what can be found wrong with it beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from splora.errors import InputError, problems_of
from splora.export.quantized import is_quantized
from splora.posttraining.quantization_grid import GridOptions
from splora.posttraining.quantize_options import QuantizeOptions
from splora.posttraining.request import PruneRequest

#: Of a request's settings, those that quantization does not look at.
_OTHERS = ("budget", "tables", "tokens")


@dataclass(frozen=True)
class QuantizeRequest(PruneRequest):
    """One quantization: what it has in common with a pruning whose budget is everything.

    `method` is `gptq` or `rtn`; `choices` are `bits`, `group_size` (-1: whole rows), `symmetric`, `act_order`,
    `damping`, `storage`, and `half`: what is not quantized is stored in fp16.
    """

    def options(self) -> QuantizeOptions:
        """The method's options."""
        choices = self.choices
        size = choices["group_size"]
        return QuantizeOptions(
            grid=GridOptions(choices["bits"], None if size == -1 else size, choices["symmetric"]),
            method=self.method,  # type: ignore[arg-type]  # `check` looks at it
            act_order=choices["act_order"],
            damping=choices["damping"],
            storage=choices["storage"],
        )

    def settings(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return {name: value for name, value in super().settings().items() if name not in _OTHERS}

    def check(self) -> None:
        """Find what is wrong with the request itself; loads no model and no data.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = problems_of(super().check, self.options().check, self._check_model)
        if problems:
            raise InputError(problems)

    def _check_model(self) -> None:
        if is_quantized(self.model):
            raise InputError(f"{self.model}: this model is quantized already; pass the one that it was made from.")
