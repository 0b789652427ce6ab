"""Peak rates and memory of GPUs, as their makers state them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        tflops: Peak of dense bfloat16 matrix products with float32 sums, in 10^12 operations a second.
        memory: In GiB; programs can have a little less than the nominal size.
        names: What torch.cuda.get_device_name calls it.
    """

    tflops: float
    memory: float
    names: tuple[str, ...]


# Peaks are dense: the data sheets of Hopper and Ampere print twice as much, with sparsity.
DEVICES: dict[str, Device] = {
    # NVIDIA A100 data sheet (2021): 312 TFLOP/s in bfloat16, 40 and 80 GB.
    "A100-40": Device(tflops=312, memory=39.4, names=("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB")),
    "A100-80": Device(tflops=312, memory=79.1, names=("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe")),
    # NVIDIA H100 data sheet (2023), SXM: 1,979 TFLOP/s with sparsity, 80 GB.
    "H100": Device(tflops=989.5, memory=79.1, names=("NVIDIA H100 80GB HBM3",)),
    # NVIDIA H200 data sheet (2024), SXM: 1,979 TFLOP/s with sparsity, 141 GB.
    "H200": Device(tflops=989.5, memory=139.5, names=("NVIDIA H200",)),
    # NVIDIA Ada GPU architecture white paper (2022), appendix A: 165.2 TFLOP/s with float32 sums, 24 GB.
    "RTX4090": Device(tflops=165.2, memory=23.5, names=("NVIDIA GeForce RTX 4090",)),
    # NVIDIA RTX A5000 data sheet (2021): 222.2 TFLOP/s with sparsity, 24 GB.
    "A5000": Device(tflops=111.1, memory=23.5, names=("NVIDIA RTX A5000",)),
}


def peak_tflops(name: str) -> float | None:
    """Return the peak of the device that torch calls `name`; None where the table has none."""
    return next((device.tflops for device in DEVICES.values() if name in device.names), None)
