"""How the methods are compared: training, scoring, cost, records and tables.

From Python, `import harness` gives `harness.run`, `harness.load_records`, `harness.load_adapter`, `harness.compare`,
`harness.push` and `harness.pull`, which `harness.api` describes. They import what they need when they are called.
"""

import importlib
import logging
import os
from types import ModuleType
from typing import TYPE_CHECKING

from harness.api import compare, load_adapter, load_records, pull, push
from harness.api import run as _run

if TYPE_CHECKING:
    from harness.api import run

# bitsandbytes, which peft imports where it is installed, would say on some CPUs that it has not downloaded a kernel. At
# each product in 8 bits it would say that inputs are cast to float16, which is how the format is defined.
for _name in ("autograd._functions", "backends.cpu.ops"):
    logging.getLogger(f"bitsandbytes.{_name}").setLevel(logging.ERROR)

# transformers would warn of faults in a foreign folder several times, beside the line that says what is wrong.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

__all__ = ["compare", "load_adapter", "load_records", "pull", "push", "run"]


class _CallablePackage(ModuleType):
    """The package `harness.run`, which is the function `harness.run` as well.

    Python sets the name of a subpackage in its package when the subpackage is imported. A function of this name would
    vanish then, so the subpackage itself can be called.
    """

    __call__ = staticmethod(_run)


importlib.import_module("harness.run").__class__ = _CallablePackage
