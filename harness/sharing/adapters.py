"""Trained adapters on the model hub.

What comes from the hub is hostile until it is checked: only files of four names are downloaded, none larger than such a
file can be, and nothing is kept that is no adapter.
"""

import json
import os
import shutil
from pathlib import Path

from harness.backbone.weights import KNOWN
from harness.config.presets import PRESETS, base_model, looks_like_path
from harness.errors import UserError
from harness.files import new_folder, read_file
from harness.hub import GB, Source, download
from harness.records import Record, read_record, remarks_about
from harness.run.predict import ReadAdapter, SavedBackbone, read_adapter
from harness.sharing.model_card import RECORD_FILE, Base, model_card
from harness.sharing.upload import CARD, LICENCE, Upload, repository_id, require_hub
from harness.streams import Say
from methods.checkpoint import CONFIG_FILE, WEIGHTS_FILE

LARGEST = {WEIGHTS_FILE: 8 * GB, CONFIG_FILE: 10**6, RECORD_FILE: 64 * 10**6, CARD: 10**6}
"""The files that are downloaded of an adapter -> the most bytes that each may have."""


def adapter_upload(folder: Path, repo: str) -> Upload:
    """Return what is uploaded of a saved adapter: its two files, the record of its run, and a card.

    Args:
        folder: the adapter's folder, in the results folder that its run wrote, or as it was pulled.
        repo: id of the repository, `OWNER/NAME`.

    Raises:
        UserError: the adapter cannot be read or was trained on random weights, its record is not there or is that of
            another run, the run did not complete, or the remarks of its results folder have an error.
    """
    repository_id(repo, "--repo")
    adapter = read_adapter(folder)
    path = _record_of(folder)
    record = read_record(path)
    if record.status != "completed":
        raise UserError(f"{path}: status: is {record.status!r}; complete the run before you share its adapter")
    if record.backbone.weights == "random":
        raise UserError(f"{path}: backbone.weights: is 'random', so the adapter can do nothing; give another adapter")
    _require_same_run(adapter, record, path)
    # A record beside a pulled adapter is in no results folder.
    remarks = [] if path.name == RECORD_FILE else remarks_about([record], path.parents[4])
    shared = _shared(adapter.backbone)
    config = read_file(folder / CONFIG_FILE)
    if shared != adapter.backbone:
        content = json.loads(config)
        content["extra"]["backbone"] = shared.model_dump(exclude_unset=True)
        config = (json.dumps(content, indent=2) + "\n").encode()
    card = str(model_card(record, adapter.method, _base(shared), repo, remarks))
    files: dict[str, bytes | Path] = {
        CARD: card.encode(),
        CONFIG_FILE: config,
        RECORD_FILE: path,
        WEIGHTS_FILE: folder / WEIGHTS_FILE,
    }
    return Upload(repo, "model", f"Add the adapter of {record.run_id}", files)


def pull_adapter(repo: str, out: Path | None, revision: str | None, say: Say) -> ReadAdapter:
    """Download an adapter and check it.

    Args:
        repo: id of the repository, `OWNER/NAME`.
        out: a new folder for it; None takes the name of the repository, below the current folder.
        revision: branch, tag or commit; None for the branch `main`.
        say: called with the lines that say what is downloaded.

    Returns:
        What the adapter says, in its folder.

    Raises:
        UserError: it cannot be downloaded, is no adapter of this project, or the folder exists.
    """
    name = repository_id(repo, "pull").partition("/")[2]
    source = Source(
        "an adapter",
        repo,
        tuple(LARGEST),
        "give a repository that `python -m harness push` has made",
        essential=(WEIGHTS_FILE,),
        revision=revision or "main",
        largest=LARGEST,
    )
    target = Path(name) if out is None else out
    with new_folder(target) as folder:
        require_hub(source.address, "downloaded")
        paths = download(source, say)
        if CONFIG_FILE not in [path.name for path in paths]:
            raise UserError(f"{source.address}: has no {CONFIG_FILE}; {source.remedy}")
        try:
            read_adapter(paths[0].parent)
        except UserError as error:
            raise UserError(f"{source.address}: holds no adapter that can be loaded here ({error})") from error
        for path in paths:
            shutil.copyfile(path, folder / path.name)
    return read_adapter(target)


def _record_of(folder: Path) -> Path:
    """Return the file of the record of a saved adapter.

    Raises:
        UserError: there is none.
    """
    folder = Path(os.path.abspath(folder))
    beside = folder / RECORD_FILE
    if beside.is_file():
        return beside
    # RESULTS/adapters/TASK/MODEL/LABEL/seed…
    if len(folder.parents) > 4 and folder.parents[3].name == "adapters":
        path = folder.parents[4] / "records" / folder.relative_to(folder.parents[3]).parent / f"{folder.name}.json"
        if path.is_file():
            return path
    raise UserError(
        f"{folder}: the record of its run is not there, of which the card is made; give the adapter in the results "
        f"folder that the run wrote, or put the record beside it as {RECORD_FILE}"
    )


def _require_same_run(adapter: ReadAdapter, record: Record, path: Path) -> None:
    """Check that an adapter is that of a record, as far as its files say.

    Raises:
        UserError: it is not.
    """
    same = {
        "method": adapter.method.name == record.method,
        "task": adapter.task == record.task,
        "model": adapter.backbone.model == record.model,
        "backbone.weight_hash": adapter.backbone.weight_hash == record.backbone.weight_hash,
        "config.method": adapter.config.model_dump(mode="json") == record.config.get("method"),
        "config.train": adapter.recipe.model_dump(mode="json", exclude={"tuning"}) == record.config.get("train"),
    }
    for field, equal in same.items():
        if not equal:
            raise UserError(f"{path}: {field}: is not that of the adapter in {adapter.folder}; give its own record")


def _shared(backbone: SavedBackbone) -> SavedBackbone:
    """Return a backbone as others can find it: without the folders of this machine."""
    preset = PRESETS.get(base_model(backbone.model, backbone.quantize))
    if backbone.llm is None or backbone.clip is None:
        return backbone
    if preset is not None and not preset.packaged:  # a copy of the preset's weights keeps its name
        return backbone.model_copy(update={"llm": preset.llm, "clip": preset.clip})
    llm, clip = backbone.llm, backbone.clip
    llm = Path(llm).name if looks_like_path(llm) or os.path.exists(llm) else llm
    local, _, folder = clip.partition("local-dir:")
    clip = clip if local else f"local-dir:{Path(folder).name}"
    return backbone.model_copy(update={"llm": llm, "clip": clip})


def _base(backbone: SavedBackbone) -> Base:
    """Return how a card names a backbone, as `_shared` returns it."""
    preset = PRESETS.get(base_model(backbone.model, backbone.quantize))
    hashed = f"The SHA-256 of its weights must be `{backbone.weight_hash}`; loading the adapter checks it."
    quantised = f", in {backbone.quantize} by bitsandbytes" if backbone.quantize else ""
    if backbone.llm is None or backbone.clip is None:
        shipped = preset is not None and preset.shipped
        where = "comes with the project" if shipped else "is installed by an extra of the project"
        return Base(None, LICENCE if shipped else None, f"`{backbone.model}`{quantised}, which {where}. {hashed}")
    size_and_licence = KNOWN.get(backbone.llm)
    local_llm = "/" not in backbone.llm
    local_clip = backbone.clip.startswith("local-dir:")
    options = [*(["--llm FOLDER"] if local_llm else []), *(["--clip local-dir:FOLDER"] if local_clip else [])]
    licence = size_and_licence[1] if size_and_licence else "not known here; see its own page"
    missing = (
        " A part that is named by a folder is on no hub: say where it is with the options below." if options else ""
    )
    described = (
        f"`{backbone.llm}`{quantised} with the vision tower `{backbone.clip}`. Licence of the language model: "
        f"{licence}. {hashed}{missing}"
    )
    return Base(
        None if local_llm else backbone.llm, "other" if size_and_licence else None, described, " ".join(options)
    )
