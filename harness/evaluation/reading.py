"""Reading the choice in what a model wrote.

There are two readings. The plain one takes a letter only where it stands alone, so that "The answer is Australia." is
no A. The loose one is that of the reference code, for numbers that are compared with published ones.
"""

import re

# Not part of a word, of a contraction such as "I'm", or of a compound such as "B-side".
_ALONE = r"(?<![\w'’])(?<!\w-)([A-Z])(?![\w'’]|-\w)"
_LETTER = re.compile(_ALONE)
_OTHER = r"[(*]*[A-Z](?![\w'’])"
# Neither the beginning of a name such as "C++" or "D.C.", nor one of several letters, as in "A or B" and "A, B.".
_ONLY = (
    r"(?![+#]|\.[A-Z](?!\w))"
    rf"(?![).*]*(?:\s*[/&]\s*|\s+(?:or|and)\s+){_OTHER})"
    rf"(?![).*]*,\s*{_OTHER}[).*]*(?:[,;.]|\s*$|\s+(?:or|and)\s))"
)
_CHOSEN = _ALONE + _ONLY
# Spaces, an opening bracket and Markdown's asterisks may come before a letter.
_SENTENCE = re.compile(rf"(?i:the answer is)[:\s*(]*{_CHOSEN}")
_LABEL = re.compile(rf"\b(?i:answer)\**:[\s*(]*{_CHOSEN}")
_WHOLE = re.compile(rf"[\s*(]*{_CHOSEN}(?:\)|[.:](?![^\s*])|\*+(?![^\s).,:])|\s*$)")
_LOOSE_LETTER = re.compile(r"[A-Z]")
# The last character is a dot in the reference code too, where it stands for any character.
_LOOSE_SENTENCE = re.compile(r"The answer is ([A-Z]).")


def read_letter(text: str, num_choices: int, loose: bool = False) -> int | None:
    """Return the choice in the text that follows `The answer is`: its first capital letter A-Z that stands alone.

    Args:
        text: the decoded text.
        num_choices: number of choices of the problem.
        loose: take the first capital letter, also as part of a word.

    Returns:
        The index of the choice; None where there is no such letter, or it is none of the choices.
    """
    found = (_LOOSE_LETTER if loose else _LETTER).search(text)
    return None if found is None else _index(found[found.re.groups], num_choices)


def read_answer(text: str, num_choices: int, loose: bool = False, once: bool = False) -> int | None:
    """Return the choice in a whole answer.

    It is the letter in the sentence `The answer is X`, which may occur several times with the same letter. Where there
    is no such sentence, it is the letter behind `Answer:`, or the one that the text begins with, as in `B`, `(B)`,
    `**B**` or `B. the cat`. docs/protocols.md has a table of examples.

    Args:
        text: the whole answer.
        num_choices: number of choices of the problem.
        loose: take the pattern of the reference code instead: `The answer is X` and any character, the first time.
        once: with `loose`, read nothing where the pattern occurs several times.

    Returns:
        The index of the choice; None where the text names no letter or several, or the letter is none of the choices.
    """
    if loose:
        named = _LOOSE_SENTENCE.findall(text)
        return _index(named[0], num_choices) if named and not (once and len(named) > 1) else None
    letters = set(_SENTENCE.findall(text))
    if not letters:
        begins = _WHOLE.match(text)
        letters = {*_LABEL.findall(text), *([begins[1]] if begins else [])}
    return _index(letters.pop(), num_choices) if len(letters) == 1 else None


def _index(letter: str, num_choices: int) -> int | None:
    index = ord(letter) - ord("A")
    return index if index < num_choices else None
