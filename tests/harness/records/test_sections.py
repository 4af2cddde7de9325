"""The sections of a record describe themselves."""

import json

from harness.records import export_schema


def test_every_field_is_described_in_the_schema(tmp_path):
    export_schema(tmp_path / "schema.json")
    schema = json.loads((tmp_path / "schema.json").read_text())
    assert schema["additionalProperties"] is False
    for part in [schema, *schema["$defs"].values()]:
        for name, field in part.get("properties", {}).items():
            assert field.get("description"), name
            assert "\n" not in field["description"], name
