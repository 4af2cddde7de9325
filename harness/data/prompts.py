"""The reference family's prompt strings for ScienceQA, and their tokens and label masks.

Strings: Lu et al. 2022 (https://github.com/lupantech/ScienceQA), as LaVIN and MemVP use them for fine-tuning
(`Response:` ends the prompt; the answer follows it without a space). A format is `INPUT-OUTPUT`; letters are
Q question, C context, M options, L lecture, E explanation (solution), A answer. Two habits of the reference
are kept because published numbers depend on them: `AL` carries the solution and `AE` the lecture (swapped),
and line breaks inside lecture and solution become the two characters backslash and n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.data.problem import Problem
from harness.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ANSWER_PREFIX = "The answer is"
IGNORED = -100

_INPUTS = {
    "Q": "Question: {Q}\n",
    "QM": "Question: {Q}\nOptions: {M}\n",
    "CQM": "Context: {C}\nQuestion: {Q}\nOptions: {M}\n",
    "QCM": "Question: {Q}\nContext: {C}\nOptions: {M}\n",
    "QCML": "Question: {Q}\nContext: {C}\nOptions: {M}\nBECAUSE: {L}\n",
    "QCME": "Question: {Q}\nContext: {C}\nOptions: {M}\nBECAUSE: {E}\n",
    "QCMLE": "Question: {Q}\nContext: {C}\nOptions: {M}\nBECAUSE: {L} {E}\n",
    "QCLM": "Question: {Q}\nContext: {C}\nBECAUSE: {L}\nOptions: {M}\n",
    "QCEM": "Question: {Q}\nContext: {C}\nBECAUSE: {E}\nOptions: {M}\n",
    "QCLEM": "Question: {Q}\nContext: {C}\nBECAUSE: {L} {E}\nOptions: {M}\n",
}
_OUTPUTS = {
    "A": "The answer is {A}.",
    "AL": "The answer is {A}. BECAUSE: {E}",
    "AE": "The answer is {A}. BECAUSE: {L}",
    "ALE": "The answer is {A}. BECAUSE: {L} {E}",
    "AEL": "The answer is {A}. BECAUSE: {E} {L}",
    "LA": "{L} The answer is {A}.",
    "EA": "{E} The answer is {A}.",
    "LEA": "{L} {E} The answer is {A}.",
    "ELA": "{E} {L} The answer is {A}.",
}
FORMATS = tuple(f"{i}-{o}" for i in _INPUTS for o in _OUTPUTS)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is given and what it shall say; the model sees `prompt + answer`, nothing between."""

    prompt: str
    answer: str

    @property
    def scoring(self) -> str:
        """The prompt for scoring: the next token after it is the answer's letter."""
        return self.prompt + ANSWER_PREFIX


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    bos_token_id: Any
    eos_token_id: Any

    def encode(self, text: str, *, add_special_tokens: bool = True, **kwargs: Any) -> list[int]: ...
    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """Token ids (BOS first) and labels of equal length, -100 where there is no loss; were tokens cut?"""

    input_ids: list[int]
    labels: list[int]
    truncated: bool = False


def check_format(format: str) -> tuple[str, str]:
    """The input and output template of a prompt format.

    Raises:
        UserError: unknown format; lists the known parts.
    """
    source, _, target = format.partition("-")
    if source not in _INPUTS or target not in _OUTPUTS:
        raise UserError(
            f"unknown prompt format {format!r}: use INPUT-OUTPUT with INPUT one of {', '.join(_INPUTS)} "
            f"and OUTPUT one of {', '.join(_OUTPUTS)}, e.g. QCM-A"
        )
    return _INPUTS[source], _OUTPUTS[target]


def build_prompt(problem: Problem, format: str = "QCM-A", use_caption: bool = False) -> Prompt:
    """The reference strings of one problem.

    Args:
        problem: the problem.
        format: one of `FORMATS`.
        use_caption: whether the image's caption follows the hint in the context.

    Raises:
        UserError: unknown format.
    """
    source, target = check_format(format)
    context = f"{problem.hint} {problem.caption if use_caption else ''}".strip()
    parts = {
        "Q": problem.question,
        "C": context or "N/A",
        "M": " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, problem.choices, strict=False)),
        "A": LETTERS[problem.answer],
        "L": problem.lecture.replace("\n", "\\n"),
        "E": problem.solution.replace("\n", "\\n"),
    }
    return Prompt(_tidy(source.format_map(parts) + "Response:"), _tidy(target.format_map(parts)))


def _tidy(text: str) -> str:
    # One pass, as in the reference: four spaces become two.
    return text.replace("  ", " ").strip()


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    # Text of a data set must not be read as control tokens ("</s>" there is four characters, no end).
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def _special_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no BOS or no EOS token; give a Llama-family one that has both")
    return int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)


def tokenize_example(tokenizer: Tokenizer, prompt: str, answer: str, max_length: int) -> TokenizedExample:
    """Tokens and labels for training: BOS, `prompt + answer` encoded as one text, EOS; cut on the right.

    Labels start behind the tokens that the prompt alone has (a token that spans the boundary carries loss).

    Raises:
        UserError: the tokenizer lacks BOS or EOS.
    """
    bos, eos = _special_tokens(tokenizer)
    prompt_ids = _encode(tokenizer, prompt)
    full_ids = _encode(tokenizer, prompt + answer)
    start = 1 + _common_prefix(prompt_ids, full_ids)
    ids = [bos, *full_ids, eos]
    labels = [IGNORED] * start + ids[start:]
    return TokenizedExample(ids[:max_length], labels[:max_length], truncated=len(ids) > max_length)


def tokenize_prompt(tokenizer: Tokenizer, prompt: str, max_length: int) -> TokenizedExample:
    """Tokens for decoding: BOS and the prompt; labels are all ignored.

    A prompt that is too long loses its beginning (BOS stays): the place where the answer starts is kept.

    Raises:
        UserError: the tokenizer lacks BOS or EOS.
    """
    bos, _ = _special_tokens(tokenizer)
    ids = _encode(tokenizer, prompt)
    kept = ids[max(0, len(ids) - (max_length - 1)) :]
    return TokenizedExample([bos, *kept], [IGNORED] * (1 + len(kept)), truncated=len(kept) < len(ids))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
