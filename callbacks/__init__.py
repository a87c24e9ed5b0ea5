"""Lightning callbacks of a run: they schedule and observe; they compute no masks and own no weights."""

from callbacks.graceful_stop import GracefulStop
from callbacks.heartbeat import Heartbeat
from callbacks.mask_pictures import MaskPictures
from callbacks.progress import RunProgressBar
from callbacks.run_result import RunResult
from callbacks.sparsity_schedule import SparsitySchedule
from callbacks.weight_count import WeightCount

__all__ = [
    "GracefulStop",
    "Heartbeat",
    "MaskPictures",
    "RunProgressBar",
    "RunResult",
    "SparsitySchedule",
    "WeightCount",
]
