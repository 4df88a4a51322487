"""What the page of a live run is told: the curve and the alarms in bounded memory, pictures as bytes."""

from __future__ import annotations

import math
import struct
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from live_pages import STATE, ask, frame_at, make_page

from gmrm_gpu.live.page.feed import MOST_ALARMS, MOST_RECENT, Cursor, Curve, Feed
from gmrm_gpu.live.page.picture import REST, Painter, encode, next_limits
from gmrm_gpu.live.update import Alarm


def test_a_stall_is_told(monkeypatch):
    feed, clock = Feed(), [100.0]
    monkeypatch.setattr("gmrm_gpu.live.page.feed.time.monotonic", lambda: clock[0])
    for i in range(5):
        clock[0] += 2.0
        feed.publish(frame_at(i), STATE)
    for wait, stalled in ((9.9, False), (10.2, True)):  # five times the usual
        clock[0] = 110.0 + wait
        news = feed.since(Cursor())[0]
        assert (news["stalled"], news["age_s"]) == (stalled, pytest.approx(wait))
    feed.publish(None, replace(STATE, ended=True))
    assert not feed.since(Cursor())[0]["stalled"]


# ---- bounded memory


def test_every_point_of_the_curve_is_the_mean_of_its_frames():
    values = np.random.default_rng(3).random(1000)
    values[::7] = np.nan
    curve = Curve(most=16)
    for i, value in enumerate(values):
        curve.add((float(i), float(i), math.nan, float(value), 0.5))
    assert len(curve.bins) < 16
    assert curve.stride == 64
    for k, (index, _, time_s, share, sd) in enumerate(curve.bins):
        part = slice(k * 64, (k + 1) * 64)
        assert index == np.arange(1000)[part].mean()
        assert math.isnan(time_s)
        # Means of means, where frames without a value count for nothing.
        assert share == pytest.approx(np.nanmean(values[part]), abs=0.02)
        assert sd == 0.5


def test_hours_of_frames_are_told_in_bounded_messages_that_lose_nothing():
    feed, cursor, told, alarms = Feed(most_bins=64), Cursor(), [], 0
    rng = np.random.default_rng(0)
    alarm = Alarm(1, 1.0, "mean", "A jump.", 6.0)
    base = frame_at(0)
    for i in range(3000):
        feed.publish(replace(base, index=i, alarms=(alarm,) if i % 10 == 0 else ()), STATE)
        if rng.random() < 0.02:
            news, cursor = feed.since(cursor)
            told += [p[0] for p in news["recent"]]
            alarms += len(news["alarms"])
            assert news["n_alarms"] == 1 + i // 10
    news, cursor = feed.since(cursor)
    assert [*told, *(p[0] for p in news["recent"])] == list(range(3000))
    assert alarms + len(news["alarms"]) == 300
    assert feed.since(cursor)[0]["recent"] == []
    late = feed.since(Cursor())[0]
    assert (len(late["recent"]), len(late["alarms"])) == (MOST_RECENT, MOST_ALARMS)
    assert len(late["bins"]) < 64
    assert late["stride"] == 64
    assert late["bins"][0][0] == 31.5


def test_bins_told_piecewise_are_those_told_at_once():
    feed, cursor, bins = Feed(most_bins=16), Cursor(), []
    base = frame_at(0)
    for i in range(500):
        feed.publish(replace(base, index=i), STATE)
        if i % 3 == 0:
            news, cursor = feed.since(cursor)
            bins = news["bins"] if news["restart"] else bins + news["bins"]
    news, _ = feed.since(cursor)
    assert (news["bins"] if news["restart"] else bins + news["bins"]) == feed.since(Cursor())[0]["bins"]


# ---- the picture


def unpack(content: bytes):
    magic, index, height, width, step, whole = struct.unpack_from("<4s5I", content)
    low, high = struct.unpack_from("<2f", content, 24)
    assert magic == b"GMRM"
    assert len(content) == 32 + 2 * height * width
    planes = np.frombuffer(content, np.uint8, offset=32).reshape(2, height, width)
    return index, step, whole, (low, high), planes[0], planes[1]


@pytest.mark.parametrize("dense", [False, True])
def test_picture_and_labels_come_as_bytes(dense):
    frame = frame_at(4, dense=dense)
    with closing(make_page()) as page:
        assert ask(page, "/frame")[0] == 204
        page.publish(frame, STATE)
        status, headers, content = ask(page, "/frame")
    assert status == 200
    assert headers["Content-Type"] == "application/octet-stream"
    index, step, whole, (low, high), grey, labels = unpack(content)
    assert (index, step, whole) == (4, 1, dense)
    np.testing.assert_array_equal(labels, frame.labels)
    np.testing.assert_array_equal(grey == 0, np.isnan(frame.picture))
    for y, x in np.argwhere(np.isfinite(frame.picture)):
        expected = min(max((frame.picture[y, x] - low) / (high - low), 0), 1) * 254 + 1
        assert abs(grey[y, x] - expected) <= 1


def test_large_frames_are_reduced_by_blocks():
    frame = frame_at(1, rate=0.2)
    _, step, whole, _, grey, labels = unpack(encode(frame, (0.0, 254.0), most=10))
    assert (step, whole, grey.shape) == (4, 0, (6, 9))
    for r in range(6):
        for c in range(9):
            block = (slice(4 * r, 4 * r + 4), slice(4 * c, 4 * c + 4))
            seen = frame.labels[block].ravel()
            assert labels[r, c] == next((v for v in seen if v), 0)
            values = [v for v in frame.picture[block].ravel() if not math.isnan(v)]
            assert grey[r, c] == (int(sum(values) / len(values)) + 1 if values else 0)


def test_sizes_that_no_block_divides_lose_no_pixel():
    labels = np.zeros((7, 11), np.uint8)
    labels[6, 10] = 2
    frame = frame_at(0, labels=labels, picture=np.full((7, 11), 5, np.float32), n_samples=77)
    *_, grey, small = unpack(encode(frame, (0.0, 10.0), most=6))
    assert small.shape == (4, 6)
    assert small[3, 5] == 2
    assert (grey == 128).all()


def test_grey_range_is_robust_steady_and_never_empty():
    picture = np.full((50, 50), np.nan, np.float32)
    assert next_limits(None, picture) == (0.0, 1.0)
    picture[:2] = 7
    assert next_limits(None, picture) == (6.5, 7.5)
    picture[:] = np.random.default_rng(1).normal(100, 10, (50, 50))
    picture[0, 0] = 1e6  # a hot pixel
    low, high = next_limits(None, picture)
    assert 65 < low < 85
    assert 115 < high < 135
    assert next_limits((0.0, 10.0), picture) == pytest.approx((0.2 * low, 8 + 0.2 * high))


def test_a_picture_is_made_once_for_all_browsers_and_with_rests(monkeypatch):
    clock, made = [50.0], []

    def slow(frame, limits):
        made.append(frame.index)
        clock[0] += 0.25
        return f"picture {frame.index}".encode()

    monkeypatch.setattr("gmrm_gpu.live.page.picture.encode", slow)
    monkeypatch.setattr("gmrm_gpu.live.page.picture.time.perf_counter", lambda: clock[0])
    painter, frames = Painter(), [frame_at(i) for i in range(3)]
    assert painter.bytes_of(frames[0]) == painter.bytes_of(frames[0]) == b"picture 0"
    clock[0] = 50.25 + 0.25 * REST - 0.01
    assert painter.bytes_of(frames[1]) == b"picture 0"
    clock[0] += 0.02
    assert painter.bytes_of(frames[2]) == b"picture 2"
    assert made == [0, 2]
