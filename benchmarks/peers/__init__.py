"""What a user would pick instead, measured beside this package: `python -m benchmarks.peers`."""
