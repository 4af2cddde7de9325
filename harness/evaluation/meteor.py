"""METEOR, computed by its own program in Java, as pycocoevalcap installs it.

pycocoevalcap's class waits for ever where the program fails, so the program is started here instead. It is asked the
same, so the scores are the same.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.evaluation.java import JavaError, conversation, require_files

_FILES = ("meteor-1.5.jar", "data/paraphrase-en.gz")
_ARGUMENTS = ("-Xmx2G", "-jar", _FILES[0], "-", "-", "-stdio", "-l", "en", "-norm")
_START_S, _IMAGE_S = 600.0, 0.2
_SHOWN = 40


def meteor(folder: Path, references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> float:
    """Return METEOR of a set of captions, from 0 to 1.

    Args:
        folder: where the program is.
        references: image id -> tokenised reference captions.
        captions: image id -> tokenised caption.

    Raises:
        JavaError: the program is incomplete, cannot be started, fails, or takes too long.
        UserError: there is no Java.
    """
    require_files(folder, _FILES)
    questions = []
    for key, found in references.items():
        # Three bars separate the fields of a line. What is done to the caption is what pycocoevalcap does.
        fields = [caption.replace("|||", " ") for caption in found]
        questions.append(" ||| ".join(("SCORE", *fields, captions[key].replace("|||", "").replace("  ", " "))))
    with conversation(_ARGUMENTS, folder, _START_S + _IMAGE_S * len(questions)) as program:
        statistics = program.ask(questions, len(questions))
        *_, whole = program.ask([" ||| ".join(("EVAL", *statistics))], len(questions) + 1)
    try:
        value = float(whole)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise JavaError(f"answered {whole[:_SHOWN]!r} in place of a score from 0 to 1")
    return value
