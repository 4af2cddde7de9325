"""The frozen models: loading them, the device and dtype they run on, and what a run needs before it can start."""
