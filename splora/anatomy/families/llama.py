"""Llama (Touvron et al. 2023): grouped queries, gated feed-forward parts, norms first, rotary positions."""

from splora.anatomy.family import LLAMA_LIKE, Family

FAMILY = Family(model_type="llama", classes="Llama", **LLAMA_LIKE)
