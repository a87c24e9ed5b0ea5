"""Trains the project's own small OPT, tokenizer included, on a text; about eight minutes on one core.

python scripts/train_small_opt.py --data_dir ../shared/data/wikitext2 --output_dir output/small-opt

Without --data_dir it learns the embedded corpus.
"""

from __future__ import annotations

from splora.scripts import train_small_decoder


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and save."""
    train_small_decoder.main("opt", arguments)


if __name__ == "__main__":
    main()
