"""Mistral (Jiang et al. 2023): Llama's parts, with attention that may see a window only."""

from splora.anatomy.family import LLAMA_LIKE, Family

FAMILY = Family(model_type="mistral", classes="Mistral", **LLAMA_LIKE)
