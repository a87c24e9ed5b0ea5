"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's parts, with biases in query, key and value."""

from splora.anatomy.family import LLAMA_LIKE, Family

FAMILY = Family(model_type="qwen2", classes="Qwen2", **LLAMA_LIKE)
