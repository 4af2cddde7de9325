"""From a model's answers to scores: decoding, parsing and the metrics of each task."""
