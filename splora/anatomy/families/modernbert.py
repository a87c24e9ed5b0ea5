"""ModernBERT (Warner et al. 2024): fused query, key and value, gated feed-forward parts, mostly local attention."""

from splora.anatomy.family import Family

FAMILY = Family(
    model_type="modernbert",
    classes="ModernBert",
    layers="model.layers",
    linears={
        "query": "attn.Wqkv",
        "key": "attn.Wqkv",
        "value": "attn.Wqkv",
        "attention_output": "attn.Wo",
        "ffn_gate": "mlp.Wi",
        "ffn_in": "mlp.Wi",
        "ffn_out": "mlp.Wo",
    },
    norms=("norm", "attn_norm", "mlp_norm", "final_norm"),
    heads=("head", "classifier"),
    attention="attn",
    head_count=None,
    layer_norms=("attn_norm", "mlp_norm"),
    activation="mlp.act",
    feed_forward=("mlp",),
    dropouts=("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
    pooling="classifier_pooling",
    norm_first=True,
)
