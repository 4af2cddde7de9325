"""SPICE, computed by its own program in Java, as pycocoevalcap installs it.

pycocoevalcap's class sets no time limit and writes into its own package, so the program is started here instead. It is
asked the same, so the scores are the same.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.evaluation.java import JavaError, require_files, run_java
from harness.files import read_file

MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""The files that its folder `lib` needs and that pycocoevalcap does not bring."""
REMEDY = "python -m pycocoevalcap.spice.get_stanford_models"
"""The command that fetches these files."""
_JAR = "spice-1.0.jar"
_START_S, _CAPTION_S = 600.0, 0.5


def spice(folder: Path, references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> list[float]:
    """Return SPICE of each caption, from 0 to 1.

    Args:
        folder: where the program is.
        references: image id -> tokenised reference captions.
        captions: image id -> tokenised caption.

    Returns:
        One F-score per image, in the order of `references`. SPICE of a set is their mean.

    Raises:
        JavaError: the program is incomplete (the message says how to complete it), cannot be started, fails, takes too
            long, or leaves out an image.
        UserError: there is no Java.
    """
    require_files(folder, (_JAR,))
    try:
        require_files(folder, [f"lib/{name}" for name in MODELS])
    except JavaError as error:
        raise JavaError(f"{error}: {REMEDY} downloads them") from error
    # The program gets numbers in place of ids, so that it gives them back unchanged whatever they contain.
    asked = [
        {"image_id": number, "test": captions[key], "refs": list(found)}
        for number, (key, found) in enumerate(references.items())
    ]
    count = sum(1 + len(found) for found in references.values())
    with TemporaryDirectory() as place:
        given, answer = Path(place, "captions.json"), Path(place, "scores.json")
        given.write_text(json.dumps(asked), encoding="utf-8")
        arguments = ["-Xmx8G", "-jar", _JAR, str(given), "-out", str(answer), "-subset", "-silent"]
        run_java(arguments, folder, _START_S + _CAPTION_S * count)
        try:
            scores = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(read_file(answer))}
            values = [float(scores[number]) for number in range(len(asked))]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise JavaError(f"wrote no scores that can be read ({type(error).__name__})") from error
    if not all(0 <= value <= 1 for value in values):  # NaN is not
        raise JavaError("gave an image a score that is not from 0 to 1")
    return values
