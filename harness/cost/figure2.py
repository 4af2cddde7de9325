"""The paper's Figure 2: FLOPs by number of visual tokens, for tokens in the input and for entries in the FFNs.

The formulas count one decoder layer, with text length L, n visual tokens and width h. Multiply-add = 2 FLOPs. As in the
paper, norms and biases are not counted.

    text alone              24 L h² + 4 L² h
    n tokens in the input   24 (L+n) h² + 4 (L+n)² h
    n entries in the FFN    text alone + 4 L n h

The layer is the paper's: its FFN has two matrices, h → 4h → h. Llama's three matrices of width 11008 cost nearly the
same. The input embedding network, the fuser and its weighted sums are not counted. Together they cost less than 0.2 %
of the text at text length 32 and 576 visual tokens. The projector of the visual entries is counted separately.
"""

import json
from collections.abc import Sequence
from typing import TypedDict

from harness.config.presets import PRESETS
from harness.cost.output import is_json, markdown_table
from harness.report.paper import cost_figure


class Figure2Row(TypedDict):
    """One point of the figure.

    `flops` follows the formulas above, and `flops_with_projector` adds the projector of the visual entries. For tokens
    in the input no projector is counted, so the two values are equal.
    """

    series: str
    text_length: int
    visual_tokens: int
    flops: int
    flops_with_projector: int


class Claim(TypedDict):
    """The ratio that the paper prints (`printed`) and three ratios that the formulas give, as fractions.

    `with_projector` applies both layers of the projector to the fused features of every decoder layer, as the paper
    prints the method. `with_factored_projector` counts how this project computes the same output: the entries stay in
    the small width between the projector's two layers.
    """

    text_length: int
    visual_tokens: int
    printed: float
    without_projector: float
    with_projector: float
    with_factored_projector: float


def text_block(length: int, width: int) -> int:
    """Return `24 L h² + 4 L² h`: attention and FFN of one decoder layer on `length` tokens of width `width`."""
    return 24 * length * width**2 + 4 * length**2 * width


def visual_entries(length: int, entries: int, width: int) -> int:
    """Return `4 L N h`: `length` tokens read `entries` additional key-value rows of the FFN of one decoder layer."""
    return 4 * length * entries * width


def projector(visual_tokens: int, vision_width: int, projector_dim: int, width: int) -> int:
    """Return `2 n p (d_v + h)`: both layers of the projector on `visual_tokens` features."""
    return 2 * visual_tokens * projector_dim * (vision_width + width)


def factored_projector(
    length: int, visual_tokens: int, vision_blocks: int, dims: tuple[int, int, int]
) -> tuple[int, int]:
    """Return the FLOPs of the projector where the text reads the entries in the projector's inner width.

    Args:
        length: text tokens L.
        visual_tokens: n.
        vision_blocks: CLIP blocks whose features are used; each goes through the projector's first layer once.
        dims: vision width d_v, the projector's inner width p, and the language model's width h.

    Returns:
        `2 n d_v p` summed over the CLIP blocks, and `2 L p (h + n)`, which the keys of one decoder layer add, and its
        values add again.
    """
    vision_width, rank, width = dims
    return 2 * visual_tokens * vision_width * rank * vision_blocks, 2 * length * rank * (width + visual_tokens)


def figure2(text_lengths: Sequence[int] = (), visual_tokens: Sequence[int] = ()) -> list[Figure2Row]:
    """Return the data of the figure: both series at every text length and number of visual tokens.

    Args:
        text_lengths: by default those of the paper.
        visual_tokens: by default 0 to 576 in steps of 64.
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
    """Return the width and the number of decoder layers of the language model."""
    config = PRESETS[cost_figure(2).model].llm_config
    assert config is not None
    return config["hidden_size"], config["num_hidden_layers"]


def _point(in_memory: bool, length: int, tokens: int) -> tuple[int, int]:
    """Return the FLOPs of one point, without and with the projector."""
    figure = cost_figure(2)
    width, blocks = _llm()
    if not in_memory:
        flops = blocks * text_block(length + tokens, width)
        return flops, flops
    flops = blocks * (text_block(length, width) + visual_entries(length, tokens, width))
    # Every layer has one fused feature for its keys and one for its values.
    return flops, flops + 2 * blocks * projector(tokens, figure.vision_width, figure.projector_dim, width)


def claim() -> Claim:
    """Return the paper's "only 6 %" at text length 32, and the same ratio computed in three ways."""
    figure = cost_figure(2)
    length, tokens = figure.claim_text_length, figure.claim_visual_tokens
    width, blocks = _llm()
    base, _ = _point(False, length, tokens)
    plain, projected = _point(True, length, tokens)
    first_layer, per_side = factored_projector(
        length, tokens, figure.vision_blocks, (figure.vision_width, figure.projector_dim, width)
    )
    return {
        "text_length": length,
        "visual_tokens": tokens,
        "printed": figure.claim,
        "without_projector": plain / base,
        "with_projector": projected / base,
        "with_factored_projector": (plain + first_layer + 2 * blocks * per_side) / base,
    }


def figure2_text(format: str = "markdown") -> str:
    """Return the data of the figure as text, ending in a newline.

    Args:
        format: `markdown`, or `json` for `{"rows": [...], "claim": {...}}`.

    Raises:
        UserError: the format is unknown.
    """
    if is_json(format):
        return json.dumps({"rows": figure2(), "claim": claim()}, indent=2) + "\n"
    figure = cost_figure(2)
    points = {(row["series"], row["text_length"], row["visual_tokens"]): row for row in figure2()}
    body = []
    for length in figure.text_lengths:
        for tokens in figure.visual_tokens:
            in_input = points[figure.input_space, length, tokens]["flops"]
            in_memory = points[figure.memory_space, length, tokens]
            plain, projected = in_memory["flops"], in_memory["flops_with_projector"]
            tflops = (f"{flops / 1e12:.3f}" for flops in (in_input, plain, projected))
            body.append((length, tokens, *tflops, f"{plain / in_input:.1%}"))
    heads = (
        "text length",
        "visual tokens",
        figure.input_space,
        figure.memory_space,
        f"{figure.memory_space}, projector counted",
        "ratio",
    )
    table = markdown_table(heads, body, "rrrrrr")
    return f"**Figure 2: {figure.title} (TFLOPs)**\n\n{table}\n\n{_claim_text()}\n"


def _claim_text() -> str:
    figure, ratios = cost_figure(2), claim()
    return (
        f"At text length {ratios['text_length']} and {ratios['visual_tokens']} visual tokens, {figure.memory_space} "
        f"needs this share of the FLOPs of {figure.input_space}: {ratios['without_projector']:.1%} without the "
        f"projector, {ratios['with_projector']:.1%} with it applied to the fused features of every layer, "
        f"{ratios['with_factored_projector']:.1%} with it factored, as this project computes it; "
        f"the paper prints {ratios['printed']:.0%}."
    )
