"""A model compiled by regions computes the same as before."""

from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from harness.backbone.machine import resolve_machine
from harness.commands import dryrun, run
from harness.commands.run_options import backbone
from harness.errors import UserError
from harness.run.compiled import compiled_regions, require_compiler
from methods import registry
from tests.backbones import random_batch, tiny_backbone, tuned_model

CPU = torch.device("cpu")


@pytest.fixture
def eager_graphs(monkeypatch):
    """Compile without generating code, and without interrupting a function that a method declares."""
    compile_ = torch.compile

    def compile_eagerly(function):
        declared = function.__name__ in getattr(getattr(function, "__self__", None), "compiled_regions", ())
        return compile_(function, backend="eager", fullgraph=declared)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    torch._dynamo.reset()


@pytest.fixture
def no_compiler(monkeypatch):
    """Fail as torch does where Triton finds no C compiler."""

    def fail(*_):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\n\nSet TORCHDYNAMO")

    monkeypatch.setattr(torch, "compile", lambda function: fail)


def test_a_missing_compiler_is_one_line(no_compiler):
    expected = (
        r"--device cpu: torch cannot compile code here \(Failed to find C compiler\. .*\); install a C compiler .*, or "
        r"remove --compile$"
    )
    with pytest.raises(UserError, match=expected):
        require_compiler(CPU, "remove --compile")


def test_a_device_that_compiles_is_left_alone(eager_graphs):
    require_compiler(CPU, "remove --compile")


@pytest.mark.parametrize(
    ("device", "setting", "options", "code"),
    [
        ("cuda", (), (), 2),
        ("cuda", (), ("--dry-run",), 2),
        ("cuda", ("--set", "captured=false"), ("--dry-run",), 0),
        ("cpu", (), ("--dry-run",), 0),
    ],
)
def test_a_run_asks_for_a_compiler_before_anything_is_read(device, setting, options, code, call, base, monkeypatch):
    """A GPU is emulated: only what chooses and checks the runs sees it."""

    def missing(device, otherwise):
        raise UserError(f"no compiler for {device.type}; {otherwise}")

    def read(*_):
        pytest.fail("something was read before the check")

    on_gpu = replace(resolve_machine("cpu", "auto", "random"), device=torch.device(device))
    monkeypatch.setattr("harness.run.compiled.require_compiler", missing)
    if options:
        chosen = dryrun.plans_of
        monkeypatch.setattr(dryrun, "plans_of", lambda given, spec, _: chosen(given, spec, on_gpu))
        checked = dryrun.require_capturable
        monkeypatch.setattr(dryrun, "require_capturable", lambda plans, _: checked(plans, on_gpu.device))
        monkeypatch.setattr("harness.run.dryrun.PlanChecks", lambda *_: lambda plan: None)
    else:
        monkeypatch.setattr(run, "backbone", lambda given: (backbone(given)[0], on_gpu))
        monkeypatch.setattr(run, "_with_files", read)
    done = call(*base, "--methods", "memvp", *setting, *options)
    assert done.code == code, done
    assert ("no compiler for cuda; give --set captured=false" in done.out + done.err) == (code == 2)


def decoded(model, prompt):
    """Logits after the prompt and of two more tokens."""
    with torch.no_grad():
        logits, state = model.prefill(prompt)
        found = [logits]
        for _ in range(2):
            found.append(model.step(found[-1].argmax(dim=-1), state))
    return torch.stack(found)


@pytest.mark.slow
def test_a_run_compiles_its_own_graphs(eager_graphs):
    model = tuned_model("memvp", tiny_backbone()).eval()
    made = []
    for _ in range(2):
        before = counters["stats"]["unique_graphs"]
        with compiled_regions(model), torch.no_grad():
            model(random_batch(model.backbone, 3, 12, padding="right"))
        made.append(counters["stats"]["unique_graphs"] - before)
    assert made[0] == made[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", registry())
def test_a_compiled_model_computes_the_same(name, eager_graphs):
    backbone = tiny_backbone()
    model = tuned_model(name, backbone).eval()
    batch = random_batch(backbone, 3, 12, padding="left", has_image=(True, False, True))
    prompt = replace(batch, labels_BL=None)
    loss, logits = model(batch), decoded(model, prompt)
    loss.backward()
    gradients = [parameter.grad for parameter in model.method.parameters()]
    model.zero_grad(set_to_none=True)
    names = [name for name, _ in model.named_parameters()]
    with compiled_regions(model):
        torch.testing.assert_close(decoded(model, prompt), logits)
        again = model(batch)
        again.backward()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close([parameter.grad for parameter in model.method.parameters()], gradients)
    # Behind the context, the model is what it was, and it runs without compiled code.
    assert [name for name, _ in model.named_parameters()] == names
    torch.testing.assert_close(decoded(model, prompt), logits)
    assert not any(getattr(module, "_compiled_call_impl", None) for module in model.modules())
