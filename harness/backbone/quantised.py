"""A language model whose decoder is quantised by bitsandbytes: the linear layers of its decoder layers, and no others.

The embeddings, the norms, the output layer and the vision tower keep their dtype, as what a method trains does. These
are the two formats:

- `8bit` is LLM.int8: one byte per weight and a float32 scale per row. Activations are quantised as well, except for
  columns with an outlier. Which columns these are depends on the batch, so an answer can depend on the other samples.
- `4bit` is NF4: half a byte per weight and a float32 scale per block of 64. Activations keep their dtype.

bitsandbytes is imported when it is needed: it is an extra, and it takes a second.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from harness.errors import UserError, foreign

BLOCK = 64
"""Weights that share a scale in 4 bits; the default of bitsandbytes."""
SCALE_BYTES = 4


def require_quantisation(quantize: str | None, device: torch.device) -> None:
    """Check that a model can be quantised and used here, by a forward and a backward pass of a small layer.

    Args:
        quantize: how it would be quantised; None for not at all.
        device: where it would be.

    Raises:
        UserError: bitsandbytes is not installed, or cannot compute on the device.
    """
    if quantize is None:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"--quantize {quantize}: needs the package bitsandbytes; run `pip install -e '.[quantize]'`")
    cannot = f"--quantize {quantize}: bitsandbytes cannot compute on {device.type} here"
    with foreign(cannot, "leave it out, or give another --device"):
        layer = nn.Sequential(nn.Linear(BLOCK, BLOCK, bias=False, device=device)).requires_grad_(False)
        quantise_layer(layer, quantize)
        layer(torch.ones(1, BLOCK, device=device, requires_grad=True)).sum().backward()


def _bitsandbytes() -> Any:
    """Import bitsandbytes, and keep it from downloading a compiled kernel and running it.

    It would do so on a CPU with bfloat16 instructions where the package `kernels` is installed. The kernel is for the
    repacked weights that `_settle` excludes.
    """
    modules: dict[str, Any] = sys.modules
    absent = {} if "bitsandbytes" in modules or "kernels" in modules else {"kernels": None}
    modules |= absent  # importing a module that is None fails
    try:
        return importlib.import_module("bitsandbytes")
    finally:
        for name in absent:
            del modules[name]


def quantisation_config(quantize: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return how transformers quantises a model while it loads it.

    Args:
        quantize: `8bit` or `4bit`.
        dtype: dtype of the products with 4-bit weights.
    """
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def quantise_layer(layer: nn.Module, quantize: str) -> None:
    """Quantise every linear layer inside of a decoder layer, in place, as transformers does while it loads a model.

    Args:
        layer: the decoder layer, with its weights on the device where they stay.
        quantize: `8bit` or `4bit`.
    """
    linears = [(name, module) for name, module in layer.named_modules() if type(module) is nn.Linear]
    for name, linear in linears:
        layer.set_submodule(name, _quantised(linear, quantize))
    _settle(layer)


def _quantised(linear: nn.Linear, quantize: str) -> nn.Module:
    """Return the same layer with quantised weights."""
    bnb = _bitsandbytes()
    weight, config = linear.weight.data, quantisation_config(quantize, linear.weight.dtype)
    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    with torch.device("meta"):
        new: Any = (
            bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=config.llm_int8_threshold)
            if quantize == "8bit"
            else bnb.nn.Linear4bit(
                *sizes,
                config.bnb_4bit_compute_dtype,
                compress_statistics=config.bnb_4bit_use_double_quant,
                quant_type=config.bnb_4bit_quant_type,
            )
        )
    if quantize == "8bit":
        # It is quantised on its way from the CPU to the device.
        new.weight = bnb.nn.Int8Params(weight.cpu(), requires_grad=False).to(weight.device)
    else:
        options = {"quant_type": new.weight.quant_type, "compress_statistics": new.weight.compress_statistics}
        new.weight = bnb.nn.Params4bit(weight, requires_grad=False, module=new, **options).to(weight.device)
    new.bias = linear.bias
    return new.train(linear.training)


def mark_quantised(llm: Any, quantize: str) -> None:
    """Mark a model as quantised, for the libraries that attach something to it, and settle how it computes.

    Args:
        llm: the language model, with quantised layers.
        quantize: `8bit` or `4bit`.
    """
    # transformers sets these attributes, and peft asks for them.
    setattr(llm, f"is_loaded_in_{quantize}", True)
    _settle(llm)


def _settle(module: nn.Module) -> None:
    """Make quantised layers train after they have answered."""
    layers: Iterable[Any] = module.modules()
    for layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # On a CPU with bfloat16 instructions, bitsandbytes repacks 4-bit weights at the first product in evaluation
            # mode. The products with repacked weights have no gradient, so training could not go on after a validation.
            layer.support_avx512bf16_for_cpu = False


def saved_bytes(layer: nn.Module, quantize: str, dtype: torch.dtype) -> int:
    """Return how many bytes of memory a decoder layer saves by being quantised.

    Args:
        layer: the decoder layer before that; the meta device suffices.
        quantize: `8bit` or `4bit`.
        dtype: dtype of its weights.
    """
    linears = [module for module in layer.modules() if type(module) is nn.Linear]
    return sum(
        linear.weight.numel() * dtype.itemsize - _bytes(linear.out_features, linear.in_features, quantize)
        for linear in linears
    )


def _bytes(rows: int, columns: int, quantize: str) -> int:
    """Return the bytes of a quantised matrix with its scales."""
    weights = rows * columns
    if quantize == "8bit":
        return weights + SCALE_BYTES * rows
    return math.ceil(weights / 2) + SCALE_BYTES * math.ceil(weights / BLOCK)


def number_of_values(parameter: torch.Tensor) -> int:
    """Return how many values a parameter has. In 4 bits, its own number of elements counts pairs of them."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)
