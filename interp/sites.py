"""Sites: named places in the residual stream, with the Hugging Face module and the TransformerLens name of each."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from interp.runs.checks import check_known

SITE_NAMES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
EXECUTION_ORDER = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


@dataclass(frozen=True, order=True)
class Site:
    """One place in the residual stream, at a 0-indexed layer.

    ``resid_pre`` is the block input, ``resid_mid`` the stream after attention was added, ``resid_post`` the block
    output; ``attn_out`` and ``mlp_out`` are what a block *adds* to the stream (after Gemma's and OLMo2's post-norms).
    ``resid_pre.0`` is the embedding. ``resid_post.L`` equals Hugging Face ``hidden_states[L + 1]``, except at the last
    layer, where Hugging Face reports the stream after the final norm.

    Raises:
        ValueError: If the name is unknown or the layer negative.
    """

    name: str
    layer: int

    def __post_init__(self) -> None:
        check_known(self.name, SITE_NAMES, f"site {self.name!r}: the sites are")
        if self.layer < 0:
            raise ValueError(f"site {self.name}.{self.layer}: layers count from 0")

    def __str__(self) -> str:
        return f"{self.name}.{self.layer}"

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read ``resid_post.3``.

        Raises:
            ValueError: If the text is not ``name.layer`` with a known name.
        """
        match = re.fullmatch(r"(\w+)\.(\d+)", text)
        if match is None:
            raise ValueError(f"site {text!r}: write it as name.layer, such as resid_post.3")
        return cls(match[1], int(match[2]))

    @property
    def transformer_lens(self) -> str:
        """The TransformerLens hook name, such as ``blocks.3.hook_resid_post``."""
        return f"blocks.{self.layer}.hook_{self.name}"

    @property
    def execution(self) -> tuple[int, int]:
        """Sort key: the order in which a forward pass reaches the sites."""
        return self.layer, EXECUTION_ORDER.index(self.name)


def require_layer(layer: int, n_layers: int | None, name: object) -> None:
    """Refuse a layer that a model of so many layers lacks; their number is None where it is not known yet.

    Raises:
        ValueError: If it does; restates the name.
    """
    if n_layers is not None and not 0 <= layer < n_layers:
        raise ValueError(f"{name}: the model has layers 0..{n_layers - 1}")


def resid_post(layers: Iterable[int]) -> tuple[Site, ...]:
    """Return the block output of each layer."""
    return tuple(Site("resid_post", layer) for layer in layers)


def index_of(site: Site, position: str, sites: Sequence[Site], positions: Sequence[str]) -> tuple[int, int]:
    """Return the indices of a site and of a position among the recorded ones.

    Raises:
        ValueError: If the site or the position was not recorded; names those that were.
    """
    for kind, wanted, recorded in (("site", site, sites), ("position", position, positions)):
        check_known(wanted, recorded, f"{kind} {wanted}: recorded were")
    return sites.index(site), positions.index(position)


@dataclass(frozen=True)
class Block:
    """Paths of a decoder layer's submodules, by their role at the inner sites.

    Attributes:
        attn_out: Its output is what attention adds to the stream. Alternatives (``self_attn|mamba``) are for families
            that mix layers: in a layer without attention, ``attn_out`` is what stands in its place.
        mid: Its input is ``resid_mid``; empty if attention and MLP run in parallel.
        mlp_out: Its output is what the MLP, or the mixture of experts, adds to the stream.
        writers: The last linear modules of attention and of the MLP; None where weights cannot be orthogonalised.
    """

    attn_out: str
    mid: str
    mlp_out: str
    writers: tuple[str, str] | None = ("self_attn.o_proj", "mlp.down_proj")

    @property
    def post_normed(self) -> bool:
        """Whether a norm stands between the writers and the stream: a rescaling that no change of weights undoes."""
        return self.attn_out.endswith("layernorm")


_PRE = ("self_attn", "post_attention_layernorm", "mlp")
_POST = ("post_attention_layernorm", "mlp", "post_feedforward_layernorm")
_GEMMA = Block("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
_ALIKE = {
    Block(*_PRE): "llama arcee bitnet diffllama ernie4_5 gemma glm helium hunyuan_v1_dense ministral mistral nemotron "
    "olmo qwen2 qwen3 seed_oss smollm3 stablelm",
    Block(*_PRE, writers=None): "deepseek_v2 deepseek_v3 dots1 ernie4_5_moe glm4_moe gpt_oss hunyuan_v1_moe minimax_m2 "
    "mixtral olmoe phimoe qwen2_moe qwen3_moe",
    Block("self_attn|linear_attn", *_PRE[1:], writers=None): "qwen3_5_text qwen3_5_moe_text qwen3_next",
    Block("self_attn|mamba", "pre_ff_layernorm", "feed_forward", writers=None): "bamba jamba",
    Block("self_attn|conv", "ffn_norm", "feed_forward", writers=None): "lfm2 lfm2_moe",
    _GEMMA: "gemma2 gemma3_text",
    Block(*_POST): "olmo2 olmo3 exaone4",
    Block(*_POST, writers=None): "flex_olmo",
    Block("self_attn", "", "mlp"): "cohere cohere2",
    Block("attn", "", "mlp", ("attn.out_proj", "mlp.fc_out")): "codegen gptj",
    Block("attn", "ln_2", "mlp", ("attn.c_proj", "mlp.c_proj")): "gpt2 gpt_bigcode",
    Block("self_attn", "final_layer_norm", "fc2", None): "biogpt xglm",
}
_BLOCKS = {family: block for block, families in _ALIKE.items() for family in families.split()}
BLOCKS: Mapping[str, Block] = MappingProxyType(
    {
        **_BLOCKS,
        "apertus": Block("self_attn", "feedforward_layernorm", "mlp"),
        "falcon": Block(
            "self_attention", "post_attention_layernorm", "mlp", ("self_attention.dense", "mlp.dense_4h_to_h")
        ),
        "glm4": Block("post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm", None),
        "gpt_neo": Block("attn", "ln_2", "mlp", ("attn.attention.out_proj", "mlp.c_proj")),
        "gpt_neox": Block(
            "post_attention_dropout",
            "post_attention_layernorm",
            "post_mlp_dropout",
            ("attention.dense", "mlp.dense_4h_to_h"),
        ),
        "llama4_text": Block("self_attn", "post_attention_layernorm", "feed_forward", None),
        "mpt": Block("attn", "norm_2", "ffn.down_proj", ("attn.out_proj", "ffn.down_proj")),
        "nanochat": Block(*_PRE, writers=None),
        "phi": Block("self_attn", "", "mlp", ("self_attn.dense", "mlp.fc2")),
        "phi3": Block("resid_attn_dropout", "post_attention_layernorm", "resid_mlp_dropout"),
        "recurrent_gemma": Block("temporal_block", "channel_pre_norm", "mlp_block", None),
        "starcoder2": Block(*_PRE, ("self_attn.o_proj", "mlp.c_proj")),
        "vaultgemma": Block("self_attn", "pre_feedforward_layernorm", "mlp"),
    }
)
"""What is known of each model family, by ``config.model_type`` of its text model."""


def block_of(family: str) -> Block:
    """Return the paths of a family's inner sites.

    Raises:
        ValueError: If the family is not in ``BLOCKS``. ``resid_pre`` and ``resid_post`` need no entry and work on any
            decoder.
    """
    if family not in BLOCKS:
        raise ValueError(f"family {family!r}: attn_out, resid_mid and mlp_out are not known for it")
    return BLOCKS[family]
