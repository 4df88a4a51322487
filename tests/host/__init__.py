"""The project's CUDA kernels on the CPU: no GPU and no CUDA needed, only g++.

`device.HostDevice` takes the place of a GPU in a test; its docstring says how.
"""
