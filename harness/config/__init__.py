"""From options to resolved runs: presets of backbones, recipes of training, and the plans that combine them."""
