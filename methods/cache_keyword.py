"""The keyword argument by which `transformers` passes the key-value cache to the modules of a Llama.

It is `past_key_values` up to version 5.23 and `cache` from 5.24. The name is read once, from the signature of the
installed library's attention.
"""

from inspect import signature

from transformers.models.llama.modeling_llama import LlamaAttention

CACHE_KEYWORD = "cache" if "cache" in signature(LlamaAttention.forward).parameters else "past_key_values"
