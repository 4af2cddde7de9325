"""The prompt strings of the reference code for ScienceQA, and their tokens and label masks.

The strings are from Lu et al. 2022 (https://github.com/lupantech/ScienceQA), in the form in which LaVIN and MemVP use
them for fine-tuning: `Response:` ends the prompt, and the answer follows without a space. A format is named
`INPUT-OUTPUT`. Its letters are Q question, C context, M options, L lecture, E explanation (solution) and A answer.

Two peculiarities of the reference code are kept because published numbers depend on them. `AL` contains the solution
and `AE` the lecture, so the two are swapped. Line breaks inside lecture and solution become the two characters
backslash and n.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from harness.data.problem import Problem
from harness.errors import UserError, foreign

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ANSWER_PREFIX = "The answer is"
IGNORED = -100
"""The label of a token without loss."""

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
_OPEN = "Question: {Q}\nContext: {C}\n"
_END = "Response:"
FORMATS = tuple(f"{i}-{o}" for i in _INPUTS for o in _OUTPUTS)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text that the model is given and the answer it should write; training reads `prompt + answer` as one text."""

    prompt: str
    answer: str

    @property
    def scoring(self) -> str:
        """The prompt for scoring: the token that follows it is the letter of the answer."""
        return self.prompt + ANSWER_PREFIX


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here; `kwargs` are further options of the tokenizer."""

    bos_token_id: Any
    eos_token_id: Any

    def encode(self, text: str, *, add_special_tokens: bool = True, **kwargs: Any) -> list[int]:
        """Return the token ids of a text."""
        ...

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        """Return the text of token ids."""
        ...


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """Token ids and labels of one example.

    Attributes:
        input_ids: token ids, BOS first.
        labels: one label per token, -100 where there is no loss.
        truncated: whether tokens were cut off.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool = False


def check_format(format: str) -> tuple[str, str]:
    """Return the input template and the output template of a prompt format.

    Raises:
        UserError: the format is unknown; lists the known ones.
    """
    source, _, target = format.partition("-")
    if source not in _INPUTS or target not in _OUTPUTS:
        raise UserError(
            f"unknown prompt format {format!r}: use INPUT-OUTPUT with INPUT one of {', '.join(_INPUTS)} "
            f"and OUTPUT one of {', '.join(_OUTPUTS)}, e.g. QCM-A"
        )
    return _INPUTS[source], _OUTPUTS[target]


def build_prompt(problem: Problem, format: str = "QCM-A", use_caption: bool = False) -> Prompt:
    """Return the prompt and the answer of one problem as the reference code writes them.

    Args:
        problem: the problem.
        format: one of `FORMATS`.
        use_caption: append the caption of the image to the hint in the context.

    Raises:
        UserError: the format is unknown.
    """
    source, target = check_format(format)
    parts = {
        "Q": problem.question,
        "C": f"{problem.hint} {problem.caption if use_caption else ''}".strip() or "N/A",
        "M": " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, problem.choices, strict=False)),
        "A": LETTERS[problem.answer],
        "L": problem.lecture.replace("\n", "\\n"),
        "E": problem.solution.replace("\n", "\\n"),
    }
    return Prompt(_tidy(source.format_map(parts) + _END), _tidy(target.format_map(parts)))


def build_open_prompt(problem: Problem) -> str:
    """Return the prompt of a question without options, which no format of the reference code has."""
    return _tidy(_OPEN.format(Q=problem.question, C=problem.hint.strip() or "N/A") + _END)


def _tidy(text: str) -> str:
    # The reference replaces double spaces in one pass, so four spaces become two.
    return text.replace("  ", " ").strip()


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text of a data set, without BOS and EOS.

    Raises:
        UserError: the tokenizer fails.
    """
    # Text of a data set must not be read as special tokens: "</s>" in a question is four characters, not EOS.
    # What is too long is cut and counted later, so the tokenizer need not warn of it.
    with _foreign(tokenizer, f"read the text {text!r:.40}"):
        return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False))


def text_of(tokenizer: Tokenizer, tokens: Sequence[int], *, skip_special_tokens: bool = False) -> str:
    """Return the text of tokens.

    Raises:
        UserError: the tokenizer fails.
    """
    with _foreign(tokenizer, f"give the text of the tokens {list(tokens)!s:.40}"):
        return tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)


def _foreign(tokenizer: Tokenizer, what: str) -> AbstractContextManager[None]:
    # A rule of a tokenizer can fail for one text only: a regular expression that tries too many ways, for example.
    name = getattr(tokenizer, "name_or_path", "")
    return foreign(f"--llm {name}: its tokenizer cannot {what}", "correct its rules, or give another model")


def _special_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer has no BOS or no EOS token; give a tokenizer of the Llama family, which has both"
        )
    return int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)


def tokenize_example(tokenizer: Tokenizer, prompt: str, answer: str, max_length: int) -> TokenizedExample:
    """Return tokens and labels for training: BOS, `prompt + answer` encoded as one text, EOS.

    Labels start at the first token that differs from the tokens of the prompt alone. A token that spans the boundary
    between prompt and answer therefore has a label.

    Args:
        tokenizer: a tokenizer with BOS and EOS.
        prompt: text without loss.
        answer: text with loss.
        max_length: maximum number of tokens; a longer example is cut on the right.

    Raises:
        UserError: the tokenizer has no BOS or no EOS.
    """
    bos, eos = _special_tokens(tokenizer)
    prompt_ids = encode(tokenizer, prompt)
    full_ids = encode(tokenizer, prompt + answer)
    start = 1 + _common_prefix(prompt_ids, full_ids)
    ids = [bos, *full_ids, eos]
    labels = [IGNORED] * start + ids[start:]
    return TokenizedExample(ids[:max_length], labels[:max_length], truncated=len(ids) > max_length)


def tokenize_prompt(tokenizer: Tokenizer, prompt: str, max_length: int) -> TokenizedExample:
    """Return tokens for decoding: BOS and the prompt, without labels.

    Args:
        tokenizer: a tokenizer with BOS and EOS.
        prompt: the text to decode from.
        max_length: maximum number of tokens. A longer prompt loses its first tokens but keeps BOS, because the answer
            follows its end.

    Raises:
        UserError: the tokenizer has no BOS or no EOS.
    """
    bos, _ = _special_tokens(tokenizer)
    ids = encode(tokenizer, prompt)
    kept = ids[max(0, len(ids) - (max_length - 1)) :]
    return TokenizedExample([bos, *kept], [IGNORED] * (1 + len(kept)), truncated=len(kept) < len(ids))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of leading elements that two sequences share."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
