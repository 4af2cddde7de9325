"""What the pairs of `--set` change: fields of a method's Config and of its recipe."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from harness.config.recipe import LONGEST_TUNING, TrainRecipe
from harness.errors import UserError, first_error
from harness.escape import is_visible

_NOT_SEARCHED = frozenset({"tuning", "eval_split", "eval_batch_size", "gradient_checkpointing", "captured"})
"""Fields of a recipe that no search chooses: they change where a run is evaluated, or how it is computed."""


def apply_overrides(
    name: str, config: Mapping[str, Any], recipe: TrainRecipe, method_fields: Sequence[str], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], TrainRecipe]:
    """Return a method's fields and its recipe with the pairs of `--set` applied.

    A key is a field of the recipe or of the method. `METHOD.field` applies to one method only, for which it counts more
    than the plain key, whatever their order. If recipe and method both have the field, as with `max_length`, the plain
    key sets the recipe's field and `METHOD.field` the method's.

    Args:
        name: registry name of the method.
        config: fields of the method's Config that differ from its defaults.
        recipe: training settings.
        method_fields: names of all fields of the method's Config.
        settings: the pairs of `--set`.

    Returns:
        The fields of the method's Config that differ from its defaults, and the training settings.

    Raises:
        UserError: neither recipe nor method has a field, or a value is not allowed.
    """
    fields, updates = dict(config), {}
    for key, value in sorted(settings.items(), key=lambda pair: "." in pair[0]):  # those of one method come last
        if not is_visible({key: value}):
            raise UserError(f"--set {key}: contains control characters; give text without them")
        owner, _, field = key.rpartition(".")
        if owner and owner != name:
            continue
        if field == "protocol":
            raise UserError(f"--set {key}: the protocol is an option of its own; give --protocol {value}")
        of_recipe = field in type(recipe).model_fields
        if field in method_fields and (owner or not of_recipe):
            fields[field] = value
        elif of_recipe:
            updates[field] = value
        else:
            raise UserError(_no_field(key, name, [*type(recipe).model_fields, *method_fields]))
    given = [*updates, *(field for field, value in fields.items() if config.get(field) != value)]
    if changed := [field for field in given if field not in _NOT_SEARCHED]:
        tuning = f"{', '.join(changed)} as given with --set; the rest: {recipe.tuning}"
        updates = {"tuning": tuning[:LONGEST_TUNING], **updates}
    try:
        # Fields that nobody set follow the others, as the scoring follows the format.
        return fields, type(recipe)(**{**recipe.model_dump(exclude_unset=True), **updates})
    except ValidationError as error:
        first = first_error(error)
        raise UserError(f"--set {first.field or 'recipe'}: {first.message}") from error


def merge_settings(file: Mapping[str, Any], given: Mapping[str, Any], recipe_fields: Collection[str]) -> dict[str, Any]:
    """Return the pairs of `--set` from a settings file and from the command line, which wins.

    A plain key of the command line also replaces each `METHOD.field` of the file, unless the two are different fields,
    as `max_length` of the recipe and of the method are.

    Args:
        file: the pairs of the file.
        given: those of the command line.
        recipe_fields: names of all fields of the recipe.
    """
    kept = dict(file)
    for key in file:
        owner, _, field = key.rpartition(".")
        if owner and field in given and not (field in recipe_fields and _has_field(owner, field)):
            del kept[key]
    return {**kept, **given}


def _no_field(key: str, name: str, known: Sequence[str]) -> str:
    """Return the message for a key of `--set` that neither recipe nor method has."""
    from methods import registry

    owner, _, field = key.rpartition(".")
    near = [other for other in known if field in other.split("_")] or difflib.get_close_matches(field, known, n=1)
    if not owner and any(_has_field(other, field) for other in registry()):
        hint = f"METHOD.{field} sets it for one method. Choose"
    else:
        hint = f"did you mean {' or '.join(near)}? Choose" if near else "choose"
    return f"--set {key}: neither the recipe nor {name} has it; {hint} from {', '.join(known)}"


def _has_field(name: str, field: str) -> bool:
    from methods import get_method

    try:
        return field in get_method(name).Config.model_fields
    except Exception:  # the package of another method may be broken in any way, which is no matter here
        return False
