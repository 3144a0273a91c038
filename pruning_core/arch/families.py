"""The block structures that Coppice can prune, as signatures. Torch-free.

A family is a layout of modules, not a model: Mistral and Qwen share Llama's layout, and so may a model that is not written
yet. The first signature that fits is taken, so more specific layouts come first.
"""

from __future__ import annotations

from dataclasses import replace

from pruning_core.arch.decoders import DECODERS, opt, plain_ffn
from pruning_core.arch.signatures import BlockSignature, SublayerSignature, UnitRows, qkv

_BERT_MODULE = "attention.self"
_BERT_INPUTS = qkv("attention.self.query", "attention.self.key", "attention.self.value")
_BERT_FFN = SublayerSignature(
    kind="neuron",
    inputs=(UnitRows("intermediate.dense"),),
    activation="intermediate.intermediate_act_fn",
    output="output.dense",
    after="output.LayerNorm",
)


def _bert_pre_norm(attention: str, ffn: str, *, returns: int = 0) -> BlockSignature:
    """Describe blocks with BERT's matrices and a norm before each sublayer, at the given paths."""
    return BlockSignature(
        family="bert-pre-norm",
        returns=returns,
        sublayers=(
            SublayerSignature(
                kind="head", module=_BERT_MODULE, inputs=_BERT_INPUTS, output="attention.output.dense", before=attention
            ),
            replace(_BERT_FFN, before=ffn, after=None),
        ),
    )


def _vit(*, attention: tuple[str, str | None], ffn: tuple[str, str | None]) -> tuple[SublayerSignature, ...]:
    return (
        SublayerSignature(
            kind="head",
            module="attention",
            inputs=qkv("attention.q_proj", "attention.k_proj", "attention.v_proj"),
            output="attention.o_proj",
            before=attention[0],
            inner=attention[1],
        ),
        SublayerSignature(
            kind="neuron",
            inputs=(UnitRows("mlp.fc1"),),
            activation="mlp.activation_fn",
            output="mlp.fc2",
            before=ffn[0],
            inner=ffn[1],
        ),
    )


_VIT_ATTENTION_STORED = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}


def _t5(*, gated: bool) -> BlockSignature:
    def attention(path: str, crosses: tuple[tuple[str, str], ...] = ()) -> SublayerSignature:
        return SublayerSignature(
            kind="head",
            module=path,
            inputs=qkv(f"{path}.q", f"{path}.k", f"{path}.v"),
            output=f"{path}.o",
            before=f"{path.rpartition('.')[0]}.layer_norm",
            positions=True,
            crosses=crosses,
        )

    def ffn(path: str) -> SublayerSignature:
        module = f"{path}.DenseReluDense"
        first = (UnitRows(f"{module}.wi_0"), UnitRows(f"{module}.wi_1")) if gated else (UnitRows(f"{module}.wi"),)
        return SublayerSignature(kind="neuron", module=module, inputs=first, output=f"{module}.wo", before=f"{path}.layer_norm")

    family = "t5-gated" if gated else "t5"
    cross = attention(
        "layer.1.EncDecAttention", (("key_value_states", "encoder_hidden_states"), ("mask", "encoder_attention_mask"))
    )
    return BlockSignature(
        family=family,
        returns=3,
        sublayers=(attention("layer.0.SelfAttention"), ffn("layer.1")),
        memory="final_layer_norm",
        decoder=BlockSignature(family, returns=3, sublayers=(attention("layer.0.SelfAttention"), cross, ffn("layer.2"))),
    )


def _bart(*, pre_norm: bool) -> BlockSignature:
    def norms(path: str) -> tuple[str | None, str | None]:
        return (path, None) if pre_norm else (None, path)

    def attention(path: str, crosses: tuple[tuple[str, str], ...] = ()) -> SublayerSignature:
        before, after = norms(f"{path}_layer_norm")
        return SublayerSignature(
            kind="head",
            module=path,
            inputs=qkv(f"{path}.q_proj", f"{path}.k_proj", f"{path}.v_proj"),
            output=f"{path}.out_proj",
            before=before,
            after=after,
            crosses=crosses,
        )

    family = "mbart" if pre_norm else "bart"
    ffn = plain_ffn(*norms("final_layer_norm"))
    cross = attention(
        "encoder_attn", (("key_value_states", "encoder_hidden_states"), ("attention_mask", "encoder_attention_mask"))
    )
    return BlockSignature(
        family=family,
        sublayers=(attention("self_attn"), ffn),
        memory="layer_norm" if pre_norm else None,
        decoder=BlockSignature(family, sublayers=(attention("self_attn"), cross, ffn)),
    )


SIGNATURES = (
    # BERT, RoBERTa, ELECTRA, XLM-R, CamemBERT, MiniLM and others that share BERT's module tree.
    BlockSignature(
        family="bert",
        plain=True,
        sublayers=(
            SublayerSignature(
                kind="head",
                module=_BERT_MODULE,
                inputs=_BERT_INPUTS,
                output="attention.output.dense",
                after="attention.output.LayerNorm",
            ),
            _BERT_FFN,
        ),
    ),
    # Megatron-BERT, XLM-RoBERTa-XL and RoBERTa-PreLayerNorm.
    _bert_pre_norm("attention.ln", "ln", returns=1),
    _bert_pre_norm("attention.self_attn_layer_norm", "LayerNorm"),
    _bert_pre_norm("attention.LayerNorm", "intermediate.LayerNorm"),
    BlockSignature(
        family="distilbert",
        plain=True,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attention",
                inputs=qkv("attention.q_lin", "attention.k_lin", "attention.v_lin"),
                output="attention.out_lin",
                after="sa_layer_norm",
            ),
            SublayerSignature(
                kind="neuron",
                inputs=(UnitRows("ffn.lin1"),),
                activation="ffn.activation",
                output="ffn.lin2",
                after="output_layer_norm",
            ),
        ),
    ),
    # ALBERT: one block for all layers.
    BlockSignature(
        family="albert",
        shared=True,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attention",
                inputs=qkv("attention.query", "attention.key", "attention.value"),
                output="attention.dense",
                after="attention.LayerNorm",
            ),
            SublayerSignature(
                kind="neuron",
                inputs=(UnitRows("ffn"),),
                activation="activation",
                output="ffn_output",
                after="full_layer_layer_norm",
            ),
        ),
    ),
    # Disentangled attention: keys and queries of relative positions have their own matrices, or share those of the tokens.
    BlockSignature(
        family="deberta-v2",
        returns=2,
        joint="conv",
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attention.self",
                inputs=qkv("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
                followers=(UnitRows("attention.self.pos_key_proj"), UnitRows("attention.self.pos_query_proj")),
                output="attention.output.dense",
                after="attention.output.LayerNorm",
            ),
            _BERT_FFN,
        ),
    ),
    # The same with one matrix for queries, keys and values, head by head, and their biases apart.
    BlockSignature(
        family="deberta",
        returns=2,
        float32=True,  # it masks scores by the least number of another type
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attention.self",
                inputs=(UnitRows("attention.self.in_proj", fused="by unit"),),
                followers=(UnitRows("attention.self.pos_proj"), UnitRows("attention.self.pos_q_proj")),
                vectors=("q_bias", "v_bias"),
                output="attention.output.dense",
                after="attention.output.LayerNorm",
            ),
            _BERT_FFN,
        ),
    ),
    BlockSignature(
        family="mpnet",
        returns=1,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attention.attn",
                inputs=qkv("attention.attn.q", "attention.attn.k", "attention.attn.v"),
                output="attention.attn.o",
                after="attention.LayerNorm",
                positions=True,
            ),
            _BERT_FFN,
        ),
    ),
    BlockSignature(
        family="modernbert",
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attn",
                inputs=(UnitRows("attn.Wqkv", pieces=3),),
                output="attn.Wo",
                before="attn_norm",
            ),
            SublayerSignature(
                kind="neuron", module="mlp", inputs=(UnitRows("mlp.Wi", pieces=2),), output="mlp.Wo", before="mlp_norm"
            ),
        ),
    ),
    BlockSignature(
        family="vit",
        sublayers=_vit(attention=("layernorm_before", None), ffn=("layernorm_after", None)),
        stored={**_VIT_ATTENTION_STORED, "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"},
    ),
    # DINOv2: what a sublayer adds is scaled, each entry by its own factor.
    BlockSignature(
        family="dinov2",
        sublayers=_vit(attention=("norm1", "layer_scale1"), ffn=("norm2", "layer_scale2")),
        stored=_VIT_ATTENTION_STORED,
    ),
    *DECODERS,
    _t5(gated=False),
    _t5(gated=True),
    replace(_t5(gated=False), decoder=None, memory=None),  # the encoder alone, for token-classification
    replace(_t5(gated=True), decoder=None, memory=None),
    # mBART, Pegasus, M2M100, NLLB and Blenderbot; then BART and Marian.
    _bart(pre_norm=True),
    _bart(pre_norm=False),
    # BioGPT and XGLM: OPT's modules, pre-norm.
    BlockSignature(family="biogpt", causal=True, sublayers=opt(pre_norm=True)),
)
