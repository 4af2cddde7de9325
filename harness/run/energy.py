"""Energy and clock of the GPU, as its management library reports them; both are None without the library."""

from typing import Any

import torch


class EnergyMeter:
    """Reads one GPU through NVML, if the device is a GPU and the library is installed (`pip install ".[gpu]"`).

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
            # The driver library is missing or cannot see the device. The record then says that energy is not reported.
            return
        self._nvml = pynvml

    def joules(self) -> float | None:
        """Return the energy used since the driver was loaded.

        None if it is not reported: on a GPU older than Volta, without permission, or without NVML.
        """
        millijoules = self._query("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def clock_mhz(self) -> float | None:
        """Return the present clock of the GPU's multiprocessors; None if it is not reported."""
        return None if self._nvml is None else self._query("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)

    def _query(self, function: str, *arguments: Any) -> float | None:
        """Call a function of NVML on the GPU; None if NVML is missing or refuses."""
        if self._nvml is None:
            return None
        try:
            return float(getattr(self._nvml, function)(self._handle, *arguments))
        except self._nvml.NVMLError:
            return None
