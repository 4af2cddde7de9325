"""The language model: random weights, and one clear line for a folder that cannot be used."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import close_session
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaForCausalLM

from harness.backbone.language_model import llm_config
from harness.backbone.loader import load_backbone
from harness.backbone.weights import missing_weights, require_weights
from harness.config.presets import BackboneSpec, resolve_spec
from harness.errors import UserError
from tests.folders import byte_tokenizer
from tests.loading import SIZES, SMALL, refuses
from tests.standin_hub import Hub, Repository, hub_on_this_machine, use


def test_random_rotary_frequencies_are_the_computed_ones() -> None:
    backbone = load_backbone(SMALL, weights="random")
    built = LlamaForCausalLM(llm_config(SMALL))
    torch.testing.assert_close(backbone.llm.model.rotary_emb.inv_freq, built.model.rotary_emb.inv_freq)


def test_random_ties_embeddings() -> None:
    tied = replace(SMALL, llm_config={**SIZES, "tie_word_embeddings": True})
    llm = load_backbone(tied, weights="random").llm
    assert llm.lm_head.weight is llm.model.embed_tokens.weight


def test_a_config_that_is_not_here_and_no_hub(offline: None) -> None:
    own = resolve_spec("7b", llm="some/model")
    with pytest.raises(UserError) as of_weights:
        require_weights(own, lambda line: None)
    with pytest.raises(UserError) as of_config:
        llm_config(own)
    assert str(of_config.value) == str(of_weights.value)
    for part in ("of unknown size", "licence: not stated", "/some/model", "--offline", "hf download some/model"):
        assert part in str(of_config.value)


@pytest.fixture
def standin(small_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and an empty cache."""
    with hub_on_this_machine() as served:
        served.models["some/model"] = Repository(small_llm)
        use(served.address, tmp_path / "cache", monkeypatch)
        yield served
    close_session()


def test_a_config_on_the_hub_is_fetched_alone_and_said(standin: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    own = resolve_spec("7b", llm="some/model")
    assert llm_config(own).hidden_size == llm_config(own).hidden_size == 32
    assert standin.downloads() == ["config.json"]
    assert capsys.readouterr().err.startswith(f"downloading config.json of {standin.address}/some/model into ")
    assert [source.repo for source in missing_weights(own).sources if "model" in source.repo] == ["some/model"]


def test_a_config_on_the_hub_that_is_refused(standin: Hub) -> None:
    standin.models["some/model"].gated = True
    with pytest.raises(UserError, match=r"some/model: access is restricted; ask for it .*`hf auth login`"):
        llm_config(resolve_spec("7b", llm="some/model"))
    with pytest.raises(UserError, match=r"other/model: there is no such repository"):
        llm_config(resolve_spec("7b", llm="other/model"))
    with pytest.raises(UserError, match=r"a/b--c: is no folder on this machine and no name of a repository"):
        llm_config(resolve_spec("7b", llm="a/b--c"))


def test_a_folder_that_lacks_a_tensor_is_not_filled_with_noise(tmp_path: Path, small_llm: Path, spec: Any) -> None:
    shutil.copytree(small_llm, tmp_path / "llm")
    weights = load_file(tmp_path / "llm" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "llm" / "model.safetensors", metadata={"format": "pt"})
    refuses(
        r"its weights do not have model.layers.1.mlp.up_proj.weight \(1 missing\)",
        replace(spec, llm=str(tmp_path / "llm")),
    )


def test_a_folder_that_is_only_called_like_a_preset_is_not_taken_for_it(tmp_path: Path, small_llm: Path) -> None:
    folder = shutil.copytree(small_llm, tmp_path / "llama-7b")
    named = resolve_spec("7b", llm=str(folder))
    assert named.name == "7b"
    with pytest.raises(UserError, match=r"llama-7b: has the name of the 7b model, but its .* is \d+, not \d+; rename"):
        llm_config(named)


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _cut_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])


def _pickled_weights(folder: Path) -> None:
    _without_weights(folder)
    torch.save({}, folder / "pytorch_model.bin")


def _other_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _not_a_llama(folder: Path) -> None:
    GPT2Config().save_pretrained(folder)


def _sizes(**sizes: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | sizes))

    return write


def _no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def _no_bos(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_without_weights, "cannot be loaded .*safetensors"),
        (_cut_weights, "its config describes 166,176 parameters, but its weights have 5,000 bytes"),
        (_pickled_weights, "cannot be loaded .*safetensors"),
        (_other_sizes, r"model.layers.0.mlp.down_proj.weight has shape \(32, 48\), not \(32, 64\)"),
        (_no_config, "has no usable config.json"),
        (_broken_config, "has no usable config.json"),
        (_not_a_llama, "is a gpt2 model; give a model of the Llama architecture"),
        (_sizes(hidden_size=66), "has no usable config.json .*66.*heads"),
        (_sizes(hidden_size="big"), "has no usable config.json .*hidden_size.*'big'"),
        (_sizes(hidden_size=-4), "config.json: hidden_size is -4; it must be a whole number above 0"),
        (_sizes(num_key_value_heads=3), "config.json: num_key_value_heads 3 does not divide num_attention_heads"),
        (_sizes(head_dim=15), ".*head_dim.*15"),
        (_no_tokenizer, "has no tokenizer"),
        (_no_bos, "its tokenizer has no bos_token_id"),
    ],
)
def test_a_folder_that_is_no_model(
    harm: Callable[[Path], None], message: str, tmp_path: Path, small_llm: Path, spec: BackboneSpec
) -> None:
    folder = Path(shutil.copytree(small_llm, tmp_path / "llm"))
    harm(folder)
    refuses(f"^(--llm )?{folder}: {message}", replace(spec, llm=str(folder)))
