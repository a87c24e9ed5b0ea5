"""Qwen3 (Yang et al. 2025): Llama's parts, with norms of each head's queries and keys, which all heads share."""

from splora.anatomy.family import LLAMA_LIKE, Family

FAMILY = Family(
    model_type="qwen3",
    classes="Qwen3",
    **LLAMA_LIKE | {"norms": (*LLAMA_LIKE["norms"], "q_norm", "k_norm")},
)
