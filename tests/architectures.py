"""Tiny configurations of the architectures that are tested: three layers, 32 wide, from the real config classes."""

import torch
import transformers
from transformers import AutoModelForCausalLM

from interp.models import LanguageModel, wrap
from tests import tiny

GROUPED = {"num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 8}
GEMMA = {**HEADS, "query_pre_attn_scalar": 8, "sliding_window": 8}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
SHARED = {"shared_expert_intermediate_size": 16}
ROUTED = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GROUPS = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
LINEAR = {"layer_types": ["linear_attention", "linear_attention", "full_attention"]}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ARCHITECTURES = {
    # dense attention
    "llama": ("LlamaConfig", GROUPED),
    "llama_bias": ("LlamaConfig", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "llama_rope3": ("LlamaConfig", {**GROUPED, "rope_parameters": LLAMA3_ROPE}),
    "llama_tied": ("LlamaConfig", {**GROUPED, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {**GROUPED, "sliding_window": None}),
    "mistral_window": ("MistralConfig", {**GROUPED, "sliding_window": 8}),
    "ministral": ("MinistralConfig", {**HEADS, "sliding_window": 8, **MIXED}),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", HEADS),
    "phi": ("PhiConfig", {}),
    "phi3": ("Phi3Config", GROUPED),
    "gemma": ("GemmaConfig", HEADS),
    "gemma2": ("Gemma2Config", GEMMA),
    "gemma3": ("Gemma3TextConfig", {**GEMMA, **MIXED}),
    "olmo": ("OlmoConfig", GROUPED),
    "olmo2": ("Olmo2Config", GROUPED),
    "olmo3": ("Olmo3Config", {**GROUPED, "sliding_window": 8, **MIXED}),
    "smollm3": ("SmolLM3Config", {**GROUPED, "no_rope_layer_interval": 2}),
    "granite": ("GraniteConfig", {**GROUPED, "residual_multiplier": 0.5, "embedding_multiplier": 2.0}),
    "cohere": ("CohereConfig", GROUPED),
    "cohere2": ("Cohere2Config", {**GROUPED, "sliding_window": 8, **MIXED}),
    "glm": ("GlmConfig", HEADS),
    "glm4": ("Glm4Config", HEADS),
    "starcoder2": ("Starcoder2Config", {**GROUPED, "sliding_window": None}),
    "stablelm": ("StableLmConfig", GROUPED),
    "stablelm_parallel": ("StableLmConfig", {**GROUPED, "use_parallel_residual": True}),
    "nemotron": ("NemotronConfig", HEADS),
    "exaone4": ("Exaone4Config", {**GROUPED, "sliding_window": 8, **MIXED}),
    "helium": ("HeliumConfig", HEADS),
    "arcee": ("ArceeConfig", GROUPED),
    "apertus": ("ApertusConfig", GROUPED),
    "ernie4_5": ("Ernie4_5Config", HEADS),
    "hunyuan": ("HunYuanDenseV1Config", HEADS),
    "seed_oss": ("SeedOssConfig", HEADS),
    "bitnet": ("BitNetConfig", GROUPED),
    "vaultgemma": ("VaultGemmaConfig", {**GEMMA, **MIXED}),
    "diffllama": ("DiffLlamaConfig", GROUPED),
    "nanochat": ("NanoChatConfig", GROUPED),
    # older decoders: learned or ALiBi positions, parallel blocks
    "gpt2": ("GPT2Config", {}),
    "gpt_neo": (
        "GPTNeoConfig",
        {"num_layers": 3, "attention_types": [[["global", "local", "global"], 1]], "window_size": 8},
    ),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gpt_neox_serial": ("GPTNeoXConfig", {"use_parallel_residual": False}),
    "gptj": ("GPTJConfig", {"rotary_dim": 4}),
    "codegen": ("CodeGenConfig", {"rotary_dim": 4}),
    "gpt_bigcode": ("GPTBigCodeConfig", {}),
    "opt": ("OPTConfig", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "opt_post": ("OPTConfig", {"ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "bloom": ("BloomConfig", {}),
    "mpt": ("MptConfig", {"d_model": 32, "n_heads": 4, "n_layers": 3}),
    "falcon": ("FalconConfig", {}),
    "falcon_alibi": ("FalconConfig", {"alibi": True}),
    "falcon_new": ("FalconConfig", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "biogpt": ("BioGptConfig", {}),
    "xglm": ("XGLMConfig", {"d_model": 32, "attention_heads": 4, "num_layers": 3, "ffn_dim": 64}),
    # mixtures of experts
    "mixtral": ("MixtralConfig", {**GROUPED, **LOCAL}),
    "phimoe": ("PhimoeConfig", {**GROUPED, **LOCAL}),
    "qwen2_moe": ("Qwen2MoeConfig", {**GROUPED, **EXPERTS, **SHARED}),
    "qwen3_moe": ("Qwen3MoeConfig", {**HEADS, **EXPERTS}),
    "olmoe": ("OlmoeConfig", {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
    "flex_olmo": ("FlexOlmoConfig", {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": ("GptOssConfig", {**HEADS, **LOCAL, "sliding_window": 8, **MIXED}),
    "granitemoe": ("GraniteMoeConfig", {**GROUPED, **LOCAL, "residual_multiplier": 0.5}),
    "granitemoeshared": ("GraniteMoeSharedConfig", {**GROUPED, **LOCAL, "shared_intermediate_size": 16}),
    "deepseek_v2": (
        "DeepseekV2Config",
        {**LATENT, **ROUTED, **GROUPS, "num_key_value_heads": 4, "topk_method": "greedy", "head_dim": 8},
    ),
    "deepseek_v3": ("DeepseekV3Config", {**LATENT, **ROUTED, **GROUPS, "num_key_value_heads": 4}),
    "glm4_moe": ("Glm4MoeConfig", {**HEADS, **ROUTED, **GROUPS}),
    "dots1": ("Dots1Config", {**HEADS, **ROUTED, **GROUPS}),
    "ernie4_5_moe": (
        "Ernie4_5_MoeConfig",
        {**GROUPED, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16, "moe_layer_start_index": 1},
    ),
    "hunyuan_moe": ("HunYuanMoEV1Config", {**HEADS, "num_experts": 4, "moe_topk": 2}),
    "minimax_m2": ("MiniMaxM2Config", {**HEADS, **LOCAL}),
    "llama4": (
        "Llama4TextConfig",
        {
            **HEADS,
            "num_local_experts": 2,
            "intermediate_size_mlp": 64,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 64,
        },
    ),
    # recurrent states: linear attention, state spaces, short convolutions
    "mamba": ("MambaConfig", {"state_size": 8, "time_step_rank": 2}),
    "falcon_mamba": ("FalconMambaConfig", {"state_size": 8, "time_step_rank": 2}),
    "mamba2": (
        "Mamba2Config",
        {"state_size": 8, "num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1, "chunk_size": 8},
    ),
    "jamba": (
        "JambaConfig",
        {
            **GROUPED,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
            "mamba_dt_rank": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 2,
        },
    ),
    "bamba": ("BambaConfig", {**GROUPED, **MAMBA2, "attn_layer_indices": [1]}),
    "falcon_h1": ("FalconH1Config", {**GROUPED, **MAMBA2, "mamba_d_ssm": 64}),
    "granitemoehybrid": (
        "GraniteMoeHybridConfig",
        {**GROUPED, **LOCAL, **MAMBA2, "shared_intermediate_size": 16, "layer_types": ["mamba", "attention", "mamba"]},
    ),
    "zamba": (
        "ZambaConfig",
        {
            "num_key_value_heads": 4,
            "num_hidden_layers": 4,
            "attention_hidden_size": 64,
            "attention_head_dim": 16,
            "mamba_d_state": 8,
            "mamba_dt_rank": 2,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "use_mamba_kernels": False,
        },
    ),
    "zamba2": (
        "Zamba2Config",
        {
            "num_key_value_heads": 4,
            "mamba_d_state": 8,
            "n_mamba_heads": 8,
            "mamba_headdim": 8,
            "mamba_ngroups": 1,
            "chunk_size": 8,
            "layers_block_type": ["mamba", "hybrid", "mamba"],
            "num_mem_blocks": 1,
            "use_mamba_kernels": False,
        },
    ),
    "nemotron_h": (
        "NemotronHConfig",
        {
            **HEADS,
            "ssm_state_size": 8,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "n_groups": 1,
            "chunk_size": 8,
            "layers_block_type": ["mamba", "attention", "mlp"],
            "use_mamba_kernels": False,
        },
    ),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        {**HEADS, "lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "recurrent", "attention"]},
    ),
    "lfm2": ("Lfm2Config", {**GROUPED, "layer_types": ["conv", "full_attention", "conv"]}),
    "lfm2_moe": (
        "Lfm2MoeConfig",
        {**GROUPED, **EXPERTS, "num_dense_layers": 1, "layer_types": ["conv", "full_attention", "conv"]},
    ),
    "qwen3_next": ("Qwen3NextConfig", {**HEADS, **EXPERTS, **SHARED, **DELTA, **LINEAR}),
    "qwen3_5": ("Qwen3_5TextConfig", {**HEADS, **DELTA, **LINEAR}),
    "qwen3_5_moe": ("Qwen3_5MoeTextConfig", {**HEADS, **EXPERTS, **SHARED, **DELTA, **LINEAR}),
    "olmo_hybrid": ("OlmoHybridConfig", {**GROUPED, **DELTA, **LINEAR}),
    "kimi_linear": (
        "KimiLinearConfig",
        {
            **LATENT,
            **LOCAL,
            "num_key_value_heads": 4,
            "q_lora_rank": None,
            "n_shared_experts": 1,
            "moe_intermediate_size": 16,
            "linear_head_dim": 8,
            "linear_num_heads": 4,
            **LINEAR,
        },
    ),
    "minimax": ("MiniMaxConfig", {**HEADS, **LOCAL, "block_size": 8, **LINEAR}),
    "rwkv": ("RwkvConfig", {"attention_hidden_size": 32}),
    "xlstm": ("xLSTMConfig", {"num_heads": 4}),
}
OWN = {"rwkv", "xlstm"}
"""Refused: they keep a state of their own."""


def family(name: str) -> str:
    """The ``model_type`` of a configuration."""
    return getattr(transformers, ARCHITECTURES[name][0]).model_type


def build(name: str, dtype: torch.dtype = torch.float32, **config) -> LanguageModel:
    """A random model of one architecture, which never ends an answer early."""
    config_class, extra = ARCHITECTURES[name]
    sizes = {**tiny.COMMON, "hidden_size": 32, "intermediate_size": 64}
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(
        getattr(transformers, config_class)(**{**sizes, **extra, **config}), dtype=dtype
    )
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    lm = wrap(hf, tiny.tokenizer(), name=name)
    lm.hf.generation_config.eos_token_id = lm.tokenizer.eos_token = lm.tokenizer.chat_template = None
    return lm
