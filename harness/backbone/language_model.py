"""The frozen language model, of the Llama architecture: its config, its weights and its tokenizer."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils.peft_utils import find_adapter_config_file

from harness.backbone.gguf_file import (
    bar_on_terminal_only,
    complete_tokenizer,
    config_of,
    dense_weights,
    require_bounded,
)
from harness.backbone.quantised import mark_quantised, quantisation_config, quantise_layer, saved_bytes
from harness.backbone.randomise import randomise
from harness.backbone.requirements import require_regular_files
from harness.backbone.tokenizer_file import require_bounded_growth
from harness.backbone.weights import (
    INDEX,
    is_gguf,
    llm_folder,
    llm_source,
    path_fault,
    shards_of,
    stored_dtypes,
    weight_files,
)
from harness.config.presets import PRESETS, BackboneSpec
from harness.errors import UserError, foreign
from harness.hub import download_small
from harness.streams import say_on_stderr

LARGEST_SIZE = 2**24
"""No size of a usable decoder is larger. A larger one would take hours to build or all memory before it fails."""
MOST_LAYERS = 1000
MOST_LABELS = 10_000
_FLOATS = ("F16", "BF16", "F32", "F64")


def llm_config(spec: BackboneSpec) -> LlamaConfig:
    """Return the config of the spec's language model. It is downloaded if the model is not on this machine.

    Raises:
        UserError: the config is unavailable or unusable, is not of the Llama architecture, or has the name of a
            preset's model but another size.
    """
    if spec.llm_config is not None:
        return LlamaConfig(**spec.llm_config)
    assert spec.llm is not None, "a spec names a model or gives its sizes"
    if fault := path_fault(spec):
        raise UserError(fault)
    gguf = is_gguf(spec.llm)
    if gguf:
        require_bounded(Path(spec.llm))
    folder = llm_folder(spec.llm) or download_small(llm_source(spec), "config.json", say_on_stderr).parent
    require_regular_files(f"{spec.llm_option} {spec.llm}", Path(spec.llm))
    with foreign(f"{spec.llm}: has no usable config.json", "give a model folder or a hub id"):
        config = config_of(Path(spec.llm)) if gguf else _config(folder)
    if not isinstance(config, LlamaConfig):
        raise UserError(f"{spec.llm}: is a {config.model_type} model; give a model of the Llama architecture")
    if fault := _fault(config):
        raise UserError(f"{spec.llm}: config.json: {fault}; correct the file, or give another model")
    published = PRESETS[spec.base].llm_config if spec.base in PRESETS else None
    for name, size in (published or {}).items():
        if getattr(config, name) != size:
            raise UserError(
                f"{spec.llm}: has the name of the {spec.base} model, but its {name} is {getattr(config, name)}, "
                f"not {size}; rename the folder, or give a hub model in a folder of another name"
            )
    # A config may name an implementation of attention that transformers downloads and runs.
    config._attn_implementation = "sdpa"
    return config


def _config(folder: Path) -> Any:
    """Return the config of a model that is no file in GGUF, of any architecture."""
    content, _ = LlamaConfig.get_config_dict(folder)
    # transformers makes lists of these lengths before anybody can look at them.
    for name, limit in (("num_labels", MOST_LABELS), ("num_hidden_layers", MOST_LAYERS)):
        number = content.get(name, 0)
        if isinstance(number, int) and number > limit:
            raise UserError(f"{folder}: config.json: {name} is {number!r:.40}; it must be at most {limit}")
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _file(llm: str | Path) -> dict[str, Any]:
    """Return the arguments with which transformers reads a model from a file in GGUF; none for any other model."""
    return {"gguf_file": Path(llm).name} if is_gguf(llm) else {}


def _fault(config: LlamaConfig) -> str | None:
    """Return the first thing in a config that no correct decoder can be built from; None if all is usable."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    limits = {name: LARGEST_SIZE for name in (*names, "max_position_embeddings")} | {"num_hidden_layers": MOST_LAYERS}
    sizes: dict[str, Any] = {name: getattr(config, name) for name in limits}
    for name, limit in limits.items():
        if not isinstance(sizes[name], int) or not 1 <= sizes[name] <= limit:
            return f"{name} is {sizes[name]!r:.40}; it must be a whole number above 0, at most {limit}"
    if sizes["num_attention_heads"] % sizes["num_key_value_heads"]:
        return f"num_key_value_heads {sizes['num_key_value_heads']} does not divide num_attention_heads"
    if sizes["head_dim"] % 2:
        return f"head_dim {sizes['head_dim']} is odd, but rotary embedding rotates pairs of values"
    if config.hidden_act not in ACT2FN:
        return f"hidden_act {config.hidden_act!r:.40} is no activation that transformers knows"
    if not math.isfinite(config.rms_norm_eps) or config.rms_norm_eps <= 0:
        return f"rms_norm_eps is {config.rms_norm_eps!r:.40}; it must be a number above 0"
    if getattr(config, "quantization_config", None) is not None:
        return "has a quantization_config, but the frozen weights are float32 or bfloat16"
    for name, value in (getattr(config, "rope_parameters", None) or {}).items():
        if isinstance(value, list) and len(value) > sizes["head_dim"]:
            return f"rope_parameters.{name} has {len(value)} values for a head_dim of {sizes['head_dim']}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"rope_parameters.{name} is {value}; it must be a number"
    return None


class LlmSize(NamedTuple):
    """How large a language model is.

    Attributes:
        parameters: number of its parameters.
        bytes: what its weights take in memory.
        layer_bytes: what those of one decoder layer take.
    """

    parameters: int
    bytes: int
    layer_bytes: int


def llm_size(spec: BackboneSpec, dtype: torch.dtype) -> LlmSize:
    """Return the size of the spec's language model, without allocating it.

    Args:
        spec: gives its sizes, and how it is quantised.
        dtype: dtype of the weights that are not quantised.

    Raises:
        UserError: no model can be built from the config.
    """
    config = llm_config(spec)
    wrong = f"{config.name_or_path or 'the language model'}: no model can be built from its config.json"
    with foreign(wrong, "correct the file, or give another model"):
        with torch.device("cpu"):
            frequencies = LlamaRotaryEmbedding(config).inv_freq
        if not frequencies.isfinite().all():
            raise ValueError("its rope_parameters give frequencies that are no numbers")
        with torch.device("meta"):
            llm = LlamaForCausalLM(config)
    parameters = sum(parameter.numel() for parameter in llm.parameters())
    saved = 0 if spec.quantize is None else saved_bytes(llm.model.layers[0], spec.quantize, dtype)
    layer_bytes = sum(parameter.numel() for parameter in llm.model.layers[0].parameters()) * dtype.itemsize - saved
    return LlmSize(parameters, parameters * dtype.itemsize - saved * len(llm.model.layers), layer_bytes)


def random_llm(
    config: LlamaConfig, device: torch.device, dtype: torch.dtype, seed: int, quantize: str | None = None
) -> LlamaForCausalLM:
    """Build a language model with random weights.

    Args:
        config: its sizes.
        device: where the weights are created; on the meta device they have shapes only, and nothing is quantised.
        dtype: dtype of the weights.
        seed: seed of the random values.
        quantize: how it is quantised; None for not at all.
    """
    with torch.device("meta"):
        llm = cast(
            LlamaForCausalLM,
            LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa"),
        )
    if device.type == "meta":
        return llm
    if quantize is not None:
        # One layer after another, because all of them may not fit into memory before they are quantised.
        layers, llm.model.layers = llm.model.layers, nn.ModuleList()
        for index, layer in enumerate(layers):
            randomise(layer.to_empty(device=device), seed + index)
            quantise_layer(layer, quantize)
    llm = llm.to_empty(device=device)
    llm.tie_weights()
    # Rotary frequencies are computed and not stored, so `to_empty` would leave them uninitialised.
    llm.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    randomise(llm, seed)
    if quantize is not None:
        llm.model.layers = layers
        mark_quantised(llm, quantize)
    return llm


def pretrained_llm(spec: BackboneSpec, device: torch.device, dtype: torch.dtype) -> LlamaForCausalLM:
    """Load the spec's language model.

    Args:
        spec: names the model by hub id or folder.
        device: where the weights go.
        dtype: dtype of the weights.

    Raises:
        UserError: its weights cannot be loaded, or some of them are missing.
    """
    folder = llm_folder(str(spec.llm))
    assert folder is not None, "require_weights has found it"
    gguf = is_gguf(str(spec.llm))
    # transformers quantises no file in GGUF while it reads it.
    at_once = dense_weights() if gguf else quantisation_config(spec.quantize, dtype) if spec.quantize else None
    with foreign(f"--llm {spec.llm}: cannot be loaded", "give a complete model in safetensors"):
        # transformers would load the adapter's base model from wherever the adapter says.
        if find_adapter_config_file(str(folder)) is not None:
            raise UserError(f"--llm {spec.llm}: has an adapter_config.json; give the folder of a model without adapter")
        if pickled := [shard for shard in shards_of(folder) if not shard.endswith(".safetensors")]:
            raise UserError(f"--llm {spec.llm}: {INDEX} names {pickled[0]!r}; give a model in safetensors")
        for name, stored in () if gguf else stored_dtypes(weight_files(str(spec.llm))):
            if stored not in _FLOATS:
                raise UserError(f"--llm {spec.llm}: {name} is stored as {stored}; give a model in {', '.join(_FLOATS)}")
        # The folder and not the hub id: nothing that is here is asked of the hub again.
        with bar_on_terminal_only():
            loaded: Any = LlamaForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                device_map={"": device},
                attn_implementation="sdpa",
                trust_remote_code=False,
                use_safetensors=None if gguf else True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                quantization_config=at_once,
                **_file(str(spec.llm)),
            )
    llm, loading = loaded
    _require_all_used(f"--llm {spec.llm}", loading)
    if spec.quantize is not None:
        for layer in llm.model.layers if gguf else ():
            quantise_layer(layer, spec.quantize)
        mark_quantised(llm, spec.quantize)
    return cast(LlamaForCausalLM, llm)


def _require_all_used(option: str, loading: Mapping[str, Any]) -> None:
    """Check that a model has all its weights, and no others.

    transformers would fill what is missing or has another shape with random numbers, leave out the rest, and go on.

    Args:
        option: the option that names the model, and its value.
        loading: what transformers says about the loading.

    Raises:
        UserError: some are missing, have another shape, or are none of the model's.
    """
    advice = "give weights that suit config.json"
    for name, stored, needed in sorted(loading["mismatched_keys"]):
        raise UserError(f"{option}: {name} has shape {tuple(stored)}, not {tuple(needed)}; {advice}")
    if missing := sorted(loading["missing_keys"]):
        raise UserError(
            f"{option}: its weights do not have {missing[0]} ({len(missing)} missing); give a complete model"
        )
    # Older versions of transformers stored what they computed from the config.
    if more := sorted(name for name in loading["unexpected_keys"] if not name.endswith("rotary_emb.inv_freq")):
        raise UserError(f"{option}: config.json says nothing of {more[0]!r:.80} ({len(more)} such weights); {advice}")


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a language model.

    Args:
        source: folder, GGUF file or hub id of the model.

    Raises:
        UserError: there is no tokenizer, or it defines no BOS or EOS token.
    """
    require_regular_files(f"--llm {source}", Path(source))
    require_bounded_growth(Path(source), f"--llm {source}")
    if is_gguf(source):
        require_bounded(Path(source))
    with foreign(f"--llm {source}: has no tokenizer", "give a folder with one"):
        place = Path(source).parent if is_gguf(source) else source
        loaded = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **_file(source))
        tokenizer = cast(PreTrainedTokenizerBase, loaded)
        if is_gguf(source):
            complete_tokenizer(tokenizer, Path(source))
        # Faults of its rules and templates show only where it is used.
        tokenizer.decode(tokenizer.encode("A text."))
        tokenizer.encode("A text.", truncation=True, max_length=8)
    for name in ("bos_token_id", "eos_token_id"):
        if getattr(tokenizer, name) is None:
            raise UserError(f"--llm {source}: its tokenizer has no {name}; give a model whose tokenizer defines it")
    return tokenizer
