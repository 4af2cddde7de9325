"""The plain reading of a memory method: the printed formulas in the printed order, none of the algebra that saves work.

Features are fused in vision width, one layer and query at a time; each fused feature goes through the whole projector;
K and V are built for every layer, `B×N×D` a side. Same parameters, same output as the method itself: the difference
in time and memory is what the reformulation gains. Not registered: a yardstick, no method to compare.

Shape suffixes as in `methods.memory`, C vision width.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Backbone, Batch, InputSequence, VisualFeatures
from methods.memory import Memory, image_gate
from methods.memory_forms import BuiltSide


@runtime_checkable
class MemoryMethod(Protocol):
    """A method with a plain reading. It also has `memory`, `slots` and `config`, as `methods.memory` knows them."""

    def fused_features(self, backbone: Backbone, images_BCHW: Tensor) -> list[Tensor]:
        """The features that `slots` count, `B×J×C` each, before the projector."""
        ...


class PlainReading(nn.Module):
    """A memory method computed as printed.

    Args:
        method: attached to its backbone, which it stays attached to; its parameters are this module's.
    """

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method
        self.name = method.name
        self.title = method.title
        self.source = method.source
        self.Config = method.Config
        self.config = method.config

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """`fused_0`, `fused_1`, …: every fused feature in vision width."""
        return {f"fused_{i}": v_BJC for i, v_BJC in enumerate(self.method.fused_features(backbone, images_BCHW))}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """The method's own."""
        return self.method.build_sequence(backbone, batch, visual)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """`memories`: K and V of every layer; layers that read the same features share them, as MemVP is printed."""
        prompts = self.method.memory.prompts
        dtype = visual["fused_0"].dtype if "fused_0" in visual else prompts.keys.dtype
        gate_B11 = image_gate(visual["has_image_B"], self.config.visual_scale, dtype)
        built: dict[tuple[int | None, int | None], Memory] = {}
        for pair in self.method.slots:
            if pair not in built:
                keys, values = pair
                built[pair] = Memory(
                    BuiltSide(self._matrix(prompts.keys, keys, visual, gate_B11)),
                    BuiltSide(self._matrix(prompts.values, values, visual, gate_B11)),
                )
        return {"memories": [built[pair] for pair in self.method.slots]}

    def _matrix(self, prompts_ND: Tensor, slot: int | None, visual: VisualFeatures, gate_B11: Tensor) -> Tensor:
        """`λ · ind · [f(V); 0] + P`."""
        prompts_ND = prompts_ND.to(gate_B11.dtype)
        if slot is None:
            return prompts_ND.expand(gate_B11.shape[0], -1, -1)
        rows_BJD = gate_B11 * self.method.memory.projector(visual[f"fused_{slot}"])
        return prompts_ND + F.pad(rows_BJD, (0, 0, 0, prompts_ND.shape[0] - rows_BJD.shape[1]))

    def reference_only(self) -> dict[str, int]:
        """The method's own."""
        return self.method.reference_only()
