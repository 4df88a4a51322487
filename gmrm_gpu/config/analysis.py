"""The settings of a whole analysis and of a study."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..errors import ConfigError
from .settings import (
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    PhaseConfig,
    QuantityConfig,
    SamplingConfig,
    check_choice,
    check_whole,
    check_within,
)

METHODS = ("movie", "paper")
MOVIE_PART, MOVIE_LEAST = 0.05, 10
"""Of a study's replicates, how many the method ``"movie"`` runs beside ``"paper"``: this part, at least this many."""


@dataclass(frozen=True)
class AnalysisConfig:
    """Everything that turns one movie into one growth curve.

    `method`: ``"movie"`` fits all frames together (METHOD.md 6), ``"paper"`` each by itself. Settings that are None
    take the method's own default; `resolved` says which.
    """

    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    phases: PhaseConfig = field(default_factory=PhaseConfig)
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    quantity: QuantityConfig = field(default_factory=QuantityConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    method: str = "movie"

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        if self.method == "paper":
            if self.quantity.estimator in ("assisted", "smoothed"):
                raise ConfigError(f"the estimator {self.quantity.estimator} needs --method movie; paper has count")
            if self.phases.phases == "auto":
                raise ConfigError("phases auto needs --method movie; use brightest, darkest, separated or names")
        names = self.phases.component_names
        if names and len(names) != self.mixture.n_components:
            raise ConfigError(
                f"phases names {len(names)} components ({self.phases.phases}), but there are "
                f"{self.mixture.n_components}; give one name per component or change --components"
            )

    @property
    def resolved(self) -> AnalysisConfig:
        """The same with every default that depends on the method put in."""
        whole = self.method == "movie"
        phases = self.phases.phases or ("auto" if whole else self.phases.rule)
        radius = 0.0 if whole and self.correction.radius is None else self.correction.radius_px
        return replace(
            self,
            phases=replace(self.phases, phases=phases),
            correction=replace(self.correction, radius=radius),
            quantity=replace(self.quantity, estimator=self.estimator),
        )

    @property
    def estimator(self) -> str:
        """The chosen estimator, or the method's."""
        return self.quantity.estimator or ("smoothed" if self.method == "movie" else "count")

    def with_method(self, method: str) -> AnalysisConfig:
        """The same for another method; what only the method ``"movie"`` has goes back to the default."""
        if method == "movie":
            return replace(self, method=method)
        phases, quantity = self.phases, self.quantity
        if phases.phases == "auto":
            phases = replace(phases, phases=None)
        if quantity.estimator in ("assisted", "smoothed"):
            quantity = replace(quantity, estimator=None)
        return replace(self, method=method, phases=phases, quantity=quantity)

    def with_rate(self, rate: float) -> AnalysisConfig:
        """The same settings at another sampling rate."""
        return replace(self, sampling=replace(self.sampling, rate=rate))


@dataclass(frozen=True)
class StudyConfig:
    """A replicate study (METHOD.md 9): one analysis repeated `n_replicates[i]` times at `rates[i]`.

    `methods` are run side by side, whatever ``analysis.method`` says. The method ``"movie"`` needs far fewer
    replicates, its band being narrow: a `MOVIE_PART` of them, at least `MOVIE_LEAST`, where ``"paper"`` runs too.
    """

    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    rates: tuple[float, ...] = (0.1, 0.05, 0.01)
    n_replicates: tuple[int, ...] = (100, 200, 1000)
    methods: tuple[str, ...] = ("paper", "movie")

    def of_method(self, method: str) -> StudyConfig:
        """The study of one of the methods."""
        number = self.n_replicates
        if method == "movie" and len(self.methods) > 1:
            number = tuple(min(n, max(MOVIE_LEAST, round(n * MOVIE_PART))) for n in number)
        return replace(self, analysis=self.analysis.with_method(method), n_replicates=number, methods=(method,))

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ConfigError(f"methods is {self.methods}; name one or both of {', '.join(METHODS)}")
        for method in self.methods:
            check_choice("methods", method, METHODS)
        object.__setattr__(self, "rates", tuple(self.rates))
        object.__setattr__(self, "n_replicates", tuple(self.n_replicates))
        if not self.rates or len(self.rates) != len(self.n_replicates):
            raise ConfigError(
                f"{len(self.rates)} rates and {len(self.n_replicates)} replicate numbers; give one number per rate"
            )
        for rate in self.rates:
            check_within("rate", rate, 0, 1, open_low=True)
        # Draws and names of files tell no more digits apart.
        if len({f"{rate:.10g}" for rate in self.rates}) != len(self.rates):
            raise ConfigError(f"rates {self.rates} name a rate twice, as far as ten digits tell; leave one of them out")
        for number in self.n_replicates:
            check_whole("n_replicates", number, 1, 2**31)
