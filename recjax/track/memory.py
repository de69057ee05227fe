"""Peak memory of this process."""

import resource
import sys

import jax

HOST, DEVICE = "host_peak_bytes", "device_peak_bytes"


def peak_memory() -> dict[str, float]:
    """The largest resident size of the process so far, and the most bytes that a device of it has held.

    Devices that keep no such account (CPUs) are left out.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {HOST: float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)}
    held = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    known = [float(peak) for peak in held if peak is not None]
    return peaks | ({DEVICE: max(known)} if known else {})
