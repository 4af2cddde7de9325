"""A tokenizer for tests: its texts consist of token ids."""

from typing import Any


class NumberTokenizer:
    """Every number between blanks is the token with this id."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = 2

    def encode(self, text: str, *, add_special_tokens: bool = True, **kwargs: Any) -> list[int]:
        assert not add_special_tokens and kwargs == {"split_special_tokens": True, "verbose": False}
        return [int(word) for word in text.split()]
