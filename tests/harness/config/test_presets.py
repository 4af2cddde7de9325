"""Which backbone a `--model` name gives, with and without replaced parts."""

import pickle

import pytest

from harness.config.presets import PRESETS, resolve_spec
from harness.errors import UserError


def test_a_misspelt_preset() -> None:
    with pytest.raises(UserError, match=r"--model tyny: no such preset; did you mean tiny\?"):
        resolve_spec("tyny")
    with pytest.raises(UserError, match=r"presets: tiny, .*give any other model with --llm"):
        resolve_spec("vicuna")


@pytest.mark.parametrize(
    ("model", "llm", "clip", "name", "recipe"),
    [
        ("13b", None, None, "13b", "13b"),
        ("13b", "/weights/llama-13b", None, "13b", "13b"),
        ("13b", "/weights/vicuna-13b", None, "vicuna-13b", "13b"),
        ("7b", "lmsys/vicuna-7b", "ViT-B-32:openai", "vicuna-7b-ViT-B-32-openai", "7b"),
        ("7b", None, "ViT-B-32:openai", "7b-ViT-B-32-openai", "7b"),
        ("tiny", "lmsys/vicuna-7b", None, "vicuna-7b", "7b"),
        ("tiny", "/elsewhere/llm", None, "llm", "7b"),
        ("7b", "/weights/tiny", None, "tiny-custom", "7b"),
        ("7b", "/weights/..", None, "unnamed", "7b"),
    ],
)
def test_other_parts_name_the_model_and_keep_the_recipe(
    model: str, llm: str | None, clip: str | None, name: str, recipe: str
) -> None:
    spec = resolve_spec(model, llm, clip)
    assert (spec.name, spec.recipe) == (name, recipe)
    assert spec.llm == (llm or PRESETS[model].llm) and spec.clip == (clip or PRESETS[model].clip)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_can_be_sent_to_another_process(name: str) -> None:
    assert pickle.loads(pickle.dumps(PRESETS[name])) == PRESETS[name]
