"""Silences what libraries say about themselves, so that a run's own lines can be read."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Turn off load reports, optional-package notices and advice that does not concern this program's users."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Every process scores all gathered rows: what is logged is the same on all of them already.
    warnings.filterwarnings("ignore", message=".*It is recommended to use .self.log.*sync_dist=True.*")
    # Raised inside Lightning by torch, and inside PEFT by transformers, whatever this program does.
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated")
    # Batches are cut from arrays in memory: worker processes would only cost.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings(
        "ignore", message=".*The number of training batches .* is smaller than the logging interval.*"
    )
