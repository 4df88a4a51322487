"""The fused kernels measured on a GPU: `python -m benchmarks.gpu`. Without one it says so and measures nothing."""
