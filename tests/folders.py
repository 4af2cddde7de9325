"""Write a small random backbone and a small data set to disk, in the folders that the command line takes."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.data.mini.build import build_mini

SIZES = (24, 8, 12)
"""Number of problems in train, val and test."""
CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 4, "width": 32, "head_width": 8, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}


def save_llm(folder: Path, **changes: Any) -> Path:
    """Save a random Llama and its byte tokenizer. The vocabulary also has room for the shipped tokenizer's ids.

    Args:
        folder: where to save.
        changes: fields of the LlamaConfig.
    """
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = {"vocab_size": 2048, "max_position_embeddings": 1024, "initializer_range": 0.2, **sizes, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        llm = LlamaForCausalLM(LlamaConfig(**config))
    tokenizer = byte_tokenizer()
    with torch.no_grad():  # make letters more likely, so that some answers are right and some are wrong
        llm.lm_head.weight[tokenizer.encode(" A B C D E", add_special_tokens=False)] *= 8
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_gguf(path: Path) -> Path:
    """Save a random Llama of two layers and a byte tokenizer as one file in GGUF. This needs the package `gguf`."""
    import gguf

    width, ffn, layers, heads = 16, 24, 2, 2
    special = ["<unk>", "<|endoftext|>", "<s>", "</s>"]  # transformers adds the first two where they are missing
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠA", *special]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 4) + [gguf.TokenType.CONTROL] * 4)
    writer.add_token_merges(["Ġ A"])
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    shapes = {"token_embd": (len(tokens), width), "output": (len(tokens), width), "output_norm": (width,)}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_{name}": (ffn, width) for name in ("gate", "up")}
        shapes |= {f"blk.{layer}.ffn_down": (width, ffn)}
        shapes |= {f"blk.{layer}.{name}_norm": (width,) for name in ("attn", "ffn")}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        writer.add_tensor(f"{name}.weight", values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_tokenizer(letters: str = "ABCDE") -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per byte, and one for a space with each of some capital letters behind it.

    Args:
        letters: the letters; the others are two tokens behind a space.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", letter) for letter in letters]
    vocabulary = [*alphabet, *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(vocabulary)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<pad>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=1024
    )


def save_clip(folder: Path) -> Path:
    """Save a random open_clip model."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**CLIP_CONFIG)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP_CONFIG, "preprocess_cfg": {}}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def save_mini(folder: Path) -> Path:
    """Build a procedural data set of a few problems."""
    build_mini(folder, seed=0, sizes=SIZES)
    return folder
