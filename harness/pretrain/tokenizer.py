"""The tokenizer of the tiny backbone: byte-level BPE, trained on the text of the small world.

Each word of the small world is a single token, with and without a leading space. Any other text is split into bytes.
The fixed parts of the prompt, such as `Question:` and ` (A)`, are one token each, so that a question takes few tokens.
"""

import re
from collections.abc import Callable
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.data.mini import knowledge, world
from harness.data.mini.grammar import caption, describe
from harness.data.mini.kinds import IMAGE_HINTS, KINDS
from harness.data.mini.world import sample_scene

PAD, BOS, EOS = "<pad>", "<s>", "</s>"  # added last, because CLIP's argmax pooling needs EOS to have the highest id
MAX_POSITIONS = 1024
_PIECES = (
    r"\n?(?:Question|Context|Options|Response):"
    r"| ?N/A"
    r"| ?\([A-E]\)"
    r"| ?\p{L}+(?:-\p{L}+)*"
    r"| ?\p{N}"
    r"| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


def world_words(seed: int = 0) -> list[str]:
    """Return all words of the small world's vocabularies, questions and captions, sorted; `seed` draws the samples."""
    rng = Random(seed)
    text = [*knowledge.statements(), *IMAGE_HINTS, *knowledge.NAMES, *knowledge.GOODS]
    text += [word for words in world.VOCABULARY.values() for word in words]
    text += [*world.NUMBERS, *world.DIRECTIONS, "The answer is", "A", "B", "C", "D", "E", *"0123456789"]
    for kind in KINDS:
        for _ in range(60):
            draft = kind.make(rng)
            text += [draft.question, draft.hint, *draft.choices, draft.solution]
    for _ in range(300):
        scene = sample_scene(rng, rng.randint(1, 4))
        text += [describe(scene), caption(scene, rng)]
    return sorted({word for line in text for word in re.findall(r"[A-Za-z0-9]+(?:-[A-Za-z]+)*", line)})


def build_tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer. It adds no special tokens itself: the harness puts BOS first and EOS last."""
    fixed = ["Question:", "\nContext:", "\nOptions:", "\nResponse:", "\nQuestion:", "Context:", "Options:", " N/A"]
    fixed += [f" ({letter})" for letter in "ABCDE"]
    corpus = [*fixed, *(form for word in world_words(seed) for form in (word, f" {word}"))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,  # larger than the number of merges, so that every word becomes one token
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, BOS, EOS)])
    wrap: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast  # its constructor has no types
    return wrap(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(folder: Path, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer, write `tokenizer.json` and `tokenizer_config.json` to `folder`, and return the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(seed)
    tokenizer.save_pretrained(folder)
    return tokenizer
