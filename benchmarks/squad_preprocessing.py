"""SQuAD to windows: this project against a Python loop over examples with the same tokenizer. Target: 3 × as fast.

Both run in one process, in turn, and must give equal features. Reading the file and loading the tokenizer are not
counted, a cached result even less. Run by hand::

    python benchmarks/squad_preprocessing.py [--file …/train.json] [--model …/minilm-l6] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splora.errors import exit_on_input_error
from splora.tasks.hub import load_tokenizer
from splora.tasks.squad_features import Windows, cut_windows
from splora.tasks.squad_json import Question, read_squad

SHARED = Path(__file__).resolve().parents[2] / "shared"

#: Ids, token types, first and last token of the answer of one window.
Row = tuple[list[int], list[int], int, int]


def loop(questions: list[Question], tokenizer: Any, max_seq_length: int, doc_stride: int) -> list[Row]:
    """One call of the tokenizer per example, and a walk over each window's offsets for the answer."""
    rows: list[Row] = []
    for one in questions:
        encoded = tokenizer(
            one.question.lstrip(),
            one.context,
            truncation="only_second",
            max_length=max_seq_length,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for window, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
            sequence = encoded.sequence_ids(window)
            start = end = 0
            if one.span is not None:
                begin, last = sequence.index(1), len(sequence) - 1
                while sequence[last] != 1:
                    last -= 1
                if offsets[begin][0] <= one.span[0] and offsets[last][1] >= one.span[1]:
                    while begin <= last and offsets[begin][0] <= one.span[0]:
                        begin += 1
                    while offsets[last][1] >= one.span[1]:
                        last -= 1
                    start, end = begin - 1, last + 1
            rows.append((ids, encoded["token_type_ids"][window], start, end))
    return rows


def rows_of(windows: Windows) -> list[Row]:
    """Windows in the loop's form."""
    slices = [slice(begin, end) for begin, end in zip(windows.offsets[:-1], windows.offsets[1:], strict=True)]
    positions = zip(slices, windows.start_positions.tolist(), windows.end_positions.tolist(), strict=True)
    return [
        (windows.input_ids[s].tolist(), windows.token_type_ids[s].tolist(), start, end) for s, start, end in positions
    ]


def main() -> None:
    """Print the medians of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default=str(SHARED / "data/squad/train.json"))
    parser.add_argument("--model", default=str(SHARED / "models/minilm-l6"))
    parser.add_argument("--max-seq-length", type=int, default=384)
    parser.add_argument("--doc-stride", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with exit_on_input_error():
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Time both in turn and check that their features are equal."""
    questions, tokenizer = read_squad(options.file), load_tokenizer(options.model)
    arguments = (questions, tokenizer, options.max_seq_length, options.doc_stride)
    theirs: list[float] = []
    ours: list[float] = []
    expected: list[Row] = []
    for _ in range(options.repeats):
        # The loop's millions of objects would slow down whatever is timed while they are kept.
        expected.clear()
        windows = timed(ours, lambda: cut_windows(*arguments))
        expected += timed(theirs, lambda: loop(*arguments))
    different = sum(a != b for a, b in zip(rows_of(windows), expected, strict=True))
    slow, fast = statistics.median(theirs), statistics.median(ours)
    print(f"{len(questions):,} questions, {len(windows):,} windows of at most {options.max_seq_length} tokens")
    print(f"loop over examples  {slow:6.2f} s")
    print(f"splora              {fast:6.2f} s   {slow / fast:.1f} × as fast (target 3 ×)")
    print("features are equal" if not different else f"features of {different:,} windows differ")
    if different:
        raise SystemExit(1)


def timed(into: list[float], work: Callable[[], Any]) -> Any:
    """Do the work and note its seconds."""
    start = time.perf_counter()
    result = work()
    into.append(time.perf_counter() - start)
    return result


if __name__ == "__main__":
    main()
