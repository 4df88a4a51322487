"""The Gaussian mixture regression: trend basis, moments, starts and the ECM driver."""

from .channels import channel_posterior, fit_channels
from .fit import fit_mixture, posterior

__all__ = ["channel_posterior", "fit_channels", "fit_mixture", "posterior"]
