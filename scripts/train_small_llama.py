"""Trains the project's own small Llama, tokenizer included, on a text, in minutes.

python scripts/train_small_llama.py --data_dir ../shared/data/wikitext2 --output_dir output/small-llama

Without --data_dir it learns the embedded corpus.
"""

from __future__ import annotations

from splora.training import decoder_command


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and save."""
    decoder_command.main("llama", arguments)


if __name__ == "__main__":
    main()
