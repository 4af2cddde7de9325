"""Figure 2: FLOPs against visual tokens, visual tokens in the input against visual entries in the FFNs.

Per block, with text length L, n visual tokens, width h (multiply-add = 2 FLOPs; norms and biases left out, as the
paper does):

    text alone              24 L h² + 4 L² h
    n tokens in the input   24 (L+n) h² + 4 (L+n)² h
    n entries in the FFN    text alone + 4 L n h

The text block is the paper's: an FFN of two matrices, h → 4h → h (Llama's three of 11008 come to nearly the same).
The input embedding network, the fuser and its weighted sums are left out: together under 0.2 % of the text's cost at
text length 32 and 576 visual tokens. `projector` says what the visual entries' projector adds.
"""

import json
from collections.abc import Sequence
from typing import TypedDict

from tabulate import tabulate

from harness.config.presets import PRESETS
from harness.errors import UserError
from harness.report.paper import cost_figure


class Figure2Row(TypedDict):
    """One point: `flops` by the formulas above, `flops_with_projector` with the projector of the visual entries.

    The input-space series has no projector counted: the two values are equal.
    """

    series: str
    text_length: int
    visual_tokens: int
    flops: int
    flops_with_projector: int


class Claim(TypedDict):
    """The ratio that the paper prints, and what the formulas give, as fractions.

    `with_projector` applies both projector layers to every layer's fused features, as the method is printed;
    `with_factored_projector` counts the same output computed through the projector's rank, as it is run here.
    """

    text_length: int
    visual_tokens: int
    printed: float
    without_projector: float
    with_projector: float
    with_factored_projector: float


def text_block(length: int, width: int) -> int:
    """`24 L h² + 4 L² h`: attention and FFN of one block on `length` tokens."""
    return 24 * length * width**2 + 4 * length**2 * width


def visual_entries(length: int, entries: int, width: int) -> int:
    """`4 L N h`: reading `entries` extra key-value rows of one block's FFN by `length` tokens."""
    return 4 * length * entries * width


def projector(visual_tokens: int, vision_width: int, projector_dim: int, width: int) -> int:
    """`2 n p (d_v + h)`: both layers of the projector on `visual_tokens` features."""
    return 2 * visual_tokens * projector_dim * (vision_width + width)


def factored_projector(
    length: int, visual_tokens: int, vision_blocks: int, dims: tuple[int, int, int]
) -> tuple[int, int]:
    """The projector where the reads go through its rank: once for each CLIP block, and for each side of a layer.

    Args:
        length: text tokens L.
        visual_tokens: n.
        vision_blocks: distinct features, each through the first layer once.
        dims: vision width d_v, projector width p, language model width h.

    Returns:
        `2 n d_v p` for each CLIP block, together; and `2 L p (h + n)`, what one side of one layer adds.
    """
    vision_width, rank, width = dims
    return 2 * visual_tokens * vision_width * rank * vision_blocks, 2 * length * rank * (width + visual_tokens)


def figure2(text_lengths: Sequence[int] = (), visual_tokens: Sequence[int] = ()) -> list[Figure2Row]:
    """The figure's data: both series at every text length and number of visual tokens.

    Args:
        text_lengths: the paper's if none are given.
        visual_tokens: 0 to 576 in steps of 64 if none are given.
    """
    figure = cost_figure(2)
    rows: list[Figure2Row] = []
    for series in (figure.input_space, figure.memory_space):
        for length in text_lengths or figure.text_lengths:
            for tokens in visual_tokens or figure.visual_tokens:
                plain, projected = _point(series == figure.memory_space, length, tokens)
                rows.append(
                    {
                        "series": series,
                        "text_length": length,
                        "visual_tokens": tokens,
                        "flops": plain,
                        "flops_with_projector": projected,
                    }
                )
    return rows


def _llm() -> tuple[int, int]:
    """Width and blocks of the language model."""
    config = PRESETS[cost_figure(2).model].llm_config
    assert config is not None
    return config["hidden_size"], config["num_hidden_layers"]


def _point(in_memory: bool, length: int, tokens: int) -> tuple[int, int]:
    """FLOPs without and with the projector."""
    figure = cost_figure(2)
    width, blocks = _llm()
    if not in_memory:
        flops = blocks * text_block(length + tokens, width)
        return flops, flops
    flops = blocks * (text_block(length, width) + visual_entries(length, tokens, width))
    # A fused feature for the keys and one for the values of every layer.
    return flops, flops + 2 * blocks * projector(tokens, figure.vision_width, figure.projector_dim, width)


def claim() -> Claim:
    """The printed "only 6 %" at text length 32, computed three ways."""
    figure = cost_figure(2)
    length, tokens = figure.claim_text_length, figure.claim_visual_tokens
    width, blocks = _llm()
    base, _ = _point(False, length, tokens)
    plain, projected = _point(True, length, tokens)
    once, a_side = factored_projector(
        length, tokens, figure.vision_blocks, (figure.vision_width, figure.projector_dim, width)
    )
    return {
        "text_length": length,
        "visual_tokens": tokens,
        "printed": figure.claim,
        "without_projector": plain / base,
        "with_projector": projected / base,
        "with_factored_projector": (plain + once + 2 * blocks * a_side) / base,
    }


def figure2_text(format: str = "markdown") -> str:
    """The figure's data as text, ending in a newline.

    Args:
        format: markdown, or json (`{"rows": [...], "claim": {...}}`).

    Raises:
        UserError: no such format.
    """
    if format not in ("markdown", "json"):
        raise UserError(f"--format {format}: unknown; choose markdown or json")
    if format == "json":
        return json.dumps({"rows": figure2(), "claim": claim()}, indent=2) + "\n"
    figure = cost_figure(2)
    points = {(row["series"], row["text_length"], row["visual_tokens"]): row for row in figure2()}
    body = []
    for length in figure.text_lengths:
        for tokens in figure.visual_tokens:
            one = points[figure.input_space, length, tokens]["flops"]
            other = points[figure.memory_space, length, tokens]
            plain, projected = other["flops"], other["flops_with_projector"]
            body.append((length, tokens, *(f"{x / 1e12:.3f}" for x in (one, plain, projected)), f"{plain / one:.1%}"))
    heads = (
        "text length",
        "visual tokens",
        figure.input_space,
        figure.memory_space,
        f"{figure.memory_space}, projector counted",
        "ratio",
    )
    table = tabulate(body, heads, tablefmt="github", disable_numparse=True, colalign=["right"] * 6)
    return f"**Figure 2: {figure.title} (TFLOPs)**\n\n{table}\n\n{_claim_text()}\n"


def _claim_text() -> str:
    ratios = claim()
    return (
        f"At text length {ratios['text_length']} and {ratios['visual_tokens']} visual tokens: "
        f"{ratios['without_projector']:.1%} without the projector, {ratios['with_projector']:.1%} with it applied to "
        f"every layer's fused features, {ratios['with_factored_projector']:.1%} computed through its rank as here; "
        f"the paper prints {ratios['printed']:.0%}."
    )
