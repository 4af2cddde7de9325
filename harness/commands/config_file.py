"""`run --config` and `run --save-config`: the options of a command from a settings file, and into one."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from harness.config.overrides import merge_settings
from harness.config.recipe import recipe_class
from harness.config.settings import SET, Settings, read_settings, settings_text
from harness.errors import UserError
from harness.files import write_atomic
from harness.typed import is_given

NOT_IN_FILES = ("config", "save-config", "help")
"""Options that a settings file cannot hold."""
NOT_SAVED = ("dry-run", "format", "force")
"""Options that say what to do this time, not what the runs are."""
_EPOCHS = "epochs"
_LENGTHS = (_EPOCHS, "steps")
"""Options of which a command takes one, because both give the length of training."""


def use_config(context: typer.Context, path: Path) -> None:
    """Make the options in a settings file the defaults of a command, so that the command line wins.

    Args:
        context: the command, before its other options are read. `context.meta` keeps the pairs of `--set`.
        path: the settings file.

    Raises:
        UserError: the file cannot be read, or has an unknown option or a value that is not allowed.
    """
    content = read_settings(path)
    parameters = _parameters(context)
    defaults: dict[str, Any] = {}
    for name, value in content.options.items():
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            hint = f"did you mean {near[0]}?" if near else f"options: {', '.join(parameters)}; and the table [{SET}]"
            raise UserError(f"--config {path}: {name}: no such option of `run`; {hint}")
        parameter = parameters[name]
        defaults[parameter.name] = _checked(context, path, name, parameter, value)
    context.default_map = defaults
    context.meta[SET] = content.settings


def settings_of(context: typer.Context, pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pairs of `--set`, from the settings file and from the command line, which wins.

    Args:
        context: the command.
        pairs: those of the command line.
    """
    file = context.meta.get(SET, {})
    if any(is_given(context, name) for name in _LENGTHS):
        # The warm-up of a file that gives a length belongs to that length.
        owners = {key.removesuffix(_EPOCHS) for key in file if key.rpartition(".")[2] == _EPOCHS}
        gone = {f"{owner}{field}" for owner in owners for field in (_EPOCHS, "warmup_epochs")}
        file = {key: value for key, value in file.items() if key not in gone}
    return merge_settings(file, pairs, recipe_class(context.params["task"]).model_fields)


def choose_length(context: typer.Context, pairs: Mapping[str, Any]) -> None:
    """Drop the options of a settings file that give the length of training, where the command line gives it otherwise.

    `--epochs`, `--steps` and `--set epochs` all give it. `settings_of` drops the third.

    Args:
        context: the command, whose `params` are changed.
        pairs: the pairs of `--set` of the command line.
    """
    given = [name for name in _LENGTHS if is_given(context, name)]
    if given or _EPOCHS in pairs:
        context.params |= {name: None for name in _LENGTHS if name not in given}


def save_config(context: typer.Context, settings: Mapping[str, Any], path: Path) -> None:
    """Write the options of a command, those with default values included, into a settings file.

    Args:
        context: the command, with all options read.
        settings: the pairs of `--set`.
        path: the file to write or replace.

    Raises:
        UserError: the file cannot be written.
    """
    names = {name: parameter.name for name, parameter in _parameters(context).items() if name not in NOT_SAVED}
    options = {name: context.params[known] for name, known in names.items()}
    write_atomic(path, settings_text(Settings(options, dict(settings))))


def _parameters(context: typer.Context) -> dict[str, Any]:
    """Return the parameters of a command by the names that they have in a settings file."""
    named = {max(p.opts, key=len).removeprefix("--"): p for p in context.command.params}
    return {name: parameter for name, parameter in named.items() if name not in (*NOT_IN_FILES, SET)}


def _checked(context: typer.Context, path: Path, name: str, parameter: Any, value: Any) -> Any:
    """Return a value from a settings file in the form that the parser takes for the default of an option."""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    flag = bool(parameter.is_flag)
    try:
        if isinstance(value, bool) != flag or not isinstance(value, bool | int | float | str):
            raise typer.BadParameter(f"{value!r} is not {'true or false' if flag else 'a value of this option'}")
        parameter.process_value(context, value if flag else str(value))
    except typer.BadParameter as error:
        raise UserError(f"--config {path}: {name}: {error.message.rstrip('.')}; correct the file") from error
    return value if flag else str(value)
