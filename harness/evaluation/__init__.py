"""From a model's outputs to scores: decoding, parsing of answers, and the metrics of each task."""
