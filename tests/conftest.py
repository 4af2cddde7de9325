"""Settings of all tests, for busy machines and for tensors as small as these."""

import os

from hypothesis import HealthCheck, settings

# With such tensors, several threads mostly wait for each other. torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes depends on what else the machine does, so no test fails for it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
