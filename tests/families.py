"""A tiny random model of every architecture, made from its configuration class on the spot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny

_WORDS = len(tiny.SPECIAL + tiny.WORDS) + 5  # some tokenizers add special tokens of their own when they are loaded
_BERT = {"max_position_embeddings": 66}
_WIDE = {"hidden_size": 128, "intermediate_size": 512}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ENDS = {"bos_token_id": 2, "eos_token_id": 3}
_NEOX = {"max_position_embeddings": 64, **_ENDS}
_FALCON = {"max_position_embeddings": 64, "ffn_hidden_size": 64, **_ENDS}
_GROUPED = {"num_key_value_heads": 2, "max_position_embeddings": 64, "use_cache": True}


@dataclass(frozen=True)
class Architecture:
    """A kind of model.

    ``options`` are of its configuration class, beside the sizes that all share under the names that transformers gives them;
    ``wide`` makes it larger than a megabyte; ``bytes``: transformers takes its tokenizer for one of bytes, whatever it is;
    ``classifies``: there is a class of it that classifies.
    """

    name: str
    config: str
    options: dict[str, Any] = field(default_factory=dict)
    sizes: bool = True
    modality: str = "text"
    generates: bool = False
    translates: bool = False
    refused: str | None = None
    wide: dict[str, int] = field(default_factory=dict)
    bytes: bool = False
    classifies: bool = True

    @property
    def experts(self) -> bool:
        """Whether it is a mixture of experts."""
        return "num_experts_per_tok" in self.options

    def build_config(self, **changes: Any):
        """Make its configuration."""
        import transformers

        sizes = {
            "hidden_size": tiny.HIDDEN,
            "num_attention_heads": tiny.HEADS,
            "intermediate_size": tiny.NEURONS,
            "num_hidden_layers": tiny.LAYERS,
        }
        words = {"vocab_size": _WORDS, "pad_token_id": 0} if self.modality == "text" else {}
        given = (sizes if self.sizes else {}) | words | {"num_labels": 2} | self.options | changes
        return getattr(transformers, self.config)(**given)

    def build(self, head: str | None = None, seed: int = 0, **changes: Any):
        """Make a model with weights large enough for masks to matter.

        Args:
            head: What it is for, or the transformers class that makes it; its usual task when None.
            seed: Of the weights.
            changes: Options of the configuration.
        """
        import torch
        import transformers

        config = self.build_config(**changes)
        classes = {
            "classification": "AutoModelForSequenceClassification"
            if self.modality == "text"
            else "AutoModelForImageClassification",
            "base": "AutoModel",
            "generation": "AutoModelForSeq2SeqLM" if self.translates else "AutoModelForCausalLM",
        }
        head = head or ("classification" if self.classifies else "generation")
        torch.manual_seed(seed)
        model = getattr(transformers, classes.get(head, head)).from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim in (2, 3) and "embed" not in name and "wte" not in name and "wpe" not in name:
                    parameter.normal_(std=0.2)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.1)
        return model.eval()

    @property
    def task(self):
        """The type of task that most models of its kind have."""
        if not self.classifies:
            return "summarization" if self.translates else "text-generation"
        return "text-classification" if self.modality == "text" else "image-classification"

    def write_for(self, task_type: str, folder: Path, *, sharded: bool = False) -> Path:
        """Write a model of a task, where there are such; else one of its usual task.

        Args:
            task_type: The task.
            folder: Where to.
            sharded: Make it large enough for two files, and write it in several.
        """
        from pruning_core.checks.heads import LOADED_BY
        from pruning_core.spec.tasks import KINDS
        from tests.tasks import classes_of

        own = task_type if KINDS[task_type].loads_as in LOADED_BY.get(self.build_config().model_type, ()) else self.task
        changes = {} if (names := classes_of(own)) is None else {"num_labels": len(names), "id2label": dict(enumerate(names))}
        return self.write(folder, KINDS[own].loads_as, sharded=sharded, **changes, **(self.wide if sharded else {}))

    def write(self, folder: Path, head: str | None = None, *, sharded: bool = False, **options) -> Path:
        """Write a model with what reads its inputs."""
        self.build(head, **options).save_pretrained(folder, max_shard_size="500KB" if sharded else "5GB")
        if self.modality == "text":
            (tiny.write_byte_tokenizer if self.bytes else tiny.write_tokenizer)(folder)
        else:
            from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

            ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
        return folder

    def inputs(self):
        """Make a batch of three, one of them padded."""
        import torch

        generator = torch.Generator().manual_seed(0)
        if self.modality == "image":
            return {"pixel_values": torch.randn(3, 3, 8, 8, generator=generator)}
        ids = torch.randint(5, 60, (3, 9), generator=generator)
        mask = torch.ones_like(ids)
        mask[1, 6:], ids[1, 6:] = 0, 0
        ids[0, 8] = ids[1, 5] = ids[2, 8] = 3  # the token that ends a sequence
        decoded = {} if self.classifies or not self.translates else {"decoder_input_ids": ids[:, :5]}
        return {"input_ids": ids, "attention_mask": mask, **decoded}


_DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_position_embeddings": 64}

_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}

_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "eos_token_id": 3,
    "bos_token_id": 2,
    "decoder_start_token_id": 2,
    "num_labels": 3,  # two are not written into a config, and BART takes three for none
}

ARCHITECTURES = {
    own.name: own
    for own in (
        Architecture("bert", "BertConfig", _BERT, wide=_WIDE),
        Architecture(
            "distilbert", "DistilBertConfig", {"dim": 32, "n_heads": 4, "hidden_dim": 64, "n_layers": 2, **_BERT}, sizes=False
        ),
        Architecture("roberta", "RobertaConfig", _BERT),
        Architecture("xlm-roberta", "XLMRobertaConfig", _BERT),
        Architecture("camembert", "CamembertConfig", _BERT),
        Architecture("electra", "ElectraConfig", {"embedding_size": 16, **_BERT}),
        Architecture("mpnet", "MPNetConfig", _BERT),
        Architecture("ernie", "ErnieConfig", _BERT),
        Architecture("megatron-bert", "MegatronBertConfig", _BERT),
        Architecture("xlm-roberta-xl", "XLMRobertaXLConfig", _BERT),
        Architecture("roberta-prelayernorm", "RobertaPreLayerNormConfig", _BERT),
        Architecture("deberta", "DebertaConfig", _DEBERTA),
        Architecture("deberta-v2", "DebertaV2Config", _DEBERTA),
        Architecture(
            "deberta-v3",
            "DebertaV2Config",
            {
                **_DEBERTA,
                "share_att_key": True,
                "position_buckets": 8,
                "norm_rel_ebd": "layer_norm",
                "position_biased_input": False,
            },
        ),
        Architecture(
            "modernbert",
            "ModernBertConfig",
            {"max_position_embeddings": 64, "local_attention": 8, "global_attn_every_n_layers": 2, "num_hidden_layers": 3},
        ),
        Architecture("gpt2", "GPT2Config", {"n_positions": 64}, generates=True, wide={"hidden_size": 128}),
        Architecture(
            "opt", "OPTConfig", {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}, generates=True
        ),
        Architecture(
            "opt-post-norm",
            "OPTConfig",
            {"ffn_dim": 64, "word_embed_proj_dim": 16, "max_position_embeddings": 64, "do_layer_norm_before": False},
            generates=True,
        ),
        Architecture("gpt-neox", "GPTNeoXConfig", _NEOX, generates=True),
        Architecture("gpt-neox-in-turn", "GPTNeoXConfig", {**_NEOX, "use_parallel_residual": False}, generates=True),
        Architecture("phi", "PhiConfig", {**_NEOX, "resid_pdrop": 0.0}, generates=True),
        Architecture(
            "gptj",
            "GPTJConfig",
            {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_inner": 64, "n_positions": 64, "rotary_dim": 4, **_ENDS},
            sizes=False,
            generates=True,
        ),
        Architecture(
            "falcon",
            "FalconConfig",
            {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
            generates=True,
        ),
        Architecture("falcon-one-key", "FalconConfig", _FALCON, generates=True),
        Architecture(
            "falcon-in-turn", "FalconConfig", {**_FALCON, "multi_query": False, "parallel_attn": False}, generates=True
        ),
        Architecture("phi3", "Phi3Config", {**_NEOX, "num_key_value_heads": 2}, generates=True),
        Architecture("olmo2", "Olmo2Config", {**_GROUPED, **_ENDS}, generates=True),
        Architecture("cohere", "CohereConfig", {**_GROUPED, **_ENDS}, generates=True, classifies=False),
        Architecture("cohere2", "Cohere2Config", {**_GROUPED, **_ENDS, "sliding_window": 4}, generates=True, classifies=False),
        Architecture(
            "falcon-alibi",
            "FalconConfig",
            {**_FALCON, "multi_query": False, "parallel_attn": False, "alibi": True},
            generates=True,
            refused="its positions bias attention by a slope for each head",
        ),
        Architecture(
            "cohere-norms",
            "CohereConfig",
            {**_GROUPED, **_ENDS, "use_qk_norm": True},
            generates=True,
            classifies=False,
            refused="its queries and keys have norms with weights for each head",
        ),
        Architecture(
            "stablelm-side-by-side", "StableLmConfig", {**_GROUPED, **_ENDS, "use_parallel_residual": True}, generates=True
        ),
        Architecture("llama", "LlamaConfig", _GROUPED, generates=True),
        Architecture("mistral", "MistralConfig", {**_GROUPED, "sliding_window": 4}, generates=True),
        Architecture("qwen2", "Qwen2Config", _GROUPED, generates=True, bytes=True),
        Architecture("qwen3", "Qwen3Config", {**_GROUPED, "head_dim": 16}, generates=True),
        Architecture("granite", "GraniteConfig", {**_GROUPED, "residual_multiplier": 0.22}, generates=True, classifies=False),
        Architecture("stablelm", "StableLmConfig", _GROUPED, generates=True),
        Architecture("olmo", "OlmoConfig", _GROUPED, generates=True),
        Architecture("gemma", "GemmaConfig", {**_GROUPED, "head_dim": 16}, generates=True),
        Architecture("gemma2", "Gemma2Config", {**_GROUPED, "head_dim": 16, "sliding_window": 4}, generates=True),
        Architecture("gemma3", "Gemma3TextConfig", {**_GROUPED, "head_dim": 16, "sliding_window": 4}, generates=True),
        Architecture(
            "mixtral", "MixtralConfig", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}, generates=True
        ),
        Architecture(
            "qwen2-moe",
            "Qwen2MoeConfig",
            {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 24},
            generates=True,
            bytes=True,
        ),
        Architecture("qwen3-moe", "Qwen3MoeConfig", {**_GROUPED, **_EXPERTS, "head_dim": 16}, generates=True),
        Architecture(
            "olmoe",
            "OlmoeConfig",
            {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "eos_token_id": 3},
            generates=True,
            classifies=False,
        ),
        Architecture(
            "granitemoe",
            "GraniteMoeConfig",
            {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "residual_multiplier": 0.22},
            generates=True,
            classifies=False,
        ),
        Architecture(
            "gpt-oss",
            "GptOssConfig",
            {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "eos_token_id": 3},
            generates=True,
        ),
        Architecture(
            "t5",
            "T5Config",
            {**_T5, "feed_forward_proj": "relu"},
            sizes=False,
            generates=True,
            translates=True,
            wide={"d_model": 128, "d_kv": 32, "d_ff": 512},
        ),
        Architecture(
            "t5-gated", "T5Config", {**_T5, "feed_forward_proj": "gated-gelu"}, sizes=False, generates=True, translates=True
        ),
        Architecture("mt5", "MT5Config", _T5, sizes=False, generates=True, translates=True),
        Architecture("bart", "BartConfig", _BART, sizes=False, generates=True, translates=True),
        Architecture("mbart", "MBartConfig", _BART, sizes=False, generates=True, translates=True),
        Architecture("marian", "MarianConfig", _BART, sizes=False, generates=True, translates=True, classifies=False),
        Architecture("pegasus", "PegasusConfig", _BART, sizes=False, generates=True, translates=True, classifies=False),
        Architecture("m2m-100", "M2M100Config", _BART, sizes=False, generates=True, translates=True, classifies=False),
        Architecture("vit", "ViTConfig", {"image_size": 8, "patch_size": 4}, modality="image", wide=_WIDE),
        Architecture(
            "deit",
            "DeiTConfig",
            {"image_size": 8, "patch_size": 4, "architectures": ["DeiTForImageClassification"]},
            modality="image",
        ),
        Architecture(
            "dinov2",
            "Dinov2Config",
            {"image_size": 8, "patch_size": 4, "mlp_ratio": 2, "layerscale_value": 0.5},
            modality="image",
        ),
        Architecture(
            "albert",
            "AlbertConfig",
            {"embedding_size": 16, "num_hidden_layers": 3, **_BERT},
        ),
        Architecture(
            "albert-groups",
            "AlbertConfig",
            {"embedding_size": 16, "num_hidden_groups": 2, **_BERT},
            refused="its layers share several blocks",
        ),
        Architecture(
            "deberta-v2-xlarge",
            "DebertaV2Config",
            {**_DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu"},
        ),
        Architecture(
            "deberta-talking",
            "DebertaConfig",
            {**_DEBERTA, "talking_head": True},
            refused="its heads are mixed with each other",
        ),
    )
}
SUPPORTED = [own for own in ARCHITECTURES.values() if own.refused is None]
REFUSED = [own for own in ARCHITECTURES.values() if own.refused is not None]
