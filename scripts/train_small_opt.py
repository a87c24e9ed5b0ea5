"""Trains the project's own small OPT, tokenizer included, on a text; about eight minutes on one core.

python scripts/train_small_opt.py --data_dir ../shared/data/wikitext2 --output_dir output/small-opt

Without --data_dir it learns the embedded corpus.
"""

from __future__ import annotations

from splora.training import decoder_command


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and save."""
    decoder_command.main("opt", arguments)


if __name__ == "__main__":
    main()
