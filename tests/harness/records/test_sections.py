"""The sections of a record describe themselves."""

import json

from harness.records import METERED_S, Timing, export_schema


def test_every_field_is_described_in_the_schema(tmp_path):
    export_schema(tmp_path / "schema.json")
    schema = json.loads((tmp_path / "schema.json").read_text())
    assert schema["additionalProperties"] is False
    for part in [schema, *schema["$defs"].values()]:
        for name, field in part.get("properties", {}).items():
            assert field.get("description"), name
            assert "\n" not in field["description"], name


def test_the_energy_of_a_short_batch_is_not_known() -> None:
    times = {"p10_s": 0.1, "p90_s": 9.0, "n": 5, "joules": 20.0}
    for median_s, energy in ((METERED_S / 2, None), (METERED_S, 20.0)):
        assert Timing.model_validate({"median_s": median_s, **times}).energy == energy
