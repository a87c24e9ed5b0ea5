"""GPT-2 (Radford et al. 2019), a decoder: fused query, key and value, weights stored transposed, norms first."""

from splora.anatomy.family import Family

FAMILY = Family(
    model_type="gpt2",
    classes="GPT2",
    tasks=("SequenceClassification", "QuestionAnswering", "CausalLM"),
    language_model="GPT2LMHeadModel",
    layers="transformer.h",
    linears={
        "query": "attn.c_attn",
        "key": "attn.c_attn",
        "value": "attn.c_attn",
        "attention_output": "attn.c_proj",
        "ffn_in": "mlp.c_fc",
        "ffn_out": "mlp.c_proj",
    },
    transposed=True,
    norms=("ln_1", "ln_2", "ln_f"),
    heads=("score", "qa_outputs"),
    attention="attn",
    head_count="num_heads",
    layer_norms=("ln_1", "ln_2"),
    activation="mlp.act",
    feed_forward=("mlp",),
    dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"),
    sizes=("n_head", "n_inner"),
    width="n_embd",
    depth="n_layer",
    norm_first=True,
    causal=True,
    excluded={"add_cross_attention": "layers that look at another model's states have no description here"},
)
