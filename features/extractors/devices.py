"""Lists the devices of a backend of Keras, and detects the one that computes.

TensorFlow, JAX and PyTorch see a GPU only if their builds for it are installed.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.runtime.numerics import Device, detect_cpu
from schemas.choices import Backend, DeviceChoice
from schemas.errors import UsageError

OPTION = "--device"

_TF32_CAPABILITY = (8, 0)
_DEVICE_FILES = ("nvidiactl", "kfd", "dxg", "accel*", "vfio/*")  # in /dev: NVIDIA, AMD, Windows, TPU
_PACKAGES: dict[Backend, str] = {
    "tensorflow": "pip install 'tensorflow[and-cuda]'",
    "jax": "pip install 'jax[cuda12]'",
    "torch": "pip install torch, in its build for CUDA",
}


def detect_device(backend: Backend, choice: DeviceChoice) -> Device:
    """Returns the device on which a backend computes; with `auto`, its first accelerator, otherwise the processor.

    Raises:
        UsageError: The choice is `gpu`, and the backend has no GPU in this process.
    """
    if choice == "cpu":
        return detect_cpu()
    device = {"tensorflow": _list_tensorflow, "jax": _list_jax, "torch": _list_torch}[backend]()[0]
    if choice == "gpu" and device.kind != "gpu":
        hint = f"Check the driver (nvidia-smi) and the build ({_PACKAGES[backend]}), or use {OPTION} cpu."
        raise UsageError(f"{backend} finds no GPU on this machine", location=OPTION, hint=hint)
    return device


def may_have_accelerator() -> bool:
    """Returns whether this machine may have an accelerator, without importing a backend."""
    return sys.platform != "linux" or any(any(Path("/dev").glob(pattern)) for pattern in _DEVICE_FILES)


def describe_accelerator(device_type: str, details: Mapping[str, Any], may_use_tf32: bool) -> Device:
    """Returns a `GPU` or `TPU` by TensorFlow's details. A GPU supports TF32 from compute capability 8.0."""
    capability = details.get("compute_capability")
    version = f" ({'.'.join(map(str, capability))})" if capability else ""
    return Device(
        "gpu" if device_type == "GPU" else "tpu",
        f"{details.get('device_name', 'unknown')}{version}",
        has_tf32=may_use_tf32 and capability is not None and capability >= _TF32_CAPABILITY,
    )


# Devices of this process: accelerators first, and the processor last.


def _list_tensorflow() -> list[Device]:
    import tensorflow as tf

    accelerators = [device for kind in ("GPU", "TPU") for device in tf.config.list_physical_devices(kind)]
    has_tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    described = [(one.device_type, tf.config.experimental.get_device_details(one)) for one in accelerators]
    return [*(describe_accelerator(kind, details, has_tf32) for kind, details in described), detect_cpu()]


def _list_jax() -> list[Device]:
    import jax

    precision = getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009 (its type does not declare it)
    may_use_tf32 = precision not in ("float32", "highest")
    return [*(_describe_jax(one, may_use_tf32) for one in jax.devices() if one.platform != "cpu"), detect_cpu()]


def _describe_jax(device: Any, may_use_tf32: bool) -> Device:
    """Returns an accelerator of JAX. GPUs of NVIDIA have a compute capability such as `9.0`, of AMD one as `gfx90a`."""
    numbers = str(getattr(device, "compute_capability", "")).split(".")
    capability = tuple(map(int, numbers)) if all(map(str.isdecimal, numbers)) else ()
    return Device(device.platform, device.device_kind, has_tf32=may_use_tf32 and capability >= _TF32_CAPABILITY)


def _list_torch() -> list[Device]:
    import torch

    may_use_tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return [
        *(
            Device(
                "gpu",
                torch.cuda.get_device_name(number),
                has_tf32=may_use_tf32 and torch.cuda.get_device_capability(number) >= _TF32_CAPABILITY,
            )
            for number in range(torch.cuda.device_count())
        ),
        detect_cpu(),
    ]
