"""Detects the numerics class and toolchain of this process, and removes environment variables that change them.

The bits of a row depend on the device, its instruction set or chip, the library and the precision: the numerics class.
The process that computes the row detects its numerics class.
"""

import logging
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from features.runtime.keras_backend import get_backend
from schemas.choices import Backend, Precision

# The first flag that a processor has is its instruction set (x86 and ARM).
_INSTRUCTION_SETS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "sve2", "sve", "asimd")
_BFLOAT16 = frozenset(("amx_bf16", "avx512_bf16", "bf16"))
# oneDNN emulates bfloat16 with them.
_EMULATE_BFLOAT16 = frozenset(("avx512f", "avx_ne_convert", "asimd"))
_VNNI = frozenset(("avx512_vnni", "avx_vnni", "avx_vnni_int8"))
_FLOAT16 = frozenset(("amx_fp16", "avx512_fp16", "asimdhp"))
# Instruction sets that oneDNN may use, by the longest matching prefix of the value of its variable.
_ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_ALLOWED = {
    "SSE41": frozenset[str](),
    "AVX": frozenset[str](),
    "AVX2": frozenset(("avx2",)),
    "AVX512_CORE": frozenset(("avx2", "avx512f")),
    "AVX512_CORE_BF16": frozenset(("avx2", "avx512f", "avx512_vnni", "avx512_bf16")),
}
# They silently lower TensorFlow's precision or enable another compiler.
_HARMFUL = (
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_",
    "TF_ENABLE_AUTO_MIXED_PRECISION",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_SET_ONEDNN_FPMATH_MODE",
    "TF_XLA_FLAGS",
)

_BACKEND_PACKAGES: dict[Backend, tuple[str, ...]] = {
    "tensorflow": ("tensorflow",),
    "jax": ("jax", "jaxlib"),
    "torch": ("torch",),
}

# Libraries that compute frozen graphs.
FROZEN_LIBRARIES = ("tensorflow-onednn", "tensorflow-eigen")
# The library that computes networks quantized to int8.
OPENVINO = "openvino"
# Packages of CUDA libraries and of JAX's plugins, which compute on GPUs.
GPU_PACKAGES = (
    *("nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
    *("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin"),
)

_log = logging.getLogger("capt")


@dataclass(frozen=True)
class Device:
    """A device that can compute features."""

    kind: Literal["cpu", "gpu", "tpu"]
    chip: str  # instruction set of a processor, name of an accelerator
    has_tf32: bool = False  # whether it may compute float32 products in TF32


@dataclass(frozen=True)
class Runtime:
    """A device, a library and a precision, which compute features and determine their bits.

    `library` is a backend of Keras, one of `FROZEN_LIBRARIES`, or `OPENVINO`.
    """

    device: Device
    library: str
    precision: Precision

    @property
    def numerics(self) -> str:
        """The numerics class, such as `cpu/avx512_bf16/tensorflow-onednn/float32` or `gpu/NVIDIA H200/jax/bfloat16`."""
        effective = "tf32" if self.device.has_tf32 and self.precision == "float32" else self.precision
        return "/".join((self.device.kind, self.device.chip.replace("/", "-"), self.library, effective))


def parse_numerics(numerics: str) -> tuple[str, str] | None:
    """Returns the kind of device and the library of a numerics class; None for one without, such as `imported`."""
    parts = numerics.split("/")
    return (parts[0], parts[2]) if len(parts) == 4 else None


def resolve_frozen_runtime(processor: Device, has_onednn: bool, precision: Precision) -> Runtime:
    """Returns the runtime of frozen graphs, which run on processors. Only oneDNN computes in bfloat16."""
    onednn, eigen = FROZEN_LIBRARIES
    return Runtime(processor, *((onednn, precision) if has_onednn else (eigen, "float32")))


def detect_openvino_runtime(flags: frozenset[str] | None = None) -> Runtime:
    """Returns the runtime of quantized networks. Processors with and without VNNI have different kernels for int8."""
    flags = read_cpu_flags() if flags is None else flags
    chip = select_instruction_set(flags) + ("+vnni" if flags & _VNNI else "")
    return Runtime(Device("cpu", chip), OPENVINO, "int8")


def detect_cpu() -> Device:
    """Returns the processor of this machine."""
    return Device("cpu", select_instruction_set(read_cpu_flags()))


def select_instruction_set(flags: frozenset[str], machine: str = platform.machine()) -> str:
    """Returns the instruction set that affects the bits of results; the architecture if no flag is known."""
    best = next((flag for flag in _INSTRUCTION_SETS if flag in flags), machine)
    return f"{best}+bf16" if "bf16" in flags else best


def detect_native_precision() -> Precision:
    """Returns bfloat16 if the processor supports it, otherwise float32."""
    return "float32" if emulates("bfloat16", read_cpu_flags()) else "bfloat16"


def emulates(precision: str, flags: frozenset[str]) -> bool:
    """Returns whether a processor has no instructions for a precision, or a Keras policy such as `mixed_bfloat16`."""
    native = {"bfloat16": _BFLOAT16, "float16": _FLOAT16}.get(precision.removeprefix("mixed_"))
    return native is not None and not native & flags


def resolve_onednn_precision(precision: Precision, flags: frozenset[str]) -> Precision:
    """Returns the precision that oneDNN computes in. It cannot even emulate bfloat16 on x86 without AVX-512."""
    return precision if flags & (_BFLOAT16 | _EMULATE_BFLOAT16) else "float32"


def warn_about_emulation(precision: str) -> None:
    """Logs a warning if this machine's processor emulates a precision."""
    if emulates(precision, read_cpu_flags()):
        name = precision.removeprefix("mixed_")
        _log.warning("This processor has no instructions for %s. The work takes at least as long as in float32.", name)


def read_cpu_flags() -> frozenset[str]:
    """Returns the flags of this machine's processor, without those that oneDNN must not use."""
    limit = next((os.environ[name] for name in _ISA_VARIABLES if os.environ.get(name)), "").upper()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    text = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")
    flags = frozenset(text.split())
    start = max((start for start in _ALLOWED if limit.startswith(start)), key=len, default=None)
    return flags if start is None or limit.endswith("AMX") else flags & _ALLOWED[start]


def detect_toolchain() -> dict[str, str]:
    """Returns the versions of libraries that commits record."""
    import importlib.metadata

    from PIL import features

    packages = ("keras", "numpy", "pillow", "pyarrow", *_BACKEND_PACKAGES[get_backend()])
    decoders = {
        "libjpeg": features.version("libjpeg_turbo") or features.version("jpg"),
        "libavif": features.version("avif"),
        "openjpeg": features.version("jpg_2000"),
        "pi-heif": _find_version("pi-heif"),
    }
    openvino = {OPENVINO: _find_version(OPENVINO)}
    versions = {name: importlib.metadata.version(name) for name in packages}
    gpu_versions = {name: _find_version(name) for name in GPU_PACKAGES}
    optional = {name: str(version) for name, version in (decoders | openvino | gpu_versions).items() if version}
    return versions | optional


def _find_version(package: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def remove_variables() -> None:
    """Removes environment variables that change TensorFlow's results, and logs a warning for each."""
    for name in [name for name in os.environ if name.startswith(_HARMFUL)]:
        value = os.environ.pop(name)
        _log.warning("The environment variable %s=%s is ignored. It would change results.", name, value)
