"""Train the tiny Llama on the text of the small world.

Shapes: B documents, L tokens, V vocabulary.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.data.prompts import ANSWER_PREFIX, LETTERS
from harness.files import write_atomic
from harness.pretrain.attention_init import prepare_attention
from harness.pretrain.documents import STAGES, document
from harness.pretrain.overlay import REPEATED, Overlay, OverlayBatch, collate_overlays, draw_overlay, overlaid, word_ids
from harness.pretrain.schedule import warmup_cosine
from harness.pretrain.tokenizer import MAX_POSITIONS

WIDTH, LAYERS, HEADS, FFN_WIDTH = 128, 8, 4, 352
TOKENS_PER_BATCH = 1600
POOL_BATCHES = 8  # documents for this many batches are drawn at once and sorted by length, which saves padding
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 2e-3, 50, 0.01
IN_PARTS = 0.6
"""Among the batches with a start layer above 0: share whose overlays are added in parts (`OverlayBatch.part`)."""
SIZE_WEIGHT = 0.01
"""Weight of the mean square of the hidden states in the loss. Every layer normalises its input, so nothing else keeps
the residual stream from growing far beyond the embeddings. In a large stream a method's additions have no effect."""
SAVE_EVERY = 200
"""The weights are saved every this many steps."""
REST_WEIGHT = 0.3
"""Weight of the loss on all tokens but answer letters in the last stage. In earlier stages it is 0, because the noise
of that loss would hide the letters."""


def new_llm(vocab_size: int, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained model with prepared attention; torch's global seed decides the weights.

    Args:
        vocab_size: number of token ids.
        tokenizer: gives the ids of the special tokens.
    """
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=WIDTH,
            intermediate_size=FFN_WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            initializer_range=WIDTH**-0.5,
        )
    )
    prepare_attention(model)
    return model


@dataclass(frozen=True)
class TextBatch:
    """Documents of similar length.

    Attributes:
        ids_BL: token ids, padded on the right.
        letters_BL: whether the token is the letter of an answer.
        scored_BL: whether the token has a loss.
        overlay: the overlays of the documents, or None if they have none.
    """

    ids_BL: Tensor
    letters_BL: Tensor
    scored_BL: Tensor
    overlay: OverlayBatch | None


class Batches:
    """Draw batches of documents of similar length, about `TOKENS_PER_BATCH` tokens each."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer = tokenizer
        self.rng = Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.cue = tokenizer.encode(ANSWER_PREFIX, add_special_tokens=False)[-1]  # " is"
        self.letters = torch.tensor(word_ids(tokenizer, LETTERS[:5]))
        self._ready: list[list[tuple[list[int], Overlay | None]]] = []

    def next(self, stage: int) -> TextBatch:
        """Return the next batch of a stage, which is an index of `STAGES`.

        Batches that were drawn for an earlier stage and not used yet come first.
        """
        if not self._ready:
            self._ready = self._draw(stage)
        documents = self._ready.pop()
        length = max(len(ids) for ids, _ in documents)
        pad = self.tokenizer.pad_token_id
        ids_BL = torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in documents])
        letters_BL = torch.isin(ids_BL, self.letters)
        letters_BL[:, 1:] &= ids_BL[:, :-1] == self.cue
        start_layer = self.rng.randrange(STAGES[stage].start_layers)
        overlays = [overlay for _, overlay in documents]
        # Before layer 0 the sum is only as large as embeddings; parts would be negligible in later hidden states.
        in_parts = start_layer > 0 and self.rng.random() < IN_PARTS
        part = self.rng.uniform(*REPEATED) if in_parts else None
        overlay = collate_overlays(overlays, length, pad, start_layer, WIDTH, part=part, generator=self.generator)
        return TextBatch(ids_BL, letters_BL, ids_BL != pad, overlay)

    def _draw(self, stage: int) -> list[list[tuple[list[int], Overlay | None]]]:
        """Draw documents for about `POOL_BATCHES` batches: token ids and overlay of each document of each batch."""
        tokenizer, pool, total = self.tokenizer, [], 0
        while total < TOKENS_PER_BATCH * POOL_BATCHES:
            drawn = document(self.rng, stage)
            words = word_ids(tokenizer, drawn.overlay)
            overlay = draw_overlay(self.rng, words, faint=STAGES[stage].faint) if words else None
            own = [tokenizer.pad_token_id] * (len(overlay.shares) if overlay and overlay.own else 0)
            ids = tokenizer.encode(drawn.text, add_special_tokens=False)
            pool.append(([tokenizer.bos_token_id, *own, *ids, tokenizer.eos_token_id], overlay))
            total += len(pool[-1][0])
        pool.sort(key=lambda document: len(document[0]))
        batches: list[list[tuple[list[int], Overlay | None]]] = [[]]
        for ids, overlay in pool:
            if (len(batches[-1]) + 1) * len(ids) > TOKENS_PER_BATCH:
                batches.append([])
            batches[-1].append((ids, overlay))
        self.rng.shuffle(batches)
        return [batch for batch in batches if batch]


def _loss(model: LlamaForCausalLM, batch: TextBatch, rest_weight: float) -> tuple[Tensor, Tensor, float | None]:
    """Compute the training loss of a batch.

    No attention mask is needed: attention is causal and the padding is on the right, so no token attends to it.

    Args:
        model: the language model.
        batch: the documents.
        rest_weight: weight of the loss on all tokens but answer letters.

    Returns:
        the training loss, the loss on answer letters, and the accuracy on answer letters (None if there are none).
    """
    with overlaid(model, batch.overlay):
        output = model(input_ids=batch.ids_BL[:, :-1], output_hidden_states=True)
    logits = output.logits
    targets, letters = batch.ids_BL[:, 1:], batch.letters_BL[:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    rest = batch.scored_BL[:, 1:] & ~letters
    letter_loss = losses[letters].sum() / letters.sum().clamp(min=1)
    rest_loss = losses[rest].mean()
    right = (logits[letters].argmax(-1) == targets[letters]).float()
    accuracy = right.mean().item() if len(right) else None
    # The last entry of `hidden_states` is already normalised, so its size says nothing.
    size = torch.stack([state.square().mean() for state in output.hidden_states[1:-1]]).mean()
    loss = letter_loss + rest_weight * rest_loss + SIZE_WEIGHT * size
    return loss, letter_loss.detach(), accuracy


def train_llm(
    out: Path, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int, report: Callable[[int, str], None]
) -> dict[str, float]:
    """Train the language model through `STAGES` and write `config.json` and `model.safetensors` (float16) to `out`.

    Args:
        out: folder of the language model, which already contains the tokenizer.
        tokenizer: the tokenizer of the small world.
        seed: seed of weights and documents.
        steps: number of optimiser steps.
        report: called with the step and a short line of progress.

    Returns:
        `steps`, `seconds`, and `train_letters`, a running mean of the accuracy on answer letters in the last stage
        that was reached.
    """
    torch.manual_seed(seed)
    model = new_llm(len(tokenizer), tokenizer)
    batches = Batches(tokenizer, seed + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    scheduler = warmup_cosine(optimizer, WARMUP, steps)
    started, stage, smooth = time.monotonic(), 0, 0.25
    for step in range(1, steps + 1):
        last = stage == len(STAGES) - 1
        loss, letter_loss, accuracy = _loss(model, batches.next(stage), REST_WEIGHT if last else 0.0)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if accuracy is not None:
            smooth = 0.95 * smooth + 0.05 * accuracy
        if smooth > STAGES[stage].mastered and not last:
            stage, smooth = stage + 1, 0.25
        if step % 20 == 0:
            report(step, f"stage {stage}, letter loss {letter_loss:.3f}, letters right {smooth:.2f}, loss {loss:.3f}")
        if step % SAVE_EVERY == 0 or step == steps:
            save_llm(model, out)
    return {"steps": steps, "seconds": round(time.monotonic() - started, 1), "train_letters": round(smooth, 4)}


def save_llm(model: LlamaForCausalLM, out: Path) -> None:
    """Write the weights, as float16 and without the tied output layer, and the config to `out`.

    `LlamaForCausalLM.from_pretrained` loads the folder.
    """
    state = {
        name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
    write_atomic(out / "model.safetensors", save(state, metadata={"format": "pt"}))
    config = {**model.config.to_diff_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "float16"}
    write_atomic(out / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
