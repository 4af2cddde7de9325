"""Two processes that make a run together without a launcher, forked from one process that has imported everything.

They end as those of a launcher do, and start far sooner, because each process of a launcher imports for seconds.
"""

import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from socket import socket

from harness import cli
from harness.stopping import unblock_signals

IMPORTED = ["harness.commands.run", "transformers.models.llama.modeling_llama", "tests.forked"]
"""Modules that every run imports, or else the processes would."""
ENDING_S = 60
"""How long a process may take to end after the other one has failed."""


def call_in_two(
    arguments: list[str], log: Path, before: Callable[[], object] | None = None, **environment: str
) -> tuple[int, str]:
    """Run `peft-vl-bench` in two processes that make a run together.

    Args:
        arguments: the arguments.
        log: file for what the processes print.
        before: what each process calls first; a function of a module.
        environment: further variables of the environment.

    Returns:
        The exit status, which is not 0 if any process failed, and what they printed.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
    processes: list[BaseProcess] = []
    for rank in ("0", "1"):
        own = {**shared, "RANK": rank, "LOCAL_RANK": rank}
        processes.append(context.Process(target=_call, args=([*map(str, arguments)], log, before, own)))
    for process in processes:
        process.start()
    try:
        while (alive := [one.sentinel for one in processes if one.is_alive()]) and not any(
            one.exitcode for one in processes
        ):
            wait(alive)
        for process in processes:
            process.terminate()  # as a launcher does where another one has failed
            process.join(ENDING_S)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return next((process.exitcode for process in processes if process.exitcode), 0), log.read_text()


def _call(arguments: list[str], log: Path, before: Callable[[], object] | None, environment: dict[str, str]) -> None:
    """Run `peft-vl-bench` in this process, which then ends with its exit status."""
    unblock_signals()  # runs side by side may have started the process that this one is forked from
    writing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(environment)
    sys.argv = ["peft-vl-bench", *arguments]
    if before is not None:
        before()
    cli.main()
