"""Experiment trackers, through accelerate: what training measures can be watched in a browser.

A tracker is for looking at a run. If it fails, the run goes on without it.
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import UserError, first_line
from harness.run.random_states import RandomStates

TRACKERS = ("tensorboard", "wandb", "trackio")
"""The trackers that `--tracker` takes. Each is a package, and an extra of this project, of the same name."""
PROJECT = "peft-vl-bench"


def require_tracker(name: str) -> None:
    """Check that a tracker can be used.

    Args:
        name: value of `--tracker`; empty for none.

    Raises:
        UserError: there is no such tracker, or its package is not installed.
    """
    if name and name not in TRACKERS:
        raise UserError(f"--tracker {name}: no such tracker; choose one of {', '.join(TRACKERS)}")
    if name and importlib.util.find_spec(name) is None:
        raise UserError(f'--tracker {name}: the package is not installed; run `pip install -e ".[{name}]"`')


class Tracker:
    """The tracker of one run; does nothing without a name.

    Args:
        name: one of `TRACKERS`, or empty.
        folder: where the tracker keeps its files; trackio has one place for all runs, which `TRACKIO_DIR` sets.
        run: what the run is called there.
        config: all settings of the run.
        say: called with one line if the tracker fails.
    """

    def __init__(
        self, name: str, folder: Path, run: str, config: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        self._name, self._say = name, say
        self._trackers: list[Any] = []
        if name:
            with self._forgiven():
                self._trackers = _start(name, folder, run, config)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send what one optimiser step measured.

        Args:
            values: name -> value.
            step: number of the step.
        """
        for tracker in self._trackers:
            with self._forgiven():
                tracker.log(dict(values), step=step)

    def close(self) -> None:
        """Finish writing."""
        for tracker in self._trackers:
            with self._forgiven():
                tracker.finish()
        self._trackers = []

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        """Go on without the tracker if it fails."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self._trackers = []
            self._say(f"--tracker {self._name}: {type(error).__name__}: {first_line(error)}; going on without it")


def _start(name: str, folder: Path, run: str, config: Mapping[str, Any]) -> list[Any]:
    """Start a tracker through accelerate, and return what it is logged to."""
    from accelerate import Accelerator

    if name == "wandb":
        folder.mkdir(parents=True, exist_ok=True)  # it would take another place than a folder that is not there
    options = {"tensorboard": {}, "wandb": {"dir": str(folder), "name": run}, "trackio": {"name": run}}
    states = RandomStates.now()  # a tracker may draw its run's id
    accelerator = Accelerator(log_with=name, project_dir=str(folder))
    accelerator.init_trackers(PROJECT, config=_flat(config), init_kwargs={name: options[name]})
    states.restore()
    return list(accelerator.trackers)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return nested settings as one level of `section.field` -> a value that every tracker takes."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
