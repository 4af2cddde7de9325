"""One run and many: training, evaluation, the record that a run leaves, and the dry run that only estimates."""
