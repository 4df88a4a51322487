"""Slow float64 references that share no code with the package (nothing here imports gmrm_gpu)."""
