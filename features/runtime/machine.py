"""Describes this machine: operating system, processor, memory, accelerators, and Python."""

import os
import platform
from pathlib import Path
from typing import Any

_GIB = 1 << 30


def describe_machine() -> dict[str, Any]:
    """Returns `system`, `python`, `processor`, `cores`, `memory_gib` (null if unknown) and `accelerators` (names)."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "processor": _read_processor_name(),
        "cores": os.cpu_count(),
        "memory_gib": _read_memory(),
        "accelerators": _list_accelerators(),
    }


def _read_processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    found = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return found or platform.processor() or platform.machine()


def _read_memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _list_accelerators() -> list[str]:
    import tensorflow as tf

    devices = [device for device in tf.config.list_physical_devices() if device.device_type not in ("CPU", "XLA_CPU")]
    return [
        tf.config.experimental.get_device_details(device).get("device_name", device.device_type) for device in devices
    ]
