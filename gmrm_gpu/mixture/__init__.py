"""The Gaussian mixture regression: trend basis, moments, starts and the ECM driver."""

from .fit import fit_mixture, posterior

__all__ = ["fit_mixture", "posterior"]
