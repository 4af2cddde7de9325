"""The keyword under which `transformers` hands the cache of keys and values to a Llama's modules.

It was `past_key_values` up to 5.23 and is `cache` from 5.24; the name is read off the installed library, once.
"""

from inspect import signature

from transformers.models.llama.modeling_llama import LlamaAttention

CACHE_KEYWORD = "cache" if "cache" in signature(LlamaAttention.forward).parameters else "past_key_values"
