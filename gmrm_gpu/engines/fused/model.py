"""The compile-time constants of a mixture model, and what its kernels reserve (`kernels/model.cuh`)."""

from __future__ import annotations

from ...config import MixtureConfig
from ...mixture.design import TrendBasis

WARP = 32
MOST_TERMS = 9
_MOST_ACCUMULATORS = 120  # as moments.cuh

Constants = tuple[tuple[str, int | str], ...]


def model_constants(mixture: MixtureConfig, *, wide: bool) -> Constants:
    """Definitions that `model.cuh` needs: sizes, monomials and where products of terms stand among them."""
    basis = TrendBasis(mixture.terms)

    def joined(values: object) -> str:
        return ",".join(str(int(v)) for v in values)  # type: ignore[attr-defined]

    return (
        ("WIDE", int(wide)),
        ("N_COMPONENTS", mixture.n_components),
        ("N_TERMS", basis.n_terms),
        ("N_MONOMIALS", len(basis.monomials)),
        ("MONOMIAL_X", joined(a for a, _ in basis.monomials)),
        ("MONOMIAL_Y", joined(b for _, b in basis.monomials)),
        ("PAIR_OF_TERMS", joined(basis.pair.reshape(-1)) if basis.n_terms else "0"),
    )


def n_sums(mixture: MixtureConfig) -> int:
    """Float64 sums of a pass: per component those of model.cuh, and the log-likelihood."""
    return mixture.n_components * _sums_a_component(mixture) + 1


def warp_sums(mixture: MixtureConfig) -> int:
    """Sums that a warp hands over at a time, padded to whole lanes."""
    each = _sums_a_component(mixture)
    at_once = min(mixture.n_components, max(1, _MOST_ACCUMULATORS // each))
    return -(-at_once * each // WARP) * WARP


def _sums_a_component(mixture: MixtureConfig) -> int:
    return len(TrendBasis(mixture.terms).monomials) + mixture.n_terms + 2
