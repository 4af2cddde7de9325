"""The plain reading of a method with a visual memory: its printed formulas in the printed order.

The methods themselves rearrange the formulas to save work. The plain reading does none of this: it fuses features in
vision width, one layer and one query at a time; it sends each fused feature through the whole projector; and it builds
K and M (`B×N×D` each). Layers that read the same features share their K and M: in MemVP all layers do, in DEHVF each
layer has its own. Parameters and output are the method's own, so the difference in time and memory between the two is
what the rearrangement gains. A plain reading is timed together with its method; it is not registered as a method of its
own.

This module imports no method's file. It reads the modules and the config of an attached method, which
`_FUSED_FEATURES` looks up by its registered name.

Shape suffixes as in `methods.memory`, and C vision width, K features of a group, S queries of a layer, R fuser
width; `images_BCHW` as in `methods.base`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Backbone, Batch, InputSequence, VisualFeatures
from methods.fuser import layer_groups
from methods.memory import Memory, image_gate
from methods.memory_forms import BuiltSide

FusedFeatures = Callable[[Any, Backbone, Tensor], list[Tensor]]
"""Called as `(method, backbone, images_BCHW)`. Returns the fused features before the projector, `B×J×C` each. The
indices in `method.slots` refer to them."""


class PlainReading(nn.Module):
    """A method with a visual memory, computed as the paper prints it. It satisfies `methods.base.Method`.

    Args:
        method: the method, attached to its backbone; its parameters become this module's.
        fused_features: computes the features that go through the projector.
    """

    def __init__(self, method: Any, fused_features: FusedFeatures) -> None:
        super().__init__()
        self.method = method
        self.fused_features = fused_features
        self.name = method.name
        self.title = method.title
        self.source = method.source
        self.Config = method.Config
        self.config = method.config

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return every fused feature in vision width, under the names `fused_0`, `fused_1` and so on."""
        fused = self.fused_features(self.method, backbone, images_BCHW)
        return {f"fused_{i}": v_BJC for i, v_BJC in enumerate(fused)}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the sequence that the method itself builds."""
        return self.method.build_sequence(backbone, batch, visual)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Return `memories`: K and M of every layer.

        Layers that read the same features share their matrices, as in MemVP's formulas.
        """
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
        """Return `λ · ind · [f(V); 0] + P`, `B×N×D`."""
        prompts_ND = prompts_ND.to(gate_B11.dtype)
        if slot is None:
            return prompts_ND.expand(gate_B11.shape[0], -1, -1)
        rows_BJD = gate_B11 * self.method.memory.projector(visual[f"fused_{slot}"])
        return prompts_ND + F.pad(rows_BJD, (0, 0, 0, prompts_ND.shape[0] - rows_BJD.shape[1]))

    def reference_only(self) -> dict[str, int]:
        """Return what the method itself returns."""
        return self.method.reference_only()


def plain_reading(method: Any) -> PlainReading | None:
    """Return the plain reading of a method, or None if it has none.

    Args:
        method: a method attached to its backbone.
    """
    fused_features = _FUSED_FEATURES.get(method.name)
    return None if fused_features is None else PlainReading(method, fused_features)


def _memvp_features(method: Any, backbone: Backbone, images_BCHW: Tensor) -> list[Tensor]:
    """Return MemVP's one feature: the patches of the penultimate block after `ln_post`."""
    (features_BJC,) = backbone.vision.features(images_BCHW, [backbone.vision.num_layers - 1], normalize=True)
    return [features_BJC[:, 1:]]


def _dehvf_features(method: Any, backbone: Backbone, images_BCHW: Tensor) -> list[Tensor]:
    """Return DEHVF's `V = Σ_k α_k F_k` as printed (Eq. 2-6), layer by layer and query by query."""
    if not method.blocks:
        return []
    features = backbone.vision.features(images_BCHW, method.blocks, normalize=True)
    if method.config.fusion == "penultimate":
        return [features[0][:, 1:]]
    grouped = [[features[block - 1] for block in group] for group in method.groups]
    if method.config.fusion == "mean":
        return [torch.stack([feature[:, 1:] for feature in group]).mean(dim=0) for group in grouped]
    fused, read_Y = [], layer_groups(method.num_layers, len(grouped))
    for layer, queries_SR in enumerate(method.queries()):
        group = grouped[read_Y[layer]]
        cls_B1KC = torch.stack([feature[:, 0] for feature in group], dim=1)[:, None]
        for query_R in queries_SR:
            # Autocast gives a softmax in float32, which would make all that follows float32.
            weights_KB = method.fuser(query_R[None, None], cls_B1KC)[:, 0, 0].T.to(group[0].dtype)
            terms = zip(weights_KB, group, strict=True)
            fused.append(sum((w_B[:, None, None] * feature[:, 1:] for w_B, feature in terms), 0))
    return fused


_FUSED_FEATURES: dict[str, FusedFeatures] = {"memvp": _memvp_features, "dehvf": _dehvf_features}
"""Registered name -> how the method's features are computed as printed."""
