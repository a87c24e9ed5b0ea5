"""What healing sets where nobody says otherwise: for `splora heal`, the sheet's rows that heal, and recipes.

Chosen on training articles held out from the others, not on evaluation data. Imports no torch.
"""

from __future__ import annotations

from typing import Any

#: Columns of any healing.
COMMON: dict[str, Any] = {
    "per_gpu_train_batch_size": 8,
    "warmup_steps": 50,
    "schedule_total_steps": 500,
    "dropout": 0.0,
    "alpha_ce": 0.1,
    "alpha_distil": 0.5,
    "alpha_hidden": 1.0,
    "best_checkpoint": True,
    "judged_by": "divergence",
    "held_out": 500,
    "evaluate_every_n_steps": 250,
    "checkpoint_every_n_steps": 100,
}
#: Of sentences a step sees as many tokens only where it sees more of them.
SENTENCES: dict[str, Any] = {"per_gpu_train_batch_size": 32}
#: By adapter, what is learned at which rates.
RATES: dict[str, dict[str, Any]] = {
    "none": {"learning_rate": 1e-4},
    "lora": {"learning_rate": 1e-3, "lora_rank": 8},
    "splora": {"learning_rate": 1e-3, "splora_rank": 8.0, "splora_init_range": 2e-2},
    "splopa": {
        "learning_rate": 5e-4,
        "adapter_learning_rate": 1e-3,
        "position_weights_learning_rate": 2e-3,
        "num_splopa_prototypes": 48,
        "splopa_prototype_rank": 2,
        "splopa_init_range": 2e-2,
    },
}
