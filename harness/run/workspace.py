"""What an unfinished run keeps, so that nothing that was computed is lost: checkpoints, then the trained adapter.

The folder is `RESULTS/unfinished/{task}/{model}/{label}/seed{seed}-{hash}`. It is removed when the run's record is
complete.

Of a complete run, the folder `publishing` is made before anything takes the place of what an earlier run left. From
then on the run is over: a process that finds this folder moves what is still in it, and never goes on with the run. The
folder is the last that is removed.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UserError
from harness.files import read_file, write_atomic
from harness.run.checkpoint import Checkpoints
from harness.run.lock import LOCK_FILE, OWNER_FILE
from harness.run.measured import TrainResult

RESERVE = 64 * 2**10
"""Bytes of the disk that a run keeps free for its record."""


class FinishedTraining(BaseModel):
    """What training measured, kept beside the adapter that it made.

    Attributes:
        measured: what training measured.
        truncated: training examples that were cut to `max_length`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    measured: TrainResult
    truncated: int


class Workspace:
    """The folder of one unfinished run.

    Args:
        results_dir: folder of the records.
        run: path of the run below it, `{task}/{model}/{label}/seed{seed}-{hash}`.
        spec_hash: the run's hash.
    """

    def __init__(self, results_dir: Path, run: Path, spec_hash: str) -> None:
        self.run = run
        self.folder = results_dir / "unfinished" / run
        self.final_adapter = results_dir / "adapters" / run
        self.tracker = results_dir / "trackers" / run
        self.spec_hash = spec_hash
        self.adapter = self.folder / "adapter"
        self.answers = self.folder / "answers.jsonl"
        self.messages = self.folder / "messages.jsonl"
        self.parts = self.folder / "parts" / "record.json"
        self.publishing = self.folder / "publishing" / self.parts.name
        self._finished = self.folder / "training.json"
        self._replaced = self.folder / "replaced-adapter"
        self._reserve = self.folder / "reserve"

    def checkpoints(self, minutes: float) -> Checkpoints:
        """Return the checkpoints of the run's training, `minutes` apart."""
        return Checkpoints(self.folder / "checkpoints", self.spec_hash, minutes)

    def keep_training(self, result: TrainResult, truncated: int, save_adapter: Callable[[Path], None]) -> None:
        """Keep the trained adapter, and then what training measured; where that is, the adapter is whole.

        Args:
            result: what training measured.
            truncated: training examples that were cut.
            save_adapter: writes the adapter into a folder.

        Raises:
            UserError: something cannot be written.
        """
        # Answers of another adapter would be wrong for this one.
        self.answers.unlink(missing_ok=True)
        self._finished.unlink(missing_ok=True)
        shutil.rmtree(self.adapter, ignore_errors=True)  # with what a killed process left in it, half written
        save_adapter(self.adapter)
        finished = FinishedTraining(measured=result, truncated=truncated)
        write_atomic(self._finished, finished.model_dump_json())

    def finished_training(self) -> FinishedTraining | None:
        """Return what training measured, if it finished in an earlier process; else None."""
        try:
            return FinishedTraining.model_validate_json(read_file(self._finished))
        except (OSError, ValidationError):
            return None

    @property
    def is_over(self) -> bool:
        """Whether the run is complete, and at most its publication is not."""
        return self.publishing.parent.exists()

    def end(self) -> None:
        """Note that the run is over and that its parts are whole, so that they are published whatever happens now."""
        os.replace(self.parts.parent, self.publishing.parent)

    def publish_adapter(self) -> None:
        """Move the adapter to where users find it, in place of an earlier one, which stays if that fails.

        Another call goes on where the process of an earlier one was killed.
        """
        self.final_adapter.parent.mkdir(parents=True, exist_ok=True)
        if self.final_adapter.exists():
            if not self.adapter.exists():
                return  # it has been moved
            shutil.rmtree(self._replaced, ignore_errors=True)
            os.replace(self.final_adapter, self._replaced)
        try:
            os.replace(self.adapter, self.final_adapter)
        except OSError:
            if self._replaced.exists():
                os.replace(self._replaced, self.final_adapter)
            raise

    def withdraw_adapter(self) -> None:
        """Undo `publish_adapter`, so that the earlier adapter stays with the earlier record."""
        os.replace(self.final_adapter, self.adapter)
        if self._replaced.exists():
            os.replace(self._replaced, self.final_adapter)

    def new_parts(self) -> Path:
        """Return the path of the record while it is written, after which its parts are named; no file is there."""
        shutil.rmtree(self.parts.parent, ignore_errors=True)
        return self.parts

    def keep_reserve(self) -> None:
        """Occupy enough of the disk for the record, so that it can be written where the run has filled the disk.

        Raises:
            UserError: the disk is full.
        """
        write_atomic(self._reserve, bytes(RESERVE))

    def free_reserve(self) -> None:
        """Give back what `keep_reserve` occupied."""
        self._reserve.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what the run has kept, so that it begins anew. What other processes look at while it is made stays.

        Raises:
            UserError: something cannot be removed.
        """
        mark = self.publishing.parent
        try:
            # The mark goes last: of a run that is over, nothing must be left without it.
            for path in sorted(self.folder.iterdir(), key=lambda path: path == mark):
                if path.name in (LOCK_FILE, OWNER_FILE, self.messages.name):
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be removed ({error.strerror}); remove {self.folder}") from error

    def remove(self) -> None:
        """Remove the folder, and those above it that become empty. What cannot be removed is left to the next run."""
        try:
            self.clear()
        except UserError:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for parent in self.folder.parents[:4]:
            try:
                parent.rmdir()
            except OSError:
                return
