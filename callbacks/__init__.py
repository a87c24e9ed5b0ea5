"""Lightning callbacks of a run: they schedule and observe; they compute no masks and own no weights."""

from splora.callbacks.best_score import BestWeights, EarlyStop
from splora.callbacks.graceful_stop import GracefulStop
from splora.callbacks.heartbeat import Heartbeat
from splora.callbacks.mask_pictures import MaskPictures
from splora.callbacks.progress import RunProgressBar
from splora.callbacks.run_result import RunResult
from splora.callbacks.sparsity_schedule import SparsitySchedule
from splora.callbacks.weight_count import WeightCount

__all__ = [
    "BestWeights",
    "EarlyStop",
    "GracefulStop",
    "Heartbeat",
    "MaskPictures",
    "RunProgressBar",
    "RunResult",
    "SparsitySchedule",
    "WeightCount",
]
