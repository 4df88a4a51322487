"""A live run from its source to its files: queue, journal, drops, notices, stopping, crashes, going on."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_tools import enter, entries, explode, need, rows_of

from gmrm_gpu import durable
from gmrm_gpu.cli import live as command
from gmrm_gpu.cli import main
from gmrm_gpu.config import AnalysisConfig, CorrectionConfig, MixtureConfig
from gmrm_gpu.errors import InputError, OutputError
from gmrm_gpu.estimate import smooth
from gmrm_gpu.frames import Visits
from gmrm_gpu.live import run as run_module
from gmrm_gpu.live.analysis import LiveAnalysis
from gmrm_gpu.live.finish import result_of, smooth_in_parts
from gmrm_gpu.live.journal import (
    MOST_PICTURES,
    Journal,
    Subject,
    read_files,
    read_labels,
    read_pictures,
    read_records,
    read_subject,
)
from gmrm_gpu.live.mailbox import Closed, Mailbox, spans
from gmrm_gpu.live.page import LivePage
from gmrm_gpu.live.run import LiveRun, NoticeBook, Plan
from gmrm_gpu.live.sources import Arrival, Notice, Source, open_source
from gmrm_gpu.live.update import Alarm, LiveFrame, LiveState
from gmrm_gpu.results import Estimate, FitStatus, MixtureFit
from gmrm_gpu.synthetic.endless import EndlessBattery

CONFIG = AnalysisConfig(MixtureConfig(2, "linear"), correction=CorrectionConfig(radius=3.0, gamma=0.2)).with_rate(0.3)
SHAPE = (12, 16)
FRAMES = np.random.Generator(np.random.Philox(9)).integers(1, 200, (30, *SHAPE), dtype=np.uint8)
FIT = MixtureFit(
    weights=np.array([0.75, 0.25]),
    means=np.array([40.0, 120.0]),
    sigmas=np.array([5.0, 6.0]),
    coef=np.array([1.0, -2.0]),
    log_likelihood=np.array(-321.5),
    n_iter=np.array(7),
    n_samples=np.array(58),
    status=np.array(0, np.uint8),
    terms=((1, 0), (0, 1)),
)


def live_frame(index, pixels, number=None, time_s=None, alarms=()):
    """A frame as an analysis makes it; its share is the part of bright pixels."""
    share = float((pixels > 100).mean())
    return LiveFrame(
        index=index,
        number=index if number is None else number,
        time_s=time_s,
        n_samples=58,
        visited_share=0.3,
        **dict.fromkeys(("share", "count", "posterior", "assisted"), share),
        **{f"{name}_sd": 0.01 for name in ("share", "count", "posterior", "assisted")},
        share_raw=share,
        n_without_neighbours=1,
        fit=FIT,
        foreground=np.array([False, True]),
        status=FitStatus.CONVERGED,
        labels=(1 + (pixels > 100)).astype(np.uint8),
        picture=pixels.astype(np.float32),
        alarms=alarms,
        latency_s=0.002,
    )


class Stub:
    """An analysis that thresholds, as slow as wanted; its state is the number of frames and their sum."""

    def __init__(self, shape=SHAPE, seconds=0.0, seen=0, total=0.0):
        self.shape, self.n_pixels, self.seconds = shape, shape[0] * shape[1], seconds
        self.seen, self.total = seen, total

    def process(self, frame, time_s=None, *, number=None):
        pixels = np.zeros(self.shape, np.uint8)
        if isinstance(frame, Visits):
            pixels.reshape(-1)[frame.positions] = frame.values
        else:
            if frame.shape != self.shape:
                raise InputError(f"frame {number} is {frame.shape}")
            pixels = frame
        time.sleep(self.seconds)
        self.seen, self.total = self.seen + 1, self.total + float(pixels.sum())
        alarm = (Alarm(number, time_s, "trend", "jumped, or so", 6.5),) if pixels[0, 0] == 0 else ()
        # The share depends on all frames before, so that a state that was lost would show.
        return replace(live_frame(self.seen - 1, pixels, number, time_s, alarm), posterior=self.total % 1000 / 1000)

    def save(self, path):
        np.savez(path, seen=self.seen, total=self.total)

    @staticmethod
    def load(path):
        with np.load(path) as state:
            return Stub(seen=int(state["seen"]), total=float(state["total"]))


class Listed(Source):
    """A source of given items."""

    name = "listed"

    def __init__(self, items, *, waits=True, replays=True, error=None):
        self.items, self.waits, self.replays, self.error = items, waits, replays, error
        self.closed = threading.Event()

    def __iter__(self):
        for item in self.items:
            if self.closed.is_set():
                return
            yield item
        if self.error is not None:
            raise self.error

    def close(self):
        self.closed.set()


def arrivals(numbers=range(30), frames=FRAMES):
    return [Arrival(frames[n % 30], frames[n % 30].shape, n) for n in numbers]


def make_run(source, tmp_path, *, analysis=Stub, config=CONFIG, **options):
    plan_names = ("most_frames", "idle_s", "state_every_s")
    chosen = {name: options.pop(name) for name in plan_names if name in options}
    plan = Plan("listed", config, tmp_path / "r.live", tmp_path / "r", **chosen)
    options = {"load_analysis": Stub.load, **options}
    return LiveRun(source, plan, new_analysis=lambda arrival, source: analysis(), **options)


# -- mailbox --------------------------------------------------------------------------------------------------------


def test_a_full_mailbox_drops_the_oldest_and_says_which():
    box = Mailbox(waits=False, most_frames=3)
    for item in [*arrivals(range(4)), Notice("n"), *arrivals(range(4, 7))]:
        assert box.put(item)
    assert box.n_waiting == 3
    told = box.get(1)
    assert told.n_dropped == 4
    assert told.text.startswith("frames 0 to 3 dropped")
    box.seal()
    assert not box.put(arrivals()[0])
    rest = [box.get(1) for _ in range(4)]
    assert [getattr(item, "number", "notice") for item in rest] == ["notice", 4, 5, 6]
    with pytest.raises(Closed):
        box.get(1)


def test_a_mailbox_of_files_lets_the_reader_wait_and_counts_bytes():
    box = Mailbox(waits=True, most_bytes=3 * FRAMES[0].nbytes)
    done = threading.Event()

    def fill():
        for item in arrivals(range(6)):
            box.put(item)
        done.set()

    threading.Thread(target=fill, daemon=True).start()
    assert not done.wait(0.05)
    assert box.n_waiting == 3
    assert [box.get(1).number for _ in range(6)] == list(range(6))
    assert done.wait(1)
    assert box.get(0.001) is None


def test_spans_of_numbers_are_said_shortly():
    assert spans([3]) == "frame 3"
    assert spans([3, 4, 5, 9, 11, 12]) == "frames 3 to 5, 9, 11 to 12"


# -- run ------------------------------------------------------------------------------------------------------------


def test_a_run_writes_what_the_analysis_says_frame_by_frame(tmp_path):
    shown = []
    run = make_run(Listed(arrivals()), tmp_path, watch=lambda frame, state: shown.append((frame, state)))
    journal = run.run()
    records = read_records(journal.folder, journal.subject)
    alone, expected = Stub(), []
    for n in range(30):
        expected.append(alone.process(FRAMES[n], number=n))
    assert records["number"].tolist() == list(range(30))
    np.testing.assert_array_equal(records["share"], [f.share for f in expected])
    np.testing.assert_array_equal(records["posterior"], [f.posterior for f in expected])
    np.testing.assert_array_equal(records["means"], np.tile(FIT.means, (30, 1)))
    np.testing.assert_array_equal(records["coef"], np.tile(FIT.coef, (30, 1)))
    for labels, frame in zip(read_labels(journal.folder, journal.subject, records), expected, strict=True):
        np.testing.assert_array_equal(labels, frame.labels)
    states = [state for frame, state in shown if frame is not None]
    assert [state.n_frames for state in states] == list(range(1, 31))
    assert isinstance(states[0], LiveState)
    assert states[-1].latency_ms == (2.0, 2.0)
    assert states[-1].visited_share == pytest.approx(0.3)
    assert shown[-1][1].ended


def test_bad_frames_are_told_and_the_stream_goes_on(tmp_path):
    items = arrivals(range(4))
    items[1] = Arrival(FRAMES[1][:5], (5, 16), 1)
    items.insert(3, Arrival(Visits(np.arange(5, dtype=np.int32), np.ones(5, np.uint8)), (9, 9), 7))
    items.insert(2, Notice("f lost", 2))
    said = []
    run = make_run(Listed(items), tmp_path, say=said.append)
    journal = run.run()
    assert read_records(journal.folder, journal.subject)["number"].tolist() == [0, 2, 8]
    # Two that the notice tells, frames 3 to 6 that never came, one of another size, and visits of another size.
    assert run.n_dropped == 2 + 4 + 1 + 1
    assert said[0] == "frame 1 is (5, 16); left out"
    assert "frame 7 is 9 x 9, the first 12 x 16; frames of a stream must be alike; left out" in said
    text = (journal.folder / "notices.txt").read_text("utf-8")
    assert text.count("\n") == run.notices.n_all
    assert "f lost" in text


def test_a_slow_analysis_drops_frames_and_every_one_is_told(tmp_path):
    source = Listed(arrivals(range(600)), waits=False, replays=False)
    run = make_run(source, tmp_path, analysis=lambda: Stub(seconds=0.001))
    journal = run.run()
    done = read_records(journal.folder, journal.subject)["number"].tolist()
    assert run.n_dropped > 0
    assert len(done) + run.n_dropped == 600
    told = []
    for line in (journal.folder / "notices.txt").read_text("utf-8").splitlines():
        spoken = line.split(" dropped")[0].split("frame")[1].lstrip("s ")
        for span in spoken.split(", "):
            ends = [int(n) for n in span.split(" to ")]
            told += range(ends[0], ends[-1] + 1)
    assert sorted(done + told) == list(range(600))


class Slow(Source):
    """Frames with a pause, then none, until closed."""

    waits, replays = False, False

    def __init__(self, pauses):
        self.pauses, self.closed = pauses, threading.Event()

    def __iter__(self):
        for n, pause in enumerate(self.pauses):
            self.closed.wait(pause)
            yield Arrival(FRAMES[n], SHAPE, n)
        self.closed.wait()

    def close(self):
        self.closed.set()


def test_stalls_are_told_and_an_idle_stream_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "STALL_S", 0.15)
    run = make_run(Slow([0, 0, 0.4]), tmp_path, idle_s=1.0)
    journal = run.run()
    assert journal.n_frames == 3
    texts = list(run.notices.texts)
    assert texts[0].startswith("no frame for 0 s; waiting")
    assert texts[1].startswith("frames come again")
    assert texts[-1] == "no frame for 1 s: the run ends"


def test_stopping_analyses_what_waits_and_a_limit_stops(tmp_path):
    run = make_run(Slow([0] * 10), tmp_path, analysis=lambda: Stub(seconds=0.02))
    threading.Timer(0.1, run.stop).start()
    assert run.run().n_frames == 10
    shutil.rmtree(tmp_path / "r.live")
    assert make_run(Listed(arrivals()), tmp_path, most_frames=4).run().n_frames == 4


def test_stopping_does_not_wait_long_for_a_slow_analysis(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "DRAIN_S", 0.1)
    run = make_run(Slow([0] * 10), tmp_path, analysis=lambda: Stub(seconds=0.05))
    threading.Timer(0.08, run.stop).start()
    journal = run.run()
    assert 2 <= journal.n_frames <= 8
    assert journal.n_frames + run.n_dropped == 10
    assert run.notices.texts[-1] == f"frames {journal.n_frames} to 9 dropped: the run was stopped"


def test_an_error_of_the_source_keeps_the_journal_and_a_stream_without_frames_makes_none(tmp_path):
    run = make_run(Listed(arrivals(range(5)), error=InputError("the disk is gone")), tmp_path)
    with pytest.raises(InputError, match="the disk is gone"):
        run.run()
    assert len(read_records(tmp_path / "r.live", run.journal.subject)) == 5
    with pytest.raises(OutputError, match="--resume"):
        make_run(Listed(arrivals()), tmp_path).run()
    shutil.rmtree(tmp_path / "r.live")
    assert make_run(Listed([Notice("nothing here")]), tmp_path).run() is None
    assert entries(tmp_path) == []


def test_a_full_disk_stops_the_run_with_what_was_written_kept(tmp_path, monkeypatch):
    real = Journal._keep_picture

    def full(self, frame):
        if self.n_frames == 3:
            raise OSError(28, "No space left on device")
        real(self, frame)

    monkeypatch.setattr(Journal, "_keep_picture", full)
    run = make_run(Listed(arrivals()), tmp_path)
    with pytest.raises(OutputError, match=r"No space left on device; make room, then go on with --resume .*r\.live"):
        run.run()
    assert len(read_records(tmp_path / "r.live", run.journal.subject)) == 4


class Cramped:
    """An unbuffered file on a disk that is nearly full: it takes a part and says so only by the number it returns."""

    def __init__(self, path, room):
        self.file, self.room = path.open("ab", buffering=0), room

    def write(self, content):
        if self.room == 0:
            raise OSError(28, "No space left on device")
        n = self.file.write(content[: self.room])
        self.room -= n
        return n

    def close(self):
        self.file.close()


def test_a_disk_that_takes_half_of_a_frame_has_not_taken_it(tmp_path):
    run = make_run(Listed(arrivals(range(2))), tmp_path)
    journal = Journal.resume(run.run().folder)
    journal._labels.close()
    journal._labels = Cramped(journal.folder / "labels.bin", 10)
    with pytest.raises(OutputError, match="No space left on device"):
        journal.add(live_frame(2, FRAMES[2]))
    journal.close()
    again = Journal.resume(journal.folder)
    again.add(live_frame(2, FRAMES[2]))
    again.close()
    records = read_records(again.folder, again.subject)
    assert list(records["number"]) == [0, 1, 2]
    np.testing.assert_array_equal(list(read_labels(again.folder, again.subject, records))[2], 1 + (FRAMES[2] > 100))


def test_half_a_picture_is_none(tmp_path, monkeypatch):
    journal = make_run(Listed(arrivals(range(2))), tmp_path).run()
    journal = Journal.resume(journal.folder)

    def full(write, content):
        write(content[:200])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_all", full)
    with pytest.raises(OutputError, match="No space left on device"):
        journal.add(live_frame(2, FRAMES[2]))
    monkeypatch.undo()
    journal.close()
    assert list(read_pictures(journal.folder, 12)) == [0, 1]


def test_a_journal_that_cannot_be_begun_leaves_nothing_and_notices_need_room_too(tmp_path, monkeypatch):
    journal = make_run(Listed(arrivals(range(2))), tmp_path).run()
    shutil.rmtree(journal.folder / "pictures")
    (journal.folder / "notices.txt").unlink()
    (journal.folder / "notices.txt").mkdir()
    with pytest.raises(OutputError, match=r"cannot write into .*r\.live"):
        journal.notice("a sentence")
    shutil.rmtree(journal.folder)
    monkeypatch.setattr(Path, "write_text", explode(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left on device"):
        Journal.create(journal.folder, journal.subject)
    assert entries(tmp_path) == []


def test_a_journal_knows_the_file_of_each_recorded_frame(tmp_path):
    items = [replace(arrival, origin=f"é{arrival.number // 2}.tif") for arrival in arrivals(range(3))]
    journal = make_run(Listed(items), tmp_path).run()
    with (journal.folder / "files.txt").open("a") as file:
        file.write('[3, "not recorded.tif"]\n[4, "half a li')
    records = read_records(journal.folder, journal.subject)
    assert read_files(journal.folder, records) == [(0, "é0.tif"), (1, "é0.tif"), (2, "é1.tif")]


def test_two_runs_cannot_write_one_journal(tmp_path):
    need("fcntl")
    journal = make_run(Listed(arrivals(range(2))), tmp_path).run()
    going_on = Journal.resume(journal.folder)
    with pytest.raises(OutputError, match="belongs to a run that is going on; stop that one first"):
        Journal.resume(journal.folder)
    going_on.close()
    Journal.resume(journal.folder).close()


def test_repeated_notices_are_said_ever_more_rarely():
    book = NoticeBook()
    said = [n for n in range(1, 101) if book.add(f"frame {n} is torn")]
    assert said == [1, 2, 3, 4, 8, 16, 32, 64]
    assert book.add("something else")
    assert (book.n_all, len(book.texts)) == (101, 50)


def test_the_first_frame_is_looked_at(tmp_path):
    dark = FRAMES[0].copy()
    dark[:4] = 0
    dark[5, 5] = 255
    run = make_run(Listed([Arrival(dark, SHAPE, 0), Arrival(FRAMES[0] * 0 + 9, SHAPE, 1)]), tmp_path)
    run.run()
    assert [text[:34] for text in run.notices.texts] == ["Frame 0 is exactly 0 in 33.3 % of "]
    shutil.rmtree(tmp_path / "r.live")
    run = make_run(Listed([Arrival(FRAMES[0] * 0 + 9, SHAPE, 0)]), tmp_path)
    run.run()
    assert list(run.notices.texts) == ["frame 0 has only 1 distinct grey level for 2 components: is the beam on?"]
    shutil.rmtree(tmp_path / "r.live")
    few = CONFIG.with_rate(0.02)
    with pytest.raises(InputError, match=r"frame 0 has 4 samples, which .* use a --rate of at least 0\.052"):
        make_run(Listed(arrivals()), tmp_path, config=few).run()
    seen = Visits(np.arange(3, dtype=np.int32), np.ones(3, np.uint8))
    with pytest.raises(InputError, match=r"frame 0 has 3 samples, .* visit more pixels"):
        make_run(Listed([Arrival(seen, SHAPE, 0)]), tmp_path).run()
    with pytest.raises(InputError, match="too small for a trend"):
        make_run(Listed([Arrival(FRAMES[0][:1], (1, 16), 0)]), tmp_path, config=CONFIG.with_rate(1.0)).run()
    assert entries(tmp_path) == []


# -- journal --------------------------------------------------------------------------------------------------------


def whole(tmp_path, **options):
    return make_run(Listed(arrivals()), tmp_path, **options).run()


def contents(folder):
    subject, _ = read_subject(folder)
    records = read_records(folder, subject)
    labels = list(read_labels(folder, subject, records))
    records["latency_s"], records["crc"] = 0, 0
    return records.tobytes(), np.stack(labels)


@pytest.mark.parametrize("state_every_s", [0.0, 1e9], ids=["states saved", "no state"])
@pytest.mark.parametrize("cut", ["record", "labels", "flip"])
def test_a_killed_run_loses_its_last_frame_at_most_and_goes_on_as_if_nothing_were(tmp_path, cut, state_every_s):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected, labels = contents(whole(tmp_path / "a").folder)
    broken = make_run(
        Listed(arrivals(range(12)), error=KeyError("killed")), tmp_path / "b", state_every_s=state_every_s
    )
    with pytest.raises(KeyError):
        broken.run()
    folder = broken.plan.journal
    for path in folder.glob("state-*"):
        if state_every_s > 0:
            path.unlink()
    records = folder / "frames.bin"
    if cut == "record":
        os.truncate(records, records.stat().st_size - 11)
    elif cut == "labels":
        os.truncate(folder / "labels.bin", (folder / "labels.bin").stat().st_size - 1)
    else:
        data = bytearray(records.read_bytes())
        data[-100] ^= 4
        records.write_bytes(data)
    journal = Journal.resume(folder)
    assert journal.n_frames == 11
    # A played movie is opened after the last frame of the state; without a state, from its beginning.
    source = Listed(arrivals(range(11 if state_every_s == 0 else 0, 30)))
    again = make_run(source, tmp_path / "b", journal=journal)
    found, found_labels = contents(again.run().folder)
    assert found == expected
    np.testing.assert_array_equal(found_labels, labels)


def test_a_stream_that_cannot_be_replayed_goes_on_after_the_last_record(tmp_path):
    make_run(Listed(arrivals(range(5))), tmp_path).run()
    source = Listed(arrivals(range(8, 12)), replays=False)
    run = make_run(source, tmp_path, journal=Journal.resume(tmp_path / "r.live"))
    journal = run.run()
    assert read_records(journal.folder, journal.subject)["number"].tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert list(run.notices.texts) == ["3 of the frames 5 to 7 never came"]
    again = make_run(Listed([], replays=False), tmp_path, journal=Journal.resume(tmp_path / "r.live"))
    assert (again.n_dropped, again.n_frames) == (3, 9)  # what the runs before have lost is not forgotten
    again.journal.close()
    assert run._analysis.seen == 9


def test_damaged_journals_are_refused_in_words(tmp_path):
    with pytest.raises(InputError, match="holds no journal"):
        Journal.resume(tmp_path)
    journal = whole(tmp_path)
    labels = journal.folder / "labels.bin"
    data = bytearray(labels.read_bytes())
    data[len(data) // 2] ^= 1
    labels.write_bytes(data)
    records = read_records(journal.folder, journal.subject)
    with pytest.raises(InputError, match="labels of frame"):
        list(read_labels(journal.folder, journal.subject, records))
    path = journal.folder / "journal.json"
    for text in ("{", "[]", json.dumps({**json.loads(path.read_text()), "version": 9}), "{}"):
        path.write_text(text)
        with pytest.raises(InputError, match="damaged"):
            Journal.resume(journal.folder)


def test_pictures_stay_few_and_evenly_spread_however_long_the_run(tmp_path):
    subject = Subject("s", "s", SHAPE, "uint8", CONFIG, Source.acquisition, 192, None, False, {})
    journal = Journal.create(tmp_path / "j", subject)
    for n in range(200):
        journal.add(live_frame(n, FRAMES[n % 30]))
        assert len(entries(tmp_path / "j" / "pictures")) <= MOST_PICTURES
    kept = read_pictures(tmp_path / "j", 6)
    assert len(kept) == 6
    assert set(np.diff(list(kept))) <= {32, 64}
    np.testing.assert_array_equal(kept[64], FRAMES[64 % 30])
    journal.close()


# -- the result -----------------------------------------------------------------------------------------------------


def test_smoothing_in_parts_is_smoothing_at_once(tmp_path):
    rng = np.random.Generator(np.random.Philox(3))
    truth = 0.2 + 0.1 * np.sin(np.arange(1500) / 60)
    share, sd = truth + rng.normal(0, 0.01, 1500), np.full(1500, 0.01)
    share[700:705] = np.nan
    at_once, parts = smooth(Estimate(share[None], sd[None])), smooth_in_parts(share, sd, size=600)
    assert np.abs(at_once.share - parts.share).max() < 0.1 * at_once.sd.min()
    np.testing.assert_allclose(parts.sd, at_once.sd, rtol=0.1)
    few = smooth_in_parts(share[:600], sd[:600], size=600)
    np.testing.assert_array_equal(few.share, smooth(Estimate(share[None, :600], sd[None, :600])).share)


def test_lost_frames_are_gaps_for_the_smoother(tmp_path):
    numbers = [*range(10), *range(20, 30)]
    journal = make_run(Listed(arrivals(numbers)), tmp_path).run()
    shares = np.full((1, 30), np.nan)
    shares[0, numbers] = [(FRAMES[n] > 100).mean() for n in numbers]
    expected = smooth(Estimate(shares, np.full((1, 30), 0.01)))
    result = result_of(journal.folder, {"warnings": []})
    np.testing.assert_array_equal(result.smoothed, expected.share[0, numbers])
    np.testing.assert_array_equal(result.smoothed_sd, expected.sd[0, numbers])


def test_the_result_has_every_curve_of_the_frames(tmp_path):
    items = [replace(item, time_s=10 + 0.5 * item.number) for item in arrivals()]
    journal = make_run(Listed(items), tmp_path).run()
    result = result_of(journal.folder, {"warnings": []})
    shares = np.array([(frame > 100).mean() for frame in FRAMES])
    np.testing.assert_array_equal(result.assisted, shares)
    np.testing.assert_array_equal(result.time_s, 0.5 * np.arange(30))
    expected = smooth(Estimate(shares[None], np.full((1, 30), 0.01)))
    np.testing.assert_array_equal(result.share, expected.share[0])
    np.testing.assert_array_equal(result.share_sd, expected.sd[0])
    assert result.examples.images.shape == (6, *SHAPE)
    np.testing.assert_array_equal(result.examples.images, FRAMES[result.examples.frames])
    assert result.fits[3].means.tolist() == FIT.means.tolist()
    assert result.scale.n_pixels == 192


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path, monkeypatch):
    return enter(tmp_path, monkeypatch)


LIVE = ("live", "--components", "3", "--trend", "linear", "--rate", "0.4", "--no-page", "--no-report")


def live(*more):
    return [*LIVE, *more]


def test_live_writes_the_files_of_analyze_and_two_more(work, capsys):
    need("tifffile", "matplotlib")
    assert main([w for w in live("movie.npy", "--out", "r", "--frame-time", "0.5s") if w != "--no-report"]) == 0
    assert entries("r") == [
        *("alarms.csv", "analysis.json", "figures", "fits.csv", "growth.csv"),
        *("labels.tif", "notices.txt", "report.html"),
    ]
    assert entries() == ["movie.npy", "r", "truth.npy"]
    rows = rows_of("r/growth.csv")
    movie = np.load("movie.npy")
    config = AnalysisConfig(MixtureConfig(3, "linear")).with_rate(0.4)
    alone = LiveAnalysis(movie.shape[1:], movie.dtype, config)
    expected = [alone.process(frame, number=n) for n, frame in enumerate(movie)]
    assert [float(row["assisted"]) for row in rows] == pytest.approx([f.assisted for f in expected], rel=1e-8)
    assert [float(row["time_s"]) for row in rows] == [0, 0.5, 1, 1.5, 2]
    import tifffile

    with tifffile.TiffFile("r/labels.tif") as tif:
        np.testing.assert_array_equal(tif.asarray(), np.stack([f.labels for f in expected]))
    told = json.loads(Path("r/analysis.json").read_text("utf-8"))
    assert told["provenance"]["dropped"] == 0
    assert told["movie"]["n_frames"] == 5
    with open("r/alarms.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["frame", "time_s", "what", "score", "text"]
    assert "waiting for frames from movie.npy" in capsys.readouterr().out
    # The folder is one of ours: it can be replaced.
    assert main(live("movie.npy", "--out", "r", "--overwrite", "--frames", "2")) == 0
    assert len(rows_of("r/growth.csv")) == 2


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (live(), "give SOURCE"),
        (live("movie.npy", "--method", "paper"), "paper"),
        (live("movie.npy", "--window", "symmetric", "--radius", "2"), "window"),
        (live("movie.npy", "--geometry", "revolution", "--pixel-size", "5nm"), "no volume of revolution"),
        (live("movie.npy", "--frames", "-1"), "--frames is -1"),
        (live("movie.npy", "--components", "auto"), "auto needs a whole movie"),
        (live("nowhere"), "does not exist"),
        (live("movie.npy", "--size", "20x20"), "--size is about the simulation"),
        (live("movie.npy", "--simulate", "0fps"), "not frames per second"),
        (live("--resume", "."), "leave out n_components, trend, rate"),
        (["live", "--resume", ".", "--crop", "0:9,0:9"], "leave out crop"),
        (["live", "movie.npy", "--resume", "."], "leave out movie"),
        (["live", "--resume", "."], "holds no journal"),
    ],
)
def test_wrong_use_is_told_in_one_line_and_writes_nothing(work, capsys, argv, says):
    assert main(argv) in (1, 2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert says in err
    assert entries() == ["movie.npy", "truth.npy"]


def start(*argv, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "gmrm_gpu", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for_frames(folder, n, process):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        path = Path(folder) / "frames.bin"
        if path.exists() and path.stat().st_size >= n * 100 * 3:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("no frames")


SIMULATED = live("simulation", "--size", "32x32", "--simulate", "100fps", "--seed", "1", "--out", "s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_which_then_writes(work, number):
    need("tifffile")
    process = start(*SIMULATED)
    wait_for_frames("s.live", 5, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "written: s" in out
    assert "stopped; writing the results" in err
    assert len(rows_of("s/growth.csv")) >= 5
    assert entries() == ["movie.npy", "s", "truth.npy"]


def test_a_killed_run_is_resumed_and_ends_as_an_undisturbed_one(work, monkeypatch):
    need("tifffile")
    battery = EndlessBattery((24, 32), cycle=100, seed=1, n_empty=2)
    np.save("long.npy", np.stack([battery.frame(n) for n in range(120)]))
    Path("elsewhere").mkdir()
    reading = ("--crop", "0:20,4:30", "--clip", "20,200")
    process = start(*live("long.npy", *reading, "--out", "s"))
    wait_for_frames("s.live", 5, process)
    process.kill()
    process.communicate(timeout=10)
    n_before = len(read_records(Path("s.live"), read_subject(Path("s.live"))[0]))
    assert 5 <= n_before < 120, "killed too late to be a test"
    monkeypatch.chdir("elsewhere")
    assert main(["live", "--resume", "../s.live", "--no-page", "--no-report"]) == 0
    monkeypatch.chdir("..")
    assert main(live("long.npy", *reading, "--out", "t")) == 0
    rows, undisturbed = rows_of("s/growth.csv"), rows_of("t/growth.csv")
    assert [int(row["frame"]) for row in rows] == list(range(120))
    assert rows == undisturbed
    assert Path("s/labels.tif").read_bytes() == Path("t/labels.tif").read_bytes()


def test_an_analysis_is_taken_up_from_its_saved_state(tmp_path):
    battery = EndlessBattery((24, 32), cycle=40, seed=1, n_empty=2)
    items = [Arrival(battery.frame(n), (24, 32), n) for n in range(24)]

    def new():
        return LiveAnalysis((24, 32), np.dtype(np.uint8), CONFIG)

    for name, part in (("a", 24), ("b", 10)):
        (tmp_path / name).mkdir()
        run = make_run(Listed(items[:part]), tmp_path / name, analysis=new, state_every_s=0.0)
        journal = run.run()
    state = sorted(journal.folder.glob("state-*"))[-1].name
    assert state == "state-000000010.npz"
    options = {"analysis": explode(AssertionError), "load_analysis": LiveAnalysis.load}
    make_run(Listed(items[10:]), tmp_path / "b", journal=Journal.resume(journal.folder), **options).run()
    found = [contents(tmp_path / name / "r.live") for name in "ab"]
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_resume_can_write_what_is_there_and_refuses_to_mix(work, capsys):
    need("tifffile")
    process = start(*SIMULATED)
    wait_for_frames("s.live", 5, process)
    process.kill()
    process.communicate(timeout=10)
    assert main(SIMULATED) == 1
    assert "s.live is an unfinished live run; go on with --resume s.live" in capsys.readouterr().err
    assert main(["live", "--resume", "s.live", "--frames", "0", "--no-page", "--no-report", "--out", "u"]) == 0
    assert len(rows_of("u/growth.csv")) >= 5
    assert entries() == ["movie.npy", "truth.npy", "u"]


def test_the_page_of_a_run_is_told_and_reachable_while_it_lasts(work):
    from urllib.request import urlopen

    process = start(*[w for w in SIMULATED if w != "--no-page"])
    for line in process.stdout:
        if line.startswith("page: "):
            break
    with urlopen(line[6:].strip(), timeout=10) as answer:
        assert b"<canvas" in answer.read()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_the_sender_for_digitalmicrograph_sends_its_pattern(work):
    need("zmq")
    from gmrm_gpu.examples import digitalmicrograph_sender as sender

    source = open_source("zmq:tcp://127.0.0.1:*")
    items = []
    reader = threading.Thread(target=lambda: items.extend(source), daemon=True)
    reader.start()
    sender.main(["--address", source.name, "--frames", "5", "--fps", "200"])
    reader.join(10)
    assert not reader.is_alive()
    found = [item for item in items if isinstance(item, Arrival)]
    for arrival, (pixels, _) in zip(found, sender.test_pattern(5, 1e4), strict=True):
        np.testing.assert_array_equal(arrival.content, pixels)
    assert (source.acquisition.pixel_size_um, source.acquisition.detector) == (0.005, "test pattern")
    assert [a.number for a in found] == list(range(5))


def test_the_sender_says_when_nobody_listens(monkeypatch):
    need("zmq")
    from gmrm_gpu.examples import digitalmicrograph_sender as sender

    monkeypatch.setattr(sender, "PATIENCE_S", 0.05)
    said = []
    frames = [(FRAMES[0], None)] * 5
    assert sender.send_all(frames, "tcp://127.0.0.1:1", say=said.append) == (0, 5)
    assert said[0] == "nobody listens at tcp://127.0.0.1:1 yet: start `gmrm-gpu live zmq` there"
    assert said[-1] == "0 frames sent, 5 lost"
    with pytest.raises(ValueError, match="show a grey image"):
        sender.send_frame(None, np.zeros((2, 3, 3)), 0)


class Image:
    """What the sender uses of an image of DigitalMicrograph."""

    def __init__(self, scales, units, pixels=()):
        self.scales, self.units, self.pixels = scales, units, list(pixels)

    def GetDimensionCalibration(self, dimension, style):
        return 0.0, self.scales[dimension], self.units[dimension]

    def GetNumArray(self):
        return self.pixels.pop(0)

    def IsValid(self):
        return bool(self.pixels)


def test_the_sender_reads_calibrations_and_sends_an_image_only_when_it_has_changed():
    from gmrm_gpu.examples import digitalmicrograph_sender as sender

    assert sender.pixel_size_um(Image((2.0, 2.0), ("nm", "nm"))) == pytest.approx(0.002)
    assert sender.pixel_size_um(Image((0.002, 2.0), (b"\xb5m", "nm"))) == pytest.approx(0.002)
    assert sender.pixel_size_um(Image((2.0, 3.0), ("nm", "nm"))) is None
    assert sender.pixel_size_um(Image((2.0, 2.0), ("1/nm", "1/nm"))) is None
    image = Image((1.0, 1.0), ("nm", "nm"), [FRAMES[0], FRAMES[0], FRAMES[1], FRAMES[0]])
    found = [pixels for pixels, _ in sender.front_images(image)]
    np.testing.assert_array_equal(np.stack(found), FRAMES[[0, 1, 0]])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, as on Linux")
def test_a_long_run_keeps_its_memory_and_accounts_for_every_frame():
    sys.path.insert(0, str(Path(__file__).parents[1]))
    try:
        from benchmarks.live_soak import soak
    finally:
        sys.path.pop(0)
    found = soak(size=(32, 32), rate=0.2, fps=None, frames=400)
    assert found["n_frames"] == 400
    assert found["unaccounted"] == 0
    assert found["resident_mb_end"] < found["resident_mb_settled"] + 3


def test_a_port_that_is_taken_is_told_before_the_first_frame(work, capsys, monkeypatch):
    monkeypatch.setattr(LiveRun, "run", explode(AssertionError("it waits for frames first")))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main([word for word in SIMULATED if word != "--no-page"] + ["--port", port]) == 2
    assert f"the page cannot use port {port}" in capsys.readouterr().err


@pytest.mark.parametrize("fails", [False, True])
def test_the_page_says_whether_there_are_results(work, monkeypatch, fails):
    need("tifffile")
    said = []
    monkeypatch.setattr(LivePage, "end", lambda page, text: said.append(text))
    if fails:
        monkeypatch.setattr(command, "fill_analysis", explode(OutputError("no room")))
    code = main([word for word in SIMULATED if word != "--no-page"] + ["--frames", "3"])
    assert code == fails
    expected = "its results are not written; 3 frames analysed so far are kept in s.live"
    assert (expected if fails else "its results are in s.") in said[0]
