"""What the GPU's management library tells: energy and clock. Without it both are None."""

from typing import Any

import torch


class EnergyMeter:
    """Reads one GPU through NVML (`pip install ".[gpu]"`), where there is one and the library is installed.

    Args:
        device: the device that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        if device.type != "cuda":
            return
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError:
            # No driver library, or the device is hidden from it: energy stays unknown, which the record says.
            return
        self._nvml = pynvml

    def joules(self) -> float | None:
        """Energy since the driver was loaded; None where it is not told (before Volta, no permission, no NVML)."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def clock_mhz(self) -> float | None:
        """The multiprocessors' clock now; None where it is not told."""
        return None if self._nvml is None else self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)

    def _ask(self, question: str, *more: Any) -> float | None:
        if self._nvml is None:
            return None
        try:
            return float(getattr(self._nvml, question)(self._handle, *more))
        except self._nvml.NVMLError:
            return None
