"""Where generated data sets are kept, so that each is built once per user."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import UserError
from harness.files import cache_folder, remove_stale_folders

Sizes = tuple[int, int, int]
"""Number of samples in train, val and test."""
ADVICE = "set XDG_CACHE_HOME to a folder that can be written"


def ensure_built(
    cache_dir: Path | None, name: str, version: int, seed: int, sizes: Sizes, build: Callable[[Path, int, Sizes], None]
) -> Path:
    """Return the folder of a generated data set, which is built on first use.

    The set is built in a temporary folder and then renamed. So an interrupted build leaves no incomplete set, and two
    processes may build the same set at the same time. The temporary folder of a build that was killed is removed when a
    set of that name is used a day later.

    Args:
        cache_dir: where generated sets are kept; None takes the cache folder of the user.
        name: name of the set.
        version: version of the set's generator.
        seed: seed of everything that is drawn.
        sizes: number of samples in train, val and test.
        build: writes the set of a seed and sizes to the folder that it is given; it raises OSError where it cannot.

    Raises:
        UserError: the folder cannot be written.
    """
    cache_dir = cache_dir or cache_folder()
    key = json.dumps([version, seed, list(sizes)])
    root = cache_dir / f"{name}-v{version}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    remove_stale_folders(cache_dir, f".{name}-v*")
    if root.is_dir():
        return root
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=cache_dir))
    except OSError as error:
        raise UserError(f"{cache_dir}: cannot be written ({error}); {ADVICE}") from error
    try:
        build(building, seed, sizes)
        building.chmod(0o755)
        building.rename(root)
    except OSError as error:
        if not root.is_dir():  # if it exists, another process has built the same set meanwhile
            raise UserError(f"{root}: cannot be written ({error}); {ADVICE}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root
