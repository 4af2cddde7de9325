"""Energy and clock of a GPU whose management library refuses some or all calls."""

import torch

from harness.run.energy import EnergyMeter


class FakeNVML:
    """A management library that refuses every call with its own error."""

    NVML_CLOCK_SM = 1
    NVMLError = type("NVMLError", (Exception,), {})

    def __getattr__(self, name):
        def refuse(*_):
            raise self.NVMLError(name)

        return refuse


class NVMLWithEnergy(FakeNVML):
    """A management library that reports energy and nothing else."""

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 5000


def meter_with(library):
    meter = EnergyMeter(torch.device("cpu"))
    meter._nvml, meter._handle = library, object()
    return meter


def test_what_the_library_refuses_is_unknown():
    meter = meter_with(FakeNVML())
    assert meter.joules() is None and meter.clock_mhz() is None


def test_energy_is_reported_in_joules_without_the_clock():
    meter = meter_with(NVMLWithEnergy())
    assert meter.joules() == 5.0 and meter.clock_mhz() is None
