"""Settings: units, trends, refusals, and the way to TOML, JSON and back."""

from __future__ import annotations

import json

import pytest

from gmrm_gpu.config import (
    TREND_PRESETS,
    AnalysisConfig,
    ComputeConfig,
    CorrectionConfig,
    MixtureConfig,
    PhaseConfig,
    QuantityConfig,
    SamplingConfig,
    StudyConfig,
    analysis_config_from_json,
    analysis_from_dict,
    config_to_dict,
    load_toml,
    parse_bytes,
    parse_length_um,
    parse_time_s,
    save_toml,
    study_from_dict,
    trend_terms,
)
from gmrm_gpu.errors import ConfigError

ODD = AnalysisConfig(
    MixtureConfig(3, trend=((1, 0), (2, 1)), histogram=True, tol=1e-9, starts=("spread",), sigma_floor=0.2),
    PhaseConfig("a,b b,a", foreground="b b"),
    CorrectionConfig("l1", 4.5, 0.2, "symmetric", "both", 1.5),
    SamplingConfig(0.05, "lines", 2**63 + 1, 16),
    QuantityConfig(pixel_size_um=0.005, thickness_um=0.5, frame_time_s=0.04, axis="y=3.5"),
    ComputeConfig("cpu", "float64", 10**9, 3),
)


@pytest.mark.parametrize(
    ("text", "um"), [("5nm", 0.005), ("0.5um", 0.5), ("0.5µm", 0.5), ("0.5μm", 0.5), ("12 pm", 12e-6), ("1e-3 mm", 1.0)]
)
def test_lengths(text, um):
    assert parse_length_um(text) == pytest.approx(um)


def test_times_and_sizes():
    assert parse_time_s("40ms") == pytest.approx(0.04)
    assert parse_time_s("2 min") == 120
    assert parse_bytes("2GB") == 2 * 10**9
    assert parse_bytes("1.5 MiB") == 3 * 2**19


@pytest.mark.parametrize("text", ["5", "nm", "5 parsec", "-5nm", "0nm", "1.2.3nm", "", "nan um"])
def test_lengths_that_are_none(text):
    with pytest.raises(ConfigError, match="length"):
        parse_length_um(text)


def test_trends():
    assert trend_terms("x, y2,x2*y") == ((1, 0), (0, 2), (2, 1))
    assert trend_terms([[1, 0], (0, 1)]) == ((1, 0), (0, 1))
    assert MixtureConfig(4).n_parameters == 3 * 4 - 1 + 5
    for name, terms in TREND_PRESETS.items():
        assert MixtureConfig(trend=name).terms == terms
    assert TREND_PRESETS["quadratic+electrode"] == ((1, 0), (2, 0), (0, 1), (1, 1), (2, 1))


@pytest.mark.parametrize("trend", ["cubic", "x,x", "x5", "x3y2", "1", "x,,y", ((0, 0),), ((3, 2),), ((-1, 2),)])
def test_trends_that_are_none(trend):
    with pytest.raises(ConfigError, match="trend"):
        MixtureConfig(trend=trend)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MixtureConfig(0), "n_components"),
        (lambda: MixtureConfig(7), "n_components"),
        (lambda: MixtureConfig(tol=0), "tol"),
        (lambda: MixtureConfig(starts=()), "starts"),
        (lambda: MixtureConfig(starts=("random",)), "starts"),
        (lambda: MixtureConfig(schedule="em"), "schedule"),
        (lambda: MixtureConfig(schedule="reference", histogram=True), "histogram goes with the schedule fast"),
        (lambda: MixtureConfig(histogram=1), "histogram is 1"),
        (lambda: PhaseConfig("brighter"), "phases"),
        (lambda: PhaseConfig("brightest", foreground="li"), "foreground"),
        (lambda: PhaseConfig("a,b", foreground="c"), "foreground"),
        (lambda: PhaseConfig("a,,b"), "empty name"),
        (lambda: CorrectionConfig("l3"), "metric"),
        (lambda: CorrectionConfig(radius=101), "radius"),
        (lambda: CorrectionConfig(gamma=1.1), "gamma"),
        (lambda: CorrectionConfig(window="future"), "window"),
        (lambda: CorrectionConfig(time_scale=0), "time_scale"),
        (lambda: SamplingConfig(0), "rate"),
        (lambda: SamplingConfig(1.1), "rate"),
        (lambda: SamplingConfig(seed=-1), "seed"),
        (lambda: SamplingConfig(scheme="spiral"), "scheme"),
        (lambda: QuantityConfig(estimator="mean"), "estimator"),
        (lambda: QuantityConfig(pixel_size_um=0), "pixel_size_um"),
        (lambda: QuantityConfig(axis="z=3"), "axis"),
        (lambda: QuantityConfig("posterior", geometry="revolution"), "posterior"),
        (lambda: ComputeConfig(device="tpu"), "device"),
        (lambda: ComputeConfig(dtype="float16"), "dtype"),
        (lambda: AnalysisConfig(phases=PhaseConfig("a,b")), "names 2 components"),
        (lambda: StudyConfig(rates=(0.1,)), "1 rates and 3"),
        (lambda: StudyConfig(rates=(0.1, 0.1), n_replicates=(2, 2)), "twice"),
        (lambda: StudyConfig(rates=(0.1,), n_replicates=(0,)), "n_replicates"),
    ],
)
def test_refusals_name_the_setting(make, says):
    with pytest.raises(ConfigError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


def test_phases():
    assert PhaseConfig().names == ("background", "foreground")
    assert PhaseConfig().foreground_index == 1
    named = PhaseConfig("anode,electrolyte,electrolyte,li")
    assert named.names == ("anode", "electrolyte", "li")
    assert named.foreground_index == 2
    assert PhaseConfig("anode,electrolyte,li", foreground="anode").foreground_index == 0


@pytest.mark.parametrize("config", [AnalysisConfig(), ODD])
def test_toml_and_back(config, tmp_path):
    save_toml(config, tmp_path / "a.toml")
    assert load_toml(tmp_path / "a.toml") == config


def test_json_and_back(tmp_path):
    study = StudyConfig(ODD, (0.2, 0.05), (3, 4))
    data = json.loads(json.dumps(config_to_dict(study)))
    assert study_from_dict(data) == study
    for name, settings in (("study.json", data), ("analysis.json", data["analysis"])):
        (tmp_path / name).write_text(json.dumps({"config": settings}))
        assert analysis_config_from_json(tmp_path / name) == ODD


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[mixture]\nk = 3\n", "no setting 'k'"),
        ("[mixtures]\n", "unknown section"),
        ("mixture = 3\n", "must be a section"),
        ("[mixture]\nstarts = 5\n", "wrong type"),
        ("[mixture\n", "not valid TOML"),
        ("[phases]\nphases = 'brighter'\n", "brighter"),
    ],
)
def test_bad_toml_names_the_file(tmp_path, text, says):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        load_toml(path)
    assert "bad.toml" in str(error.value)


def test_files_that_hold_no_settings(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\xff\xfe")
    with pytest.raises(ConfigError, match="no settings file"):
        load_toml(tmp_path / "a.npy")
    with pytest.raises(ConfigError, match="cannot read"):
        load_toml(tmp_path / "absent.toml")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(ConfigError, match="does not hold settings"):
        analysis_config_from_json(tmp_path / "b.json")


def test_settings_under_their_earlier_names_are_read():
    assert analysis_from_dict({"compute": {"n_workers": 3}}).compute.n_threads == 3


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="no setting"):
        analysis_from_dict({"correction": {"r": 3}})
