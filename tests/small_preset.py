"""Run the command line with `--model 7b` and ScienceQA made small, so that a test can download their real names.

    python -m tests.small_preset run --methods dehvf,memvp --model 7b

Only the sizes of the language model and of the vision tower, the number of problems and the pieces in which a file is
downloaded are small. Everything else is what a user runs.
"""

from dataclasses import replace

from huggingface_hub import constants
from open_clip.factory import _MODEL_CONFIGS

import harness.data.scienceqa
from harness import cli, hub_blobs
from harness.config import presets
from tests.folders import CLIP_CONFIG, SIZES

LLM_SIZES = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}
"""Those of the model that `tests.folders.save_llm` saves."""


def make_small() -> None:
    """Replace the sizes."""
    small = replace(presets.PRESETS["7b"], llm_config=LLM_SIZES)
    presets.PRESETS = {**presets.PRESETS, "7b": small}  # type: ignore[misc]  # a constant, replaced on purpose
    _MODEL_CONFIGS["ViT-L-14-quickgelu"] = {**CLIP_CONFIG, "quick_gelu": True}
    constants.DOWNLOAD_CHUNK_SIZE = 500
    hub_blobs.RESUMED_FROM = 1
    harness.data.scienceqa.OFFICIAL_SIZES = dict(zip(("train", "val", "test"), SIZES, strict=True))


if __name__ == "__main__":
    make_small()  # before the command line imports the modules that use the presets
    cli.main()
