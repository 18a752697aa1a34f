"""Where along a conversation a direction is present: the projection of every token, for a heat map.

    >>> row = token_projections(lm, answered(chat, completion.token_ids), site, {"g": g.unit})
    >>> list(zip(row.pieces, row.values["g"]))

Not evidence for: use of the direction by the model. A projection shows presence; compare the same tokens under an edit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.chat import Chat
from interp.directions import project
from interp.edits import Edit, batch_masks, editing
from interp.hooks import hooked
from interp.models import LanguageModel, check_prompts
from interp.sites import Site

UNFINISHED = "\ufffd"
"""What decoding gives for the first bytes of a character whose last bytes are in a later token."""


@dataclass(frozen=True)
class TokenRow:
    """The tokens of one conversation, and by direction the projection of each, in the units of the residual stream."""

    pieces: tuple[str, ...]
    parts: tuple[str, ...]
    """``trigger``, ``question``, ``response``, or empty for what the chat template adds."""
    values: Mapping[str, tuple[float, ...]]


def answered(chat: Chat, token_ids: Sequence[int]) -> Chat:
    """Return a prompt with sampled tokens as its response; no text is tokenised again."""
    span = (len(chat), len(chat) + len(token_ids))
    return replace(chat, token_ids=(*chat.token_ids, *token_ids), spans={**chat.spans, "response": span})


@torch.inference_mode()
def token_projections(
    lm: LanguageModel,
    chat: Chat,
    site: Site,
    directions: Mapping[str, Float[Tensor, " d_model"]],
    *,
    edits: Sequence[Edit] = (),
) -> TokenRow:
    """Project the residual stream at every token of a conversation onto directions, with the active adapter.

    Args:
        lm: The model.
        chat: The conversation, with its response if there is one.
        site: Where to read; it is read after its edits.
        directions: By name; only their direction counts, not their norm.
        edits: Edits under which to read.

    Raises:
        ValueError: If the conversation is too long, an edit's position is not in it, or the model has no such site.
    """
    check_prompts(lm, [chat])
    read: list[Tensor] = []
    masks = batch_masks([chat], len(chat), lm.device)
    with editing(lm, edits, masks), hooked(lm, {site: lambda h: read.append(h[0].float().cpu())}):
        lm.decoder(input_ids=torch.tensor([chat.token_ids], device=lm.device), use_cache=False)
    values = {name: tuple(project(read[0], vector.cpu()).tolist()) for name, vector in directions.items()}
    return TokenRow(pieces(lm.tokenizer, chat.token_ids), tuple(_parts(chat)), values)


def pieces(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> tuple[str, ...]:
    """Return what each token adds to the text; a character of several tokens belongs to the last of them."""
    texts, before = [], ""
    for end in range(1, len(token_ids) + 1):
        text = str(tokenizer.decode(list(token_ids[:end]), clean_up_tokenization_spaces=False))
        text = text if end == len(token_ids) else text.rstrip(UNFINISHED)
        texts.append(text[len(before) :])
        before = text
    return tuple(texts)


def _parts(chat: Chat) -> list[str]:
    parts = [""] * len(chat)
    for name in ("question", "trigger", "response"):
        start, end = chat.spans.get(name, (0, 0))
        parts[start:end] = [name] * (end - start)
    return parts
