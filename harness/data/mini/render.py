"""Draw a scene as a picture of 64 × 64 RGB pixels. It is drawn four times as large and then averaged down."""

import io
import math

from PIL import Image, ImageChops, ImageDraw

from harness.data.mini.world import BACKGROUNDS, COLOURS, OUTLINES, SIZES, Scene, Thing

SIZE = 64  # height and width of the final image, in pixels
SCALE = 4
OUTLINE_WIDTH = 1.5  # in pixels of the final image
PERIOD = 5.0  # period of the textures, in pixels of the final image

Points = list[tuple[float, float]]


def _regular(corners: int, turn: float, inner: float = 1.0) -> Points:
    """Return evenly spaced corners: the first at angle `turn` and radius 1, every second one at radius `inner`."""
    radii = [1.0 if i % 2 == 0 else inner for i in range(corners)]
    angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart() -> Points:
    """Return the points of the heart curve, scaled to a width of 2."""
    steps = [2 * math.pi * i / 40 for i in range(40)]
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
        for t in steps
    ]


_ARM = 0.45
OUTLINE_POINTS: dict[str, Points] = {
    "circle": _regular(48, 0.0),
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -1.0), (1.0, 0.86), (-1.0, 0.86)],
    "star": _regular(10, -math.pi / 2, 0.55),
    "cross": [
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ],
    "heart": _heart(),
}  # fmt: skip


def _texture(thing: Thing, side: int) -> Image.Image:
    """Return a square filled with the colour and texture of a thing; `side` is in pixels of the enlarged image."""
    colour = COLOURS[thing.colour]
    tile = Image.new("RGB", (side, side), colour)
    draw = ImageDraw.Draw(tile)
    dark = tuple(int(0.38 * c) for c in colour)
    light = tuple(int(255 - 0.22 * (255 - c)) for c in colour)
    step = PERIOD * SCALE
    start = thing.phase * step - step
    lines = [start + step * i for i in range(int(side / step) + 3)]
    if thing.texture == "striped":
        for y in lines:
            draw.rectangle((0, y, side, y + step / 2), fill=dark)
    elif thing.texture == "dotted":
        radius = 0.3 * step
        for y in lines:
            for x in lines:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=light)
    elif thing.texture == "checked":
        cell = 0.8 * step
        for row in range(-1, int(side / cell) + 2):
            for column in range(-1, int(side / cell) + 2):
                if (row + column) % 2:
                    x, y = start + cell * column, start + cell * row
                    draw.rectangle((x, y, x + cell, y + cell), fill=dark)
    return tile


def _draw(canvas: Image.Image, thing: Thing) -> None:
    """Draw a thing with its texture and outline onto the enlarged image."""
    x, y = (SCALE * along for along in thing.centre)
    radius = SIZES[thing.size] * SCALE / 2
    side = int(2 * radius) + 2
    corner = (round(x - side / 2), round(y - side / 2))
    points = [(side / 2 + radius * px, side / 2 + radius * py) for px, py in OUTLINE_POINTS[thing.shape]]
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    tile = _texture(thing, side)
    edge = Image.new("L", (side, side), 0)
    width = round(2 * OUTLINE_WIDTH * SCALE)  # the mask cuts off the outer half of the line
    ImageDraw.Draw(edge).line([*points, points[0], points[1]], fill=255, width=width, joint="curve")
    tile.paste(OUTLINES[thing.outline], (0, 0), ImageChops.multiply(edge, mask))
    canvas.paste(tile, corner, mask)


def render(scene: Scene) -> Image.Image:
    """Return the picture of a scene, RGB, 64 × 64 pixels. The same scene gives the same pixels."""
    canvas = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE), BACKGROUNDS[scene.background])
    for thing in scene.things:
        _draw(canvas, thing)
    return canvas.resize((SIZE, SIZE), Image.Resampling.BOX)


def png(scene: Scene) -> bytes:
    """Return the picture of a scene as the content of a PNG file."""
    buffer = io.BytesIO()
    render(scene).save(buffer, format="PNG")
    return buffer.getvalue()
