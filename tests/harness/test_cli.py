"""The command line as a user sees it: help, one-line errors, and commands that run no training."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from harness import cli
from methods import registry
from tests.command_line import Done, Run, files

ROOT = Path(__file__).parents[2]


# Help


def _commands() -> Iterator[list[str]]:
    group: Any = get_command(cli.app)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        yield from ([name, more] for more in inner) if inner else [[name]]


@pytest.mark.parametrize("command", list(_commands()), ids=" ".join)
def test_every_command_explains_itself(command: list[str], call: Run) -> None:
    done = call(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"python -m harness {' '.join(command)}" in done.out
    status = "Exit status: 0 done; 1 a run failed, or a difference or conflict was found; 2 wrong usage or something"
    assert status in done.out


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", [[], *_commands()], ids=" ".join)
def test_no_text_of_an_option_is_cut(command: list[str], width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width)
    group: Any = get_command(cli.app)
    found: Any = group
    for name in command:
        found = found.commands[name]
    text = CliRunner().invoke(group, [*command, "--help"]).output
    assert "…" not in text and max(map(len, text.splitlines())) == width
    words = set(text.replace("│", " ").split())
    context = found.make_context("harness", [], resilient_parsing=True)
    for option in found.params:
        said = (getattr(option, "help", None) or "").replace("\\[", "[").split()
        assert set(said) <= words, option.name
        assert set((option.display_type_rich(ctx=context) or "").split()) <= words, option.name


def _loaded_by(arguments: Sequence[object], packages: Collection[str]) -> list[str]:
    """Run a command in a process of its own; return which of the packages it has imported."""
    code = (
        "import sys\n"
        "from harness import cli\n"
        f"sys.argv = ['harness', *{[str(argument) for argument in arguments]!r}]\n"
        "try: cli.main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        f"print(*sorted({{*{sorted(packages)!r}}} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    *shown, loaded = done.stdout.splitlines()
    assert shown, "the command printed nothing"
    return loaded.split()


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "open_clip", "pandas", "pydantic", "numpy")
    assert not _loaded_by(["--help"], heavy)


@pytest.mark.parametrize(
    "arguments",
    [
        "table --results {results}",
        "compare dehvf memvp --results {results}",
        "audit --results {results}",
        "readme --results {empty}",
        "score scienceqa --problems {data}/problems.json --splits {data}/pid_splits.json --predictions {predictions}",
        "data check scienceqa --data-root {data}",
    ],
    ids=lambda arguments: " ".join(arguments.split()[:2]),
)
def test_what_needs_no_model_loads_no_torch(arguments: str, mini_set: Path, tmp_path: Path) -> None:
    test_ids = json.loads((mini_set / "pid_splits.json").read_text())["test"]
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps(dict.fromkeys(test_ids, 0)))
    empty = tmp_path / "empty"
    empty.mkdir()
    places = {"data": mini_set, "results": ROOT / "results", "empty": empty, "predictions": predictions}
    assert not _loaded_by(arguments.format(**places).split(), ("torch", "transformers", "open_clip", "accelerate"))


def test_module_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "harness"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2  # without a command, the help is printed as an error
    assert "Usage:" in done.stdout + done.stderr


def test_version(call: Run) -> None:
    done = call("--version")
    assert (done.code, done.out, done.err) == (0, f"{version('peft-vl-bench')}\n", "")


def test_the_version_of_a_package_that_is_not_installed(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "PACKAGE", "no-such-package")
    _is_user_error(call("--version"), "no-such-package is not installed")


def _completions(words: str) -> str:
    """Return the completions of `words` that the installed command gives to the shell."""
    code = "import sys; from harness.cli import main; sys.argv[0] = 'peft-vl-bench'; main()"
    asked = {"_PEFT_VL_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=os.environ | asked, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("words", "completion"), [("peft-vl-bench read", "readme"), ("peft-vl-bench run --dat", "--data-root")]
)
def test_the_shell_completes_subcommands_and_options(words: str, completion: str) -> None:
    assert _completions(words).split() == [completion]


def test_completion_can_be_installed(call: Run) -> None:
    assert "--install-completion" in call("--help").out


# Errors


def _is_user_error(done: Done, message: str) -> None:
    assert done.code == 2
    assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
    assert message in done.err
    assert "Traceback" not in done.out + done.err


@pytest.mark.parametrize(
    ("error", "message"),
    [(MemoryError(), "too little memory"), (RecursionError(), "nested too deeply")],
    ids=["memory", "depth"],
)
def test_what_python_cannot_hold_is_one_line(
    error: Exception, message: str, call: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> str:
        raise error

    monkeypatch.setattr("harness.commands.methods.methods_text", fail)
    _is_user_error(call("methods"), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --methods memvpp", "did you mean memvp"),
        ("run --methods dehvf --ablation key_only", "did you mean keys_only"),
        ("run --model tyny", "did you mean tiny"),
        ("run --set nonsense", "give KEY=VALUE"),
        ("run --set bas_lr=1", "--set bas_lr: neither the recipe nor dehvf has it"),
        ("run --set base_lr=fast", "--set base_lr: Input should be a valid number"),
        ("run --set base_lr=NaN", "--set base_lr: "),
        ("run --set lavin.base_lr=1", "lavin is not a method of this run"),
        ("run --ablation , --methods dehvf", "--ablation ,: contains no name; give names"),
        (
            "run --methods blind --set fusion=mean",
            "--set fusion: dehvf-no_visual_prompts fixes fusion=none",
        ),
        ("run --methods ,,", "--methods ,,: contains no name; give names"),
        ("run --set betas=[2,3]", "--set betas"),
        ("run --set lr=1e-3", "did you mean base_lr or min_lr?"),
        (f"run --seeds {'9' * 400}", "…(401 characters)…"),
        (f"table --results {'x' * 5000}", " characters)…"),
        ("run --set tuning=caf\udce9", r"tuning=caf\udce9: is not in UTF-8"),
        ("run --model \x1b[31m", r"--model \x1b[31m: no such preset"),
        ("run --seeds one", "--seeds one: not a list of whole numbers"),
        ("run --seeds -1", "--seeds -1"),
        ("run --seeds ,", "--seeds: give at least one"),
        ("run --steps 3 --epochs 2", "--steps and --epochs: give one"),
        ("run --steps 3 --set epochs=2", "--steps and --set epochs: give one"),
        ("run --steps 3 --set memvp.epochs=2", "--steps and --set memvp.epochs: give one"),
        ("run --epochs 0", "--epochs 0: give a number above 0"),
        ("run --epochs nan", "--epochs nan"),
        ("run --device gpu", "--device gpu: no such device"),
        ("run --device meta", "--device meta: not supported; give cpu, cuda"),
        ("run --device cuda:99", "--device cuda:99: torch can use"),
        ("run --dtype int8", "--dtype int8: not supported; give float32, bfloat16"),
        ("run --weights half", "--weights half: no such kind of weights; give pretrained or random"),
        ("run --model 7b", "not on this machine: ScienceQA (626.0 MB"),
        ("run --model 7b --data-root {data}", "not on this machine: the weights of LLaMA-7B (13.5 GB"),
        ("run --model bench --data-root {data}", "give --weights random"),
        ("run --model 7b --clip ViT-L-14:openai --data-root {data}", "give ViT-L-14-quickgelu:openai"),
        ("run --task vqa --llm {llm} --clip {clip} --data-root {data}", "--task vqa: no such task"),
        ("run --llm {llm} --clip {clip} --data-root nowhere", "nowhere: no such data folder"),
        ("run --llm {llm} --clip {clip} --data-root {data} --full", "is declared as the full ScienceQA"),
        ("run --llm {llm} --clip {clip} --data-root {data} --set prompt_format=XX", "unknown prompt format 'XX'"),
        (
            "run --methods lavin,llava_lora --protocol published",
            "--protocol published: nobody has published the protocol of llava_lora on scienceqa; give methods",
        ),
        ("run --methods lavin --protocol published --task coco", "start from an adapter that was trained before"),
        (
            "run --protocol published --methods lavin --set prompt_format=QCM-A",
            "published protocol of lavin fixes QCM-ALE",
        ),
        ("run --set protocol=published", "give --protocol published"),
        ("run --set sampling_seed=1", "--set sampling_seed: is for the published protocol"),
        (
            "run --methods memvp --protocol published --set sampling_seed=1",
            "--set sampling_seed: is for the published protocol of a method whose answers are generated",
        ),
        (
            "run --methods lavin,memvp --protocol published --set sampling_seed=1",
            "which is not so for memvp; give --set lavin.sampling_seed instead",
        ),
        ("run --set prompt_format=QCM-LEA --set scoring=letter", "but QCM-LEA gives it last; set scoring to generate"),
        ("run --set prompt_format=QCM-LEA --set eval_prompt_format=QCM-A", "set both to the same order"),
        ("run --llm {llm} --clip {clip} --data-root {data} --set memory_length=3", "memory"),
        ("run --llm {llm} --clip {clip} --data-root {data} --set max_length=9", "cuts off every answer"),
        ("run --llm {llm} --clip {clip} --data-root {data} --set max_length=2000", "reads at most 1024 tokens"),
        (
            "run --methods llava_lora --llm {llm} --clip {clip} --data-root {data} --set scoring=generate --set "
            "max_new_tokens=1000",
            "1000 more do not fit: ",
        ),
        (
            "run --llm {llm} --clip {clip} --data-root {data} --set dehvf.fuser_dim=7",
            "fuser_heads 4 do not divide fuser_dim 7",
        ),
        ("params --methods memvpp", "did you mean memvp"),
        ("params --methods ,", "--methods ,: contains no name; give names"),
        ("params --model nowhere/model", "not on this machine: the weights of nowhere/model"),
        ("flops --methods llama_adapter --model tiny --set num_scales=3", "choose num_scales among"),
        ("params --model vicuna", "no such preset; presets: tiny, smol, 7b"),
        (
            "params --model ./nowhere",
            "error: --model ./nowhere: no such folder; give a folder or hub id of a Llama model",
        ),
        ("flops --model no/such/folder", "error: --model no/such/folder: no such folder; give"),
        ("flops --model nowhere.gguf", "error: --model nowhere.gguf: no such file; give"),
        ("run --llm ./nowhere --data-root {data}", "error: --llm ./nowhere: no such folder; give"),
        ("table --table 9", "9"),
        ("data check vqa --data-root {data}", "no such data set"),
        ("data check scienceqa --data-root nowhere", "nowhere"),
        ("score scienceqa --problems no.json --splits no.json --predictions no.json", "no.json"),
    ],
)
def test_user_errors_are_one_line(
    arguments: str, message: str, call: Run, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    named = arguments.format(data=mini_set, llm=small_llm, clip=f"local-dir:{small_clip}").split()
    results = ["--results", tmp_path] if named[0] == "run" else []
    done = call(*named, *results)
    _is_user_error(done, message)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --limit 0", "Invalid value for '--limit': "),
        ("run --limit many", "Invalid value for '--limit': "),
        (f"run --limit {'9' * 400}", "Invalid value for '--limit': "),
        ("run --log-seconds nan", "Invalid value for '--log-seconds': "),
        ("flops --new-tokens 1000000000000000000000000000000", "Invalid value for '--new-tokens': "),
        ("run --limit", "Option '--limit' requires an argument; see `"),
        ("run --no-such-option", "No such option: --no-such-option"),
        ("run \x1b[31m", r"(\x1b[31m); see `"),
        ("runn", "No such command 'runn'. Did you mean"),
        ("data chek", "No such command 'chek'. Did you mean 'check'?"),
        ("table --format yaml", "'yaml' is not one of 'markdown', 'latex', 'csv', 'json', 'html'; see `"),
        ("data check scienceqa", "Missing option '--data-root'; see `"),
    ],
)
def test_wrong_use(arguments: str, message: str, call: Run) -> None:
    done = call(*arguments.split())
    _is_user_error(done, message)
    assert not done.out


def _parameters(choice: bool) -> Iterator[list[str]]:
    """Yield every command that cannot do without a parameter, or every option with named choices."""
    for names in _commands():
        command: Any = get_command(cli.app)
        for name in names:
            command = command.commands[name]
        if choice:
            known = {option.opts[0] for option in command.params}
            yield from ([*names, option] for option in ("--format", "--protocol", "--executor") if option in known)
        elif any(parameter.required for parameter in command.params):
            yield names


@pytest.mark.parametrize("command", list(_parameters(choice=False)), ids=" ".join)
def test_a_missing_option_or_argument_is_one_line(command: list[str], call: Run) -> None:
    _is_user_error(call(*command), f"{' '.join(command)} --help`")


@pytest.mark.parametrize("option", list(_parameters(choice=True)), ids=" ".join)
def test_a_choice_that_is_not_offered_is_one_line(option: list[str], call: Run) -> None:
    _is_user_error(call(*option, "neither"), f"Invalid value for '{option[-1]}': 'neither' is not one of '")


@pytest.mark.parametrize("group", ["", "data", "score", "records", "results"])
def test_a_group_without_a_command_prints_its_help(group: str, call: Run) -> None:
    done = call(*group.split())
    assert done.code == 2 and not done.err
    assert "COMMAND [ARGS]..." in done.out


def test_a_run_that_cannot_be_made_stops_the_sweep_before_it_starts(
    call: Run, base: list[str], mini_set: Path, tmp_path: Path
) -> None:
    silent = shutil.copytree(mini_set, tmp_path / "silent")
    (silent / "scenes.json").unlink()
    base[base.index("--data-root") + 1] = str(silent)
    done = call(*base, "--methods", "memvp,oracle")
    _is_user_error(done, "scenes.json: missing; the oracle reads every image in words from it: leave")
    assert "training" not in done.out
    assert not (tmp_path / "results").exists()


# Commands that run no training


def test_methods_lists_the_registry(call: Run) -> None:
    listed = json.loads(call("methods", "--format", "json").out)
    assert [row["method"] for row in listed] == list(registry())
    assert all(row["what"] and row["paper"] and row["url"].startswith("https://") for row in listed)
    text = call("methods").out
    assert all(row["title"] in text for row in listed)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal of 80 columns."""
    monkeypatch.setattr("harness.terminal.terminal_width", lambda: 80)
    return 80


@pytest.mark.parametrize("command", ["methods", "params --model tiny", "flops --model tiny", "table"])
def test_a_terminal_of_80_columns_is_wide_enough(command: str, call: Run, terminal: int, tmp_path: Path) -> None:
    results = ["--results", tmp_path] if command == "table" else []
    done = call(*command.split(), *results)
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= terminal
    assert "| --" not in done.out and "|--" not in done.out


@pytest.mark.parametrize("command", ["compare dehvf memvp", "audit", "table --paper", "flops --figure2"])
def test_committed_results_fit_a_terminal(command: str, call: Run, terminal: int) -> None:
    done = call(*command.split(), *([] if "flops" in command else ["--results", Path(__file__).parents[2] / "results"]))
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= terminal and "|--" not in done.out
    if command == "table --paper":
        cells = [line for line in done.out.splitlines() if "(tiny)" in line]
        assert cells and all(line.endswith("other backbone") for line in cells)


def test_methods_in_a_terminal_are_blocks_with_their_ablations(call: Run, terminal: int) -> None:
    listed = json.loads(call("methods", "--format", "json").out)
    text = " ".join(call("methods").out.split())
    for row in listed:
        assert f"{row['method']}: {row['title']} {row['what']} {row['paper']} {row['url']}" in text
        assert not row["ablations"] or f"Ablations: {', '.join(row['ablations'])}" in text


def test_an_explicit_format_is_the_same_in_a_terminal(call: Run, terminal: int, tmp_path: Path) -> None:
    arguments = ("table", "--format", "markdown", "--results", tmp_path)
    assert "| Human" in call(*arguments).out


@pytest.mark.parametrize("format", ["markdown", "latex", "csv", "json", "html"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_tables_without_records(number: int, format: str, call: Run, tmp_path: Path) -> None:
    done = call("table", "--table", number, "--format", format, "--results", tmp_path)
    assert done.code == 0
    if format == "json":
        cells = [cell for row in json.loads(done.out) for cell in row["metrics"].values()]
        assert cells and all(cell["value"] is None for cell in cells)
    elif format != "csv":  # in CSV a missing number is an empty field
        assert "n/a" in done.out
