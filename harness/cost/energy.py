"""What the GPU's management library tells: energy and clock. Without it both are None."""

from typing import Any

import torch


class EnergyMeter:
    """Reads one GPU through NVML (`pip install nvidia-ml-py`), where there is one and the library is installed.

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
        """Energy since the driver was loaded; None where it is not told (before Volta, or no NVML)."""
        if self._nvml is None:
            return None
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000
        except self._nvml.NVMLError_NotSupported:
            return None

    def clock_mhz(self) -> float | None:
        """The multiprocessors' clock now; None without NVML."""
        if self._nvml is None:
            return None
        return float(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM))
