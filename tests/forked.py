"""Two processes that make a run together without a launcher. They end as those of a launcher do, and start sooner."""

import time
from collections.abc import Callable
from pathlib import Path
from socket import socket

from tests.command_line import environment
from tests.warm import WarmProcess

ENDING_S = 60
"""How long a process may take to end after the other one has failed."""


def call_in_two(
    arguments: list[str], log: Path, before: Callable[[], object] | None = None, **variables: str
) -> tuple[int, str]:
    """Run `python -m harness` in two processes that make a run together.

    Args:
        arguments: the arguments.
        log: file for what the processes print.
        before: what each process calls first; a function of a module.
        variables: further variables of the environment.

    Returns:
        The exit status of the process that failed first, or 0, and what they printed.
    """
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**environment(), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **variables}
    processes = [
        WarmProcess([*map(str, arguments)], {**shared, "RANK": rank, "LOCAL_RANK": rank}, log=log, before=before)
        for rank in ("0", "1")
    ]
    try:
        while None in (codes := [one.poll() for one in processes]) and not any(codes):
            time.sleep(0.02)
        for process in processes:
            process.terminate()  # as a launcher does where another one has failed
            process.wait(ENDING_S)
    finally:
        for process in processes:
            process.kill()
    return next(filter(None, codes), 0), log.read_text()
