"""Phases from components, labels from posteriors, against the loops of tests/oracle."""

import numpy as np
import pytest
from backends import NUMPY32, NUMPY64, other_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import ecm
from oracle import phases as oracle

from gmrm_gpu.classify import NOT_VISITED, component_phases, foreground_components, label_samples
from gmrm_gpu.config import POLARITIES, PhaseConfig, trend_terms
from gmrm_gpu.errors import ConfigError
from gmrm_gpu.mixture.design import TrendBasis, make_samples
from gmrm_gpu.results import FitStatus, MixtureFit

SHAPE = (23, 31)
TERMS = trend_terms("linear")


def make_fit(rows, terms=(), status=None):
    """A `MixtureFit` of rows (weights, means, sigmas[, coef]); None stands for a fit without parameters."""
    k = max(len(row[0]) for row in rows if row is not None)
    arrays = {name: np.full((len(rows), k), np.nan) for name in ("weights", "means", "sigmas")}
    arrays["weights"][:] = 0
    coef = np.full((len(rows), len(terms)), np.nan)
    found = np.zeros(len(rows), dtype=np.uint8)
    for r, row in enumerate(rows):
        if row is None:
            found[r] = FitStatus.DEGENERATE
            continue
        for name, values in zip(("weights", "means", "sigmas"), row, strict=False):
            arrays[name][r, : len(values)] = values
        coef[r] = row[3] if len(row) > 3 else 0
        found[r] = FitStatus.DROPPED if len(row[0]) < k else FitStatus.CONVERGED
    numbers = {name: np.zeros(len(rows), dtype=np.int64) for name in ("n_iter", "n_samples")}
    return MixtureFit(
        **arrays,
        coef=coef,
        log_likelihood=np.zeros(len(rows)),
        status=found if status is None else np.asarray(status, dtype=np.uint8),
        terms=tuple(terms),
        **numbers,
    )


components = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(0.01, 1), min_size=k, max_size=k),
        st.lists(st.floats(-100, 300), min_size=k, max_size=k, unique=True).map(sorted),
        st.lists(st.floats(0.5, 40), min_size=k, max_size=k),
    )
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.one_of(components, st.none()), min_size=1, max_size=4).filter(any),
    rule=st.sampled_from(["brightest", "darkest", "separated"]),
    polarity=st.sampled_from(POLARITIES),
    contrast=st.floats(0.1, 5),
)
def test_rules_equal_the_oracle(rows, rule, polarity, contrast):
    fit = make_fit(rows)
    config = PhaseConfig(phases=rule, polarity=polarity, contrast=contrast)
    found = foreground_components(fit, config)
    for r in range(len(rows)):
        expected = oracle.foreground(
            fit.weights[r], fit.means[r], fit.sigmas[r], rule=rule, contrast=contrast, polarity=polarity
        )
        assert found[r].tolist() == expected
    np.testing.assert_array_equal(component_phases(fit, config), found.astype(np.uint8))


def test_separated_finds_none_one_or_several():
    rows = [
        ([0.2, 0.5, 0.3], [50, 100, 110], [5, 10, 5]),
        ([0.2, 0.5, 0.3], [50, 100, 126], [5, 10, 5]),
        ([0.1, 0.5, 0.2, 0.2], [50, 100, 130, 180], [5, 10, 5, 9]),
        ([0.1, 0.5, 0.4], [50, 100, 125], [5, 10, 5]),
    ]
    fit = make_fit(rows)
    found = foreground_components(fit, PhaseConfig(phases="separated"))
    assert found.sum(axis=1).tolist() == [0, 1, 2, 0], "exactly c sigma is not beyond c sigma"
    dark = foreground_components(fit, PhaseConfig(phases="separated", polarity="dark"))
    assert dark.tolist() == [[True, False, False, False]] * 4


def test_dropped_components_are_no_phase():
    fit = make_fit([([0.4, 0.6], [50, 100], [5, 6]), ([0.2, 0.3, 0.5], [40, 90, 140], [5, 5, 5])])
    assert foreground_components(fit, PhaseConfig("brightest")).tolist() == [[False, True, False], [False, False, True]]
    assert foreground_components(fit, PhaseConfig("darkest")).tolist() == [[True, False, False]] * 2


@pytest.mark.parametrize(
    ("names", "foreground"),
    [
        ("anode,electrolyte,electrolyte,li", None),
        ("anode,electrolyte,electrolyte,li", "electrolyte"),
        ("li,b,li,c", "li"),
        ("a,b,c,d", "a"),
        ("x,x,x,y", "x"),
    ],
)
def test_names_equal_the_oracle(names, foreground):
    fit = make_fit([([0.25] * 4, [40, 80, 120, 160], [5] * 4)] * 2)
    config = PhaseConfig(phases=names, foreground=foreground)
    index, phases, chosen = oracle.named(names.split(","), foreground or names.split(",")[-1])
    assert list(config.names) == phases
    assert component_phases(fit, config).tolist() == [index] * 2
    assert foreground_components(fit, config).tolist() == [chosen] * 2
    assert config.foreground_index == phases.index(foreground or names.split(",")[-1])


@pytest.mark.parametrize(
    "options",
    [
        {"phases": "shiniest"},
        {"phases": "a,,b"},
        {"phases": "a,b", "foreground": "c"},
        {"foreground": "li"},
        {"polarity": "up"},
        {"contrast": 0},
    ],
)
def test_bad_phases_are_errors(options):
    with pytest.raises(ConfigError):
        PhaseConfig(**options)


def sampled(seed, rows, m, backend):
    rng = np.random.default_rng(seed)
    values = rng.uniform(20, 180, (rows, m))
    positions = np.stack([rng.permutation(SHAPE[0] * SHAPE[1])[:m] for _ in range(rows)])
    valid = rng.random((rows, m)) < 0.8
    samples = make_samples(
        backend.asarray(values),
        backend.asarray(positions),
        SHAPE,
        TrendBasis(TERMS),
        valid=backend.asarray(valid),
        backend=backend,
    )
    return values, positions, valid, samples


ROWS = [
    ([0.2, 0.5, 0.3], [45, 100, 150], [8, 12, 9], [5, -3]),
    None,
    ([0.6, 0.4], [70, 140], [15, 10], [0, 2]),
]


def counted(valid):
    from dataclasses import replace

    return replace(make_fit(ROWS, TERMS), n_samples=valid.sum(axis=1))


def check_labels(config, backend):
    values, positions, valid, samples = sampled(1, 3, 500, backend)
    fit = counted(valid)
    labels, posterior = label_samples(samples, fit, config, 500, valid=backend.asarray(valid), backend=backend)
    labels = backend.to_host(labels)
    assert labels.dtype == np.uint8
    assert (labels[1] == NOT_VISITED).all()
    assert np.isnan(posterior[1])
    phase = component_phases(fit, config)
    chosen = foreground_components(fit, config)
    for r in (0, 2):
        keep = valid[r]
        assert ((labels[r] == NOT_VISITED) == ~keep).all()
        k = len(ROWS[r][0])
        f = ecm.design(positions[r], SHAPE, TERMS)
        w = ecm.responsibilities(values[r], f, ecm.params(*ROWS[r]))
        clear = keep & (np.sort(w, axis=1)[:, -1] > 0.5 + 1e-4)
        expected = phase[r, :k][np.argmax(w, axis=1)]
        np.testing.assert_array_equal(labels[r][clear], expected[clear])
        assert clear.sum() > 300
        assert posterior[r] == pytest.approx(w[keep][:, chosen[r, :k]].sum() / keep.sum(), abs=1e-5)


@pytest.mark.parametrize("backend", [NUMPY32, NUMPY64], ids=["float32", "float64"])
@pytest.mark.parametrize("rule", ["brightest", "darkest", "separated", "anode,mid,li"])
def test_labels_and_posterior(rule, backend):
    check_labels(PhaseConfig(phases=rule), backend)


@pytest.mark.parametrize("make", other_backends())
@pytest.mark.parametrize("rule", ["brightest", "a,b,a"])
def test_labels_on_other_backends(make, rule):
    check_labels(PhaseConfig(phases=rule), make())


def test_labels_do_not_depend_on_the_batch(monkeypatch):
    import gmrm_gpu.classify as module

    _, _, valid, samples = sampled(2, 3, 500, NUMPY32)
    fit, config = counted(valid), PhaseConfig()
    whole = label_samples(samples, fit, config, 500, valid=valid, backend=NUMPY32)
    monkeypatch.setattr(module, "GROUP_SAMPLES", 1)
    cut = label_samples(samples, fit, config, 500, valid=valid, backend=NUMPY32)
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(a, b)
