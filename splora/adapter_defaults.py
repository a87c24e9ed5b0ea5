"""Sizes and first ranges of adapters where nobody says others: of the sheet's columns, and of PEFT's configurations."""

from __future__ import annotations

#: SPLoPA: prototypes K, the rank R of each, and the root mean square of its entries at the start.
PROTOTYPES, PROTOTYPE_RANK, PROTOTYPE_RANGE = 64, 2, 2e-2
#: SPLoRA: rank r, and A starts uniform between ∓ this.
SPLORA_RANK, SPLORA_RANGE = 8, 1e-2
