"""The model class of bundles in vLLM: Llama with layers of their own shapes. Imported by vLLM alone, where it is installed.

DeciLM's class, which vLLM has, holds FFN widths and absent attention. This one also holds numbers of query heads and of
key-value heads that differ by layer: ``attention.num_key_value_heads`` of a block, each with ``n_heads_in_group`` queries.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.models.llama import LlamaMLP
from vllm.model_executor.models.nemotron_nas import DeciLMAttention, DeciLMForCausalLM, DeciModel


class CoppiceDecoderLayer(nn.Module):
    """One layer: its attention or none, and its FFN."""

    def __init__(
        self, config: Any, layer_idx: int, cache_config: Any = None, quant_config: Any = None, prefix: str = ""
    ) -> None:
        super().__init__()
        block = config.block_configs[layer_idx]
        self._is_no_op_attention: bool = block.attention.get("no_op", False)  # the name that DeciModel reads
        if not self._is_no_op_attention:
            heads, keys = heads_of(block.attention, config)
            has_bias = getattr(config, "attention_bias", False)
            self.self_attn = DeciLMAttention(
                config=config,
                hidden_size=config.hidden_size,
                num_heads=heads,
                num_kv_heads=keys,
                max_position_embeddings=config.max_position_embeddings,
                quant_config=quant_config,
                bias=getattr(config, "qkv_bias", has_bias),
                bias_o_proj=has_bias,
                cache_config=cache_config,
                prefix=f"{prefix}.self_attn",
            )
            self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = LlamaMLP(
            hidden_size=config.hidden_size,
            intermediate_size=block.ffn.intermediate_size,
            hidden_act=config.hidden_act,
            quant_config=quant_config,
            bias=getattr(config, "mlp_bias", False),
            prefix=f"{prefix}.mlp",
        )
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the layer's output, which is still to be added to the residual, and the residual."""
        if not self._is_no_op_attention:
            if residual is None:
                residual = hidden_states
                hidden_states = self.input_layernorm(hidden_states)
            else:
                hidden_states, residual = self.input_layernorm(hidden_states, residual)
            hidden_states = self.self_attn(positions=positions, hidden_states=hidden_states)
        elif residual is None:  # the first layer has no attention: the embeddings are the residual
            residual = hidden_states
            return self.mlp(self.post_attention_layernorm(hidden_states)), residual
        hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
        return self.mlp(hidden_states), residual


def heads_of(attention: Any, config: Any) -> tuple[int, int]:
    """Return the numbers of query heads and of key-value heads: as they stand there, or by DeciLM's size of a group."""
    group = attention.get("n_heads_in_group") or config.num_attention_heads // config.num_key_value_heads
    keys = attention.get("num_key_value_heads")
    if not keys:
        return config.num_attention_heads, config.num_attention_heads // group
    return attention.get("num_attention_heads") or keys * group, keys


@support_torch_compile
class CoppiceModel(DeciModel):
    """The stack of such layers."""


class CoppiceForCausalLM(DeciLMForCausalLM):
    """The stack with its head."""

    def _init_model(self, vllm_config: Any, prefix: str = "") -> nn.Module:
        return CoppiceModel(vllm_config=vllm_config, prefix=prefix, layer_type=CoppiceDecoderLayer)
