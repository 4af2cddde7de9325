"""Mutated folders of a language model, a vision tower and an adapter: each one loads or is refused in one line."""

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.backbone.loader import load_backbone
from harness.config.presets import BackboneSpec
from harness.errors import UserError
from harness.files import write_atomic
from harness.run.predict import load_adapter
from methods.checkpoint import save_adapter
from tests.backbones import tiny_config
from tests.fuzz.mutations import mutate

pytestmark = pytest.mark.fuzz
COUNT = int(os.environ.get("FUZZ_COUNT", "200"))


def load(kind: str, folder: Path, spec: BackboneSpec) -> None:
    """Load a folder of the given kind."""
    if kind == "adapter":
        load_adapter(folder).answer("which?")
    elif kind == "llm":
        load_backbone(replace(spec, llm=str(folder)))
    else:
        load_backbone(replace(spec, clip=f"local-dir:{folder}"))


@pytest.fixture
def adapter(tmp_path: Path, spec: BackboneSpec) -> Path:
    """The folder of an untrained adapter."""
    from methods import get_method

    backbone = load_backbone(spec)
    digest = backbone.fingerprint()
    method_class = get_method("dehvf")
    method = method_class(backbone, tiny_config(method_class, backbone))
    saved = {"model": "fuzzed", "llm": spec.llm, "clip": spec.clip, "weight_hash": digest, "dtype": "float32"}
    save_adapter(tmp_path / "adapter", method, {"backbone": saved, "task": "scienceqa", "train": {}}, write_atomic)
    return tmp_path / "adapter"


@pytest.mark.parametrize("kind", ["llm", "clip", "adapter"])
def test_a_mutated_folder_loads_or_is_refused_in_one_line(
    kind: str, small_llm: Path, small_clip: Path, adapter: Path, spec: BackboneSpec, tmp_path: Path
) -> None:
    source = {"llm": small_llm, "clip": small_clip, "adapter": adapter}[kind]
    load(kind, source, spec)
    names = sorted(path.name for path in source.iterdir())
    uncaught: list[str] = []
    refused = 0
    for seed in range(COUNT):
        chance = random.Random(f"{kind} {seed}")
        folder = Path(shutil.copytree(source, tmp_path / "mutated"))
        name = chance.choice(names)
        (folder / name).write_bytes(mutate((source / name).read_bytes(), chance))
        try:
            load(kind, folder, spec)
        except UserError as error:
            refused += 1
            if not str(error).isprintable():
                uncaught.append(f"seed {seed}, {name}: {str(error)!r}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            uncaught.append(f"seed {seed}, {name}: {type(error).__name__}: {error}")
        shutil.rmtree(folder)
    assert not uncaught, f"{len(uncaught)} of {COUNT}:\n" + "\n".join(uncaught)
    assert refused > COUNT // 4
