"""Whether bf16 is native on a device: emulated bf16 is slower than fp32 and must not be chosen."""

from __future__ import annotations

import torch


def native_bf16(device: torch.device) -> bool:
    """True where the processor or accelerator multiplies matrices in bf16 itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # oneDNN calls AVX-512 without the bf16 extension supported too, and emulates; so the instructions are asked for.
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
    return False
