"""Train the tiny CLIP on pictures of the small world and their captions.

Four contrastive losses are added up:

- Each picture is matched to its whole caption among those of the batch, and each caption to its picture, as in CLIP. A
  batch consists of families. A family is a scene and other scenes that differ from it in one attribute of one thing.
  Only that attribute tells their captions apart. Scenes drawn independently differ so much that colour and background
  would be enough.
- Each picture is matched to the true ones among the captions of a single fact (`harness.pretrain.facts`). This teaches
  CLIP every attribute, and not only the easiest ones.
- The patch at the centre of each thing is matched to the captions of this thing's facts, as in CLIP models that are
  trained on captions of regions. Without this loss the CLS token hardly learns where things are.
- Each caption of a fact is matched to itself among the captions of that fact, which keeps their embeddings apart.
  Without this loss the captions of some facts, of all places for example, may stay the same embedding for the whole
  training. Then no picture is ever asked for that fact.

Shapes: B pairs, C = 3 channels, H = W = 64 pixels, T text positions, E embedding width, J patches, F captions of facts,
N things of a batch, K facts about a thing.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from harness.data.images import IMAGENET_MEAN, IMAGENET_STD, ImagePreprocessor
from harness.data.mini.grammar import caption, caption_without_texture, describe
from harness.data.mini.render import SIZE, render
from harness.data.mini.world import ATTRIBUTES, DISTINCT, VOCABULARY, Scene, Thing, jittered, sample_scene
from harness.files import write_atomic
from harness.pretrain.facts import FACTS, Fact
from harness.pretrain.schedule import warmup_cosine

WIDTH = 96
PATCH = 8
BATCH, FAMILY = 64, 4
COUNTS = (1, 1, 1, 1, 1, 2, 2, 3, 4)  # number of things per scene in training, drawn uniformly from these
ONE_THING = 0.4  # share of the training in which every scene has one thing, because its attributes are learned faster
TEXTURED = 0.25  # share of the captions that name textures; captions of photographs rarely do
CHANGED = tuple(name for name in ATTRIBUTES if name != "texture")  # attributes in which the scenes of a family differ
WORDINGS = 3  # these captions use the first three wordings, which name every attribute of a thing
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 2e-3, 50, 0.05


def model_config(vocab_size: int) -> dict[str, Any]:
    """Return open_clip's `model_cfg`: a ViT of 8 blocks on 64 patches, and a small causal text tower.

    The position embeddings of the patches are fixed sines and cosines. Trained ones start so small that no single patch
    knows its place.
    """
    narrow = {"width": WIDTH, "mlp_ratio": 2.0}
    patches = {"image_size": SIZE, "patch_size": PATCH, "pos_embed_type": "sin_cos_2d"}
    return {
        "embed_dim": WIDTH,
        "quick_gelu": False,
        "vision_cfg": {**patches, "layers": 8, "head_width": 24, **narrow},
        "text_cfg": {"context_length": 64, "vocab_size": vocab_size, "layers": 2, "heads": 4, **narrow},
    }


def tokenize_captions(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int = 64) -> Tensor:
    """Return the token ids of captions as BOS, text, EOS and padding.

    open_clip pools the text at the position of the highest id, which is EOS.

    Args:
        tokenizer: the tokenizer of the small world.
        texts: the captions; longer ones are cut.
        length: number of positions T.

    Returns:
        int64, `B×T`.
    """
    rows = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)[: length - 2]
        ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        rows.append(ids + [tokenizer.pad_token_id] * (length - len(ids)))
    return torch.tensor(rows)


def pictures(scenes: Sequence[Scene]) -> Tensor:
    """Render scenes and preprocess them as the benchmark does; float32, `B×C×H×W`."""
    preprocess = ImagePreprocessor(SIZE)
    return torch.stack([preprocess(render(scene)) for scene in scenes])


def family(rng: Random, counts: Sequence[int] = COUNTS, size: int = FAMILY) -> list[Scene]:
    """Return a new scene and `size - 1` variants of it; each variant changes one attribute of one thing.

    Args:
        rng: draws everything.
        counts: the number of things is drawn uniformly from these.
        size: number of scenes.
    """
    first = sample_scene(rng, rng.choice(counts))
    scenes, descriptions = [first], {describe(first)}
    while len(scenes) < size:
        other = changed(rng, first)
        if (text := describe(other)) not in descriptions:
            descriptions.add(text)
            scenes.append(other)
    return scenes


def changed(rng: Random, scene: Scene) -> Scene:
    """Return the scene with one attribute of one thing changed, and with all shifts and phases drawn anew.

    The scene keeps its attributes where the chosen attribute has no other value left.
    """
    index = rng.randrange(len(scene.things))
    attribute = rng.choice(CHANGED)
    taken = scene.present(attribute) if attribute in DISTINCT else {getattr(scene.things[index], attribute)}
    free = [word for word in VOCABULARY[attribute] if word not in taken]
    things = list(scene.things)
    if free:
        change: dict[str, Any] = {attribute: rng.choice(free)}
        things[index] = replace(things[index], **change)
    return Scene(tuple(jittered(rng, thing) for thing in things), scene.background)


@dataclass(frozen=True)
class PairBatch:
    """Pictures, their captions, and the facts about them.

    Attributes:
        images_BCHW: preprocessed pictures.
        ids_BT: token ids of one whole caption per picture.
        true_BF: for every fact, a distribution over its captions: the true ones are equally likely.
        rows_N: the picture that each thing is in.
        patches_N: the patch at the centre of each thing.
        right_NK: for each fact about a thing, the index of the caption that is true of it.
    """

    images_BCHW: Tensor
    ids_BT: Tensor
    true_BF: Tensor
    rows_N: Tensor
    patches_N: Tensor
    right_NK: Tensor


def pair_batch(rng: Random, tokenizer: PreTrainedTokenizerFast, counts: Sequence[int]) -> PairBatch:
    """Draw a batch of `BATCH` pictures.

    Args:
        rng: draws the scenes and captions.
        tokenizer: the tokenizer of the small world.
        counts: the numbers of things in a scene, which are drawn uniformly from these.
    """
    scenes = [scene for _ in range(BATCH // FAMILY) for scene in family(rng, counts)]
    captions = [_training_caption(scene, rng) for scene in scenes]
    true_BF = torch.cat([_true_captions(fact, scenes) for fact in FACTS], dim=1)
    things = [(row, thing) for row, scene in enumerate(scenes) for thing in scene.things]
    return PairBatch(
        pictures(scenes),
        tokenize_captions(tokenizer, captions),
        true_BF,
        torch.tensor([row for row, _ in things]),
        torch.tensor([centre_patch(thing) for _, thing in things]),
        torch.tensor([[fact.index(thing) for fact in FACTS if fact.of_thing] for _, thing in things]),
    )


def _training_caption(scene: Scene, rng: Random) -> str:
    """Return a caption that names every attribute of each thing, or every attribute but the texture."""
    if rng.random() < TEXTURED:
        return caption(scene, rng, rng.randrange(WORDINGS))
    return caption_without_texture(scene, rng)


def _true_captions(fact: Fact, scenes: Sequence[Scene]) -> Tensor:
    """Return `PairBatch.true_BF` of one fact."""
    true_BF = torch.zeros(len(scenes), len(fact.captions))
    for row, scene in enumerate(scenes):
        true_BF[row, list(fact.true_of(scene))] = 1
    return true_BF / true_BF.sum(-1, keepdim=True)


def centre_patch(thing: Thing) -> int:
    """Return the index of the patch that contains the centre of a thing, counted row by row."""
    x, y = thing.centre
    return int(y // PATCH) * (SIZE // PATCH) + int(x // PATCH)


def embed_texts(model: CLIP, ids_BT: Tensor) -> Tensor:
    """Return the normalised embeddings of texts, `B×E`.

    This is `CLIP.encode_text` without the padding that all texts share, which would take most of the time. The text
    tower is causal and pools at EOS, so the embeddings are the same.
    """
    length = int(ids_BT.argmax(-1).max()) + 1  # EOS has the highest id
    ids_BT = ids_BT[:, :length]
    tokens_BTE = model.token_embedding(ids_BT) + model.positional_embedding[:length]
    tokens_BTE = model.ln_final(model.transformer(tokens_BTE, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(text_global_pool(tokens_BTE, ids_BT, "argmax") @ model.text_projection, dim=-1)


def clip_loss(model: CLIP, batch: PairBatch, facts_FT: Tensor) -> tuple[Tensor, float]:
    """Compute the training loss of a batch.

    Args:
        model: the tiny CLIP, whose `visual` returns its tokens too (`output_tokens`).
        batch: the batch.
        facts_FT: token ids of the captions of all facts.

    Returns:
        the sum of the four losses, and the share of pictures whose own caption is the nearest.
    """
    scale = model.logit_scale.exp()
    pooled_BE, tokens_BJC = model.visual(batch.images_BCHW)
    image_BE = F.normalize(pooled_BE, dim=-1)
    logits_BB = scale * image_BE @ embed_texts(model, batch.ids_BT).T
    own_B = torch.arange(len(image_BE))
    whole = (F.cross_entropy(logits_BB, own_B) + F.cross_entropy(logits_BB.T, own_B)) / 2

    fact_FE = embed_texts(model, facts_FT)
    sizes = [len(fact.captions) for fact in FACTS]
    parts = zip((scale * image_BE @ fact_FE.T).split(sizes, 1), batch.true_BF.split(sizes, 1), strict=True)
    facts = torch.stack([F.cross_entropy(logits, true) for logits, true in parts]).mean()

    patch_NE = F.normalize(tokens_BJC[batch.rows_N, batch.patches_N] @ model.visual.proj, dim=-1)
    of_patch = [
        logits
        for logits, fact in zip((scale * patch_NE @ fact_FE.T).split(sizes, 1), FACTS, strict=True)
        if fact.of_thing
    ]
    regions = torch.stack(
        [F.cross_entropy(logits, right_N) for logits, right_N in zip(of_patch, batch.right_NK.T, strict=True)]
    ).mean()
    apart = torch.stack(
        [F.cross_entropy(scale * own_KE @ own_KE.T, torch.arange(len(own_KE))) for own_KE in fact_FE.split(sizes)]
    ).mean()
    return whole + facts + regions + apart, (logits_BB.argmax(-1) == own_B).float().mean().item()


def train_clip(
    out: Path,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    steps: int,
    report: Callable[[int, str], None],
    save_every: int = 100,
) -> dict[str, float]:
    """Train CLIP contrastively and write `open_clip_config.json` and `open_clip_model.safetensors` to `out`.

    Args:
        out: folder to write to.
        tokenizer: the tokenizer of the small world.
        seed: seed of weights, scenes and captions.
        steps: number of optimiser steps; each draws `BATCH` new pairs.
        report: called with the step and a short line of progress.
        save_every: the weights are saved every this many steps.

    Returns:
        `steps`, `seconds`, and `train_retrieval`, a running mean of the retrieval accuracy within a batch.
    """
    torch.manual_seed(seed)
    rng = Random(seed + 2)
    config = model_config(len(tokenizer))
    model = CLIP(**config)
    model.visual.output_tokens = True
    facts_FT = tokenize_captions(tokenizer, [text for fact in FACTS for text in fact.captions])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    scheduler = warmup_cosine(optimizer, WARMUP, steps)
    started, smooth = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        counts = (1,) if step <= ONE_THING * steps else COUNTS
        loss, accuracy = clip_loss(model, pair_batch(rng, tokenizer, counts), facts_FT)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6)
        smooth = 0.9 * smooth + 0.1 * accuracy
        if step % 10 == 0:
            report(step, f"loss {loss:.3f}, retrieved {smooth:.2f}")
        if step % save_every == 0 or step == steps:
            save_clip(model, config, out)
    return {"steps": steps, "seconds": round(time.monotonic() - started, 1), "train_retrieval": round(smooth, 4)}


def save_clip(model: CLIP, config: dict[str, Any], out: Path) -> None:
    """Write the weights, as float16, and the config to `out` in the layout of open_clip."""
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    write_atomic(out / "open_clip_model.safetensors", save(state))
    preprocess = {
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    write_atomic(out / "open_clip_config.json", text + "\n")
