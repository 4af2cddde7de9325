"""Every kind of input that is fuzzed."""

from tests.fuzz import arguments, data, models, results
from tests.fuzz.kind import Kind, one_file

KINDS = {
    "problems": Kind(data.make_scienceqa, data.use_scienceqa, one_file("problems.json")),
    "splits": Kind(data.make_scienceqa, data.use_scienceqa, one_file("pid_splits.json")),
    "Karpathy JSON": Kind(data.make_coco, data.use_coco, one_file("*.json")),
    "predictions": Kind(
        data.make_scienceqa, data.use_predictions, one_file("rows.jsonl", "results.json", "plain.json")
    ),
    "records": Kind(results.make_records, results.use_records, results.change_records),
    "files of a page": Kind(
        results.make_page,
        results.use_page,
        one_file("*.history.json", "*.diagnostics.json", "questions.json", "*.jsonl"),
    ),
    "images": Kind(data.make_images, data.use_images, data.change_image),
    "adapters": Kind(models.make_backbone, models.use_adapter, one_file("adapter/*")),
    "--llm folders": Kind(models.make_backbone, models.use_llm, one_file("llm/*")),
    "--clip folders": Kind(models.make_backbone, models.use_clip, one_file("clip/*")),
    "GGUF files": Kind(models.make_gguf, models.use_gguf, one_file("*.gguf"), needs="gguf"),
    "options": Kind(arguments.make_options, arguments.use_options, arguments.change_options),
    "--config files": Kind(arguments.make_settings, arguments.use_settings, arguments.change_settings),
}
