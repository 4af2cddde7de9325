"""A backbone of random weights is made where it stays, without a second copy in memory."""

import json
import subprocess
import sys

import pytest

LOAD = """
import json, resource
from dataclasses import replace
import psutil, torch
from harness.backbone.loader import load_backbone
from harness.config.presets import PRESETS

spec = PRESETS["bench"]
large = dict(spec.llm_config, hidden_size=2048, intermediate_size=5632, num_hidden_layers=4, num_attention_heads=16)
load_backbone(spec, weights="random", dtype=torch.bfloat16)  # what loading any backbone imports
before = psutil.Process().memory_info().rss
backbone = load_backbone(replace(spec, llm_config=large), weights="random", dtype=torch.bfloat16)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
weights = sum(p.numel() * p.element_size() for p in backbone.llm.parameters())
print(json.dumps({"weights": weights, "taken": peak - before}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's peak of the process")
def test_random_weights_are_held_once() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["weights"] > 600e6
    assert 0.9 * found["weights"] < found["taken"] < 1.25 * found["weights"]
