"""Single runs and sweeps: training, evaluation, the record of a run, dry runs, and answers from a saved adapter."""
