"""Gemma (Gemma Team 2024): Llama's layers, with norms around one and scaled embeddings."""

from splora.anatomy.family import LLAMA_LIKE, Family

FAMILY = Family(model_type="gemma", classes="Gemma", begins=True, **LLAMA_LIKE)
