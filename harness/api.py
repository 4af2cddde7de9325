"""What the harness offers to Python code, the same as its command line. Nothing heavy is imported before a call.

Example:
    import harness

    if __name__ == "__main__":
        harness.run(["dehvf", "memvp"], seeds=[0, 1], results="my-results")
        print(harness.load_records("my-results")[["label", "seed", "metrics.Avg.value"]])
        print(harness.compare("dehvf", "memvp", results="my-results").verdict)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from harness.report.compare import Comparison
    from harness.run.predict import LoadedAdapter

RESULTS = Path("results")
"""The results folder where none is given."""


def run(
    methods: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (0,),
    model: str = "tiny",
    task: str = "scienceqa",
    results: str | Path = RESULTS,
    data_root: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Train and score methods, as `python -m harness run` does, and write one record per run.

    Runs that are recorded as completed are not made again. An interrupted run goes on from its last checkpoint. A run
    that fails does not stop the others: its row has the status `failed` and the error.

    Args:
        methods: names of methods; none takes those that `run` takes by default.
        seeds: each method runs once per seed.
        model: backbone preset.
        task: `scienceqa` or `coco`.
        results: folder of the records.
        data_root: data folder in the official layout; None looks where the command looks.
        settings: fields of the recipe or of the methods, `{"base_lr": 1e-3, "dehvf.fuser_dim": 32}`.
        quiet: print nothing.
        options: other options of the command, with `_` in place of `-`, such as `steps`, `epochs`, `limit`, `device`,
            `protocol`, `ablations` and `jobs`; see `harness.commands.run_options.RunOptions`. With more than one of
            `jobs`, which is 1 here without an `executor`, the script needs `if __name__ == "__main__":`.

    Returns:
        One row for each run that was asked for, in their order, with the columns of `load_records`.

    Raises:
        UserError: an option is wrong, or something that a run needs is missing.
        TypeError: there is no such option.
    """
    from harness.commands.run import make_runs
    from harness.commands.run_options import RunOptions
    from harness.report.frame import frame
    from harness.run.executor_choice import LOCAL
    from harness.run.progress import RunConsole

    asked = RunOptions(
        methods=tuple(methods),
        seeds=tuple(seeds),
        model=model,
        task=task,
        results=Path(results),
        data_root=None if data_root is None else Path(data_root),
        settings=dict(settings or {}),
        **{"jobs": None if options.get("executor", LOCAL) != LOCAL else 1, **options},
    )
    return frame(make_runs(asked, RunConsole(quiet=quiet)).records, Path(results))


def load_records(results: str | Path = RESULTS) -> pd.DataFrame:
    """Return all records of a results folder as a table.

    Args:
        results: the results folder.

    Returns:
        One row per record, sorted by path. The columns are the fields of a record, with the path of a field in the
        record as its name, such as `metrics.Avg.value`, `parameters.trainable` or `config.train.base_lr`;
        results/README.md describes them. `protocol` is the protocol of the run, and `path` the file of the record.

    Raises:
        UserError: a record has an error.
    """
    from harness.records import read_records
    from harness.report.frame import frame

    return frame(read_records(Path(results)), Path(results))


def load_adapter(
    folder: str | Path, device: str = "cpu", llm: str | None = None, clip: str | None = None
) -> LoadedAdapter:
    """Load a saved adapter and the backbone that it was trained on; its `answer` answers a question.

    Args:
        folder: the adapter's folder, which a run writes as `RESULTS/adapters/TASK/MODEL/METHOD/seed…`, or which `pull`
            returns.
        device: where the model goes, such as `cpu` or `cuda`.
        llm: where its language model is on this machine, a folder or a hub id; None takes what the adapter names.
        clip: where its vision tower is, as `NAME[:WEIGHTS]` or `local-dir:FOLDER`; None takes what the adapter names.

    Raises:
        UserError: the adapter is incomplete or damaged, or its backbone is unavailable or has different weights now.
    """
    from harness.run import predict

    return predict.load_adapter(folder, device, llm, clip)


def push(adapter: str | Path, repo: str, private: bool = False) -> str:
    """Upload a saved adapter to the model hub, with a card made from its record.

    Args:
        adapter: the adapter's folder, in the results folder that its run wrote.
        repo: the repository, `OWNER/NAME`; it is made if it is not there.
        private: whether only its owner may see the repository.

    Returns:
        The address of the commit.

    Raises:
        UserError: the adapter or its record cannot be read, the run did not complete, or the hub cannot be used.
    """
    from harness.sharing.adapters import adapter_upload
    from harness.sharing.upload import send

    return send(adapter_upload(Path(adapter), repo), private)


def pull(repo: str, out: str | Path | None = None, revision: str | None = None) -> Path:
    """Download an adapter from the model hub and check it.

    Args:
        repo: the repository, `OWNER/NAME`.
        out: a new folder for it; None takes the name of the repository, below the current folder.
        revision: branch, tag or commit; None for the newest state.

    Returns:
        The adapter's folder, for `load_adapter`.

    Raises:
        UserError: it cannot be downloaded, is no adapter of this project, or the folder exists.
    """
    from harness.sharing.adapters import pull_adapter
    from harness.streams import say_on_stderr

    return pull_adapter(repo, None if out is None else Path(out), revision, say_on_stderr).folder


def compare(
    first: str,
    second: str,
    *,
    model: str = "tiny",
    task: str = "scienceqa",
    protocol: str = "uniform",
    results: str | Path = RESULTS,
) -> Comparison:
    """Say whether one method is better than another, by a test over their seeds and their answers.

    Args:
        first, second: a method, `METHOD-ABLATION`, or `blind`.
        model: model of the records.
        task: task of the records.
        protocol: `uniform` or `published`.
        results: folder of the records.

    Returns:
        The verdict in sentences, and the difference in every column with its interval.

    Raises:
        UserError: there is no such task, a method has no record that may enter a table, the two have no seed in common,
            or saved predictions have an error.
    """
    from harness.report.compare import compare as by_records

    return by_records(Path(results), first, second, model, task, protocol)
