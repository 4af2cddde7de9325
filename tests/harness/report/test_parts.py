"""The fields of a record as text."""

from harness.report.parts import parts
from tests.record_factory import fields, make


def test_sections_in_a_list_are_shown_field_by_field() -> None:
    earlier = [{"commit": "a" * 40, "torch": "2.9", "cpu": None, "steps": 3}, {"gpu": "H200", "steps": 5}]
    environment = fields()["environment"].model_dump() | {"earlier": earlier}
    shown = dict(pair for part in parts(make(environment=environment)) for pair in part.fields)
    assert {path: text for path, text in shown.items() if path.startswith("environment.earlier")} == {
        "environment.earlier.0.commit": "a" * 40,
        "environment.earlier.0.torch": "2.9",
        "environment.earlier.0.steps": "3",
        "environment.earlier.1.gpu": "H200",
        "environment.earlier.1.steps": "5",
    }
