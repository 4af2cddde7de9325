"""Measure the tiny backbone itself: caption retrieval of CLIP, and answers of the language model to scenes in words."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import cast

import torch
from open_clip.model import CLIP
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from harness.data.mini.build import Item, sample_items
from harness.data.mini.grammar import caption, describe, scene_words
from harness.data.mini.world import sample_scene
from harness.data.problem import Problem
from harness.data.prompts import LETTERS, Tokenizer, build_prompt, tokenize_prompt
from harness.pretrain.clip import pictures, tokenize_captions
from harness.pretrain.documents import OVERLAYABLE
from harness.pretrain.overlay import collate_overlays, draw_overlay, overlaid, word_ids
from harness.pretrain.tokenizer import MAX_POSITIONS

UNSEEN = 1_000_003  # seed of the scenes for retrieval, which training does not use


def load_clip(folder: Path) -> CLIP:
    """Load the CLIP model in `folder`, which is in open_clip's layout, as float32 and in evaluation mode."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = CLIP(**config)
    state = load_file(folder / "open_clip_model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def load_llm(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load the language model in `folder` as float32 and in evaluation mode, and its tokenizer."""
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    model.train(False)
    return model, PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@torch.no_grad()
def retrieval_accuracy(
    model: CLIP, tokenizer: PreTrainedTokenizerFast, images: int = 512, among: int = 128, seed: int = UNSEEN
) -> float:
    """Return the share of unseen pictures whose own caption has the highest similarity among several captions.

    Args:
        model: the tiny CLIP.
        tokenizer: the tokenizer of the small world.
        images: number of pictures.
        among: number of captions that each picture is compared with.
        seed: seed of the scenes.
    """
    rng = Random(seed)
    right = 0
    for _ in range(images // among):
        scenes = [sample_scene(rng, rng.randint(1, 4)) for _ in range(among)]
        image_BE = model.encode_image(pictures(scenes), normalize=True)
        ids_BT = tokenize_captions(tokenizer, [caption(scene, rng, 0) for scene in scenes])
        text_BE = model.encode_text(ids_BT, normalize=True)
        right += int(((image_BE @ text_BE.T).argmax(-1) == torch.arange(among)).sum())
    return right / (images // among * among)


def test_items(mode: str, limit: int | None = None, seed: int = 0) -> list[Item]:
    """Return the test problems of the mini benchmark of one mode.

    Args:
        mode: `image`, `text` (the answer is in the hint) or `none`.
        limit: how many problems to return; None returns all.
        seed: seed of the benchmark.
    """
    found = [item for item in sample_items(seed) if item.split == "test" and item.kind.mode == mode]
    return found[:limit]


def oracle_problem(item: Item) -> Problem:
    """Return the problem of an item with the description of its picture appended to the hint."""
    draft = item.draft
    hint = f"{draft.hint} {describe(draft.scene) if draft.scene else ''}".strip()
    return Problem(item.qid, item.split, draft.question, draft.choices, draft.answer, hint=hint)


def _prompt_ids(tokenizer: PreTrainedTokenizerFast, problem: Problem) -> list[int]:
    """Return the token ids of BOS and the prompt, which ends right before the letter of the answer."""
    return tokenize_prompt(cast(Tokenizer, tokenizer), build_prompt(problem).scoring, MAX_POSITIONS).input_ids


def _answers_correctly(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, ids: list[int], problem: Problem
) -> bool:
    """Return whether the right letter is the most likely token of the whole vocabulary after `The answer is`."""
    token = int(model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1].argmax())
    return str(tokenizer.decode([token])).strip() == LETTERS[problem.answer]


@torch.no_grad()
def overlay_accuracy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item],
    own: bool,
    start_layer: int = 0,
    seed: int = 0,
) -> float:
    """Return the accuracy on picture questions when the words of the scene are an overlay and not part of the text.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        items: picture problems; only those whose kind is in `OVERLAYABLE` are used.
        own: give the overlay extra positions of its own; otherwise it is added at every position.
        start_layer: the layer before which an overlay at every position is added.
        seed: seed of the weights of the words.
    """
    rng, right = Random(seed), []
    for item in items:
        scene = item.draft.scene
        if item.kind.name not in OVERLAYABLE or scene is None:
            continue
        overlay = draw_overlay(rng, word_ids(tokenizer, scene_words(scene)), own)
        draft = item.draft
        problem = Problem(item.qid, item.split, draft.question, draft.choices, draft.answer, hint=draft.hint)
        ids = _prompt_ids(tokenizer, problem)
        if own:
            ids[1:1] = [cast(int, tokenizer.pad_token_id)] * len(overlay.shares)
        with overlaid(model, collate_overlays([overlay], len(ids), 0, start_layer, model.config.hidden_size)):
            right.append(_answers_correctly(model, tokenizer, ids, problem))
    return sum(right) / len(right)


@torch.no_grad()
def oracle_accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, items: Sequence[Item]
) -> dict[str, float]:
    """Return the accuracy of the language model alone, over all items (key `"all"`) and per kind of question."""
    right: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        problem = oracle_problem(item)
        correct = _answers_correctly(model, tokenizer, _prompt_ids(tokenizer, problem), problem)
        right[item.kind.name].append(correct)
        right["all"].append(correct)
    return {name: sum(values) / len(values) for name, values in right.items()}
