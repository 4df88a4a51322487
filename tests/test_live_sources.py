"""Sources of live frames: folders that are written into, messages, movies played, and the order of what comes."""

import json
import struct
import threading
import time

import numpy as np
import pytest

from gmrm_gpu.errors import ConfigError, InputError
from gmrm_gpu.frames import Visits
from gmrm_gpu.live.sources import Arrival, Notice, Orderly, Place, open_source
from gmrm_gpu.live.sources.folder import FolderSource
from gmrm_gpu.live.sources.message import parse_acquisition, parse_frame, parse_header
from gmrm_gpu.live.sources.playback import Clock
from gmrm_gpu.synthetic import simulate
from gmrm_gpu.synthetic.endless import EndlessBattery

FRAMES = np.random.Generator(np.random.Philox(5)).integers(1, 200, (8, 6, 10), dtype=np.uint8)


def split(items):
    items = list(items)
    return [i for i in items if isinstance(i, Arrival)], [i for i in items if isinstance(i, Notice)]


class Watched:
    """A source read in a thread, as a live run does."""

    def __init__(self, source):
        self.source, self.items = source, []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for item in self.source:
            self.items.append(item)

    def wait(self, n, kind=Arrival, seconds=5.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [i for i in list(self.items) if isinstance(i, kind)]
            if len(found) >= n:
                return found
            time.sleep(0.005)
        raise AssertionError(f"{len(found)} of {n} {kind.__name__}: {self.items}")

    def close(self):
        self.source.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


# -- folder ---------------------------------------------------------------------------------------------------------


def watch(folder, **options):
    return Watched(FolderSource(folder, **{"poll_s": 0.02, "patience_s": 0.3, **options}))


def test_folder_gives_new_files_in_natural_order(tmp_path):
    for t in (10, 2, 1):
        np.save(tmp_path / f"f{t}.npy", FRAMES[t % 8])
    (tmp_path / "log.txt").write_text("not an image")
    (tmp_path / ".hidden.npy").write_bytes(b"x")
    (tmp_path / "coming.npy.tmp").write_bytes(b"x")
    seen = watch(tmp_path)
    seen.wait(3)
    np.save(tmp_path / "f11.npy", FRAMES[3])
    found = seen.wait(4)
    seen.close()
    assert [a.number for a in found] == [0, 1, 2, 3]
    for arrival, t in zip(found, (1, 2, 2, 3), strict=True):
        np.testing.assert_array_equal(arrival.content, FRAMES[t])
    notices = [i.text for i in seen.items if isinstance(i, Notice)]
    assert notices == ["log.txt and other .txt files are ignored: no kind of image that is read"]


def test_folder_waits_for_a_file_that_is_still_being_written(tmp_path):
    whole = tmp_path / "whole.npy"
    np.save(whole, FRAMES[0])
    data = whole.read_bytes()
    whole.unlink()
    seen = watch(tmp_path, patience_s=5.0)
    with open(tmp_path / "a.npy", "wb", buffering=0) as file:
        for part in (data[:40], data[40:150], data[150:]):
            assert not [i for i in seen.items if isinstance(i, Arrival)]
            file.write(part)
            time.sleep(0.08)
    (found,) = seen.wait(1)
    seen.close()
    np.testing.assert_array_equal(found.content, FRAMES[0])
    assert seen.items == [found]


def test_folder_leaves_out_a_file_that_stays_broken_and_goes_on(tmp_path):
    np.save(tmp_path / "a.npy", FRAMES[0])
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(data[:-7])
    np.save(tmp_path / "c.npy", FRAMES[2])
    seen = watch(tmp_path)
    found = seen.wait(2)
    seen.close()
    assert [a.number for a in found] == [0, 2]  # the place of what was left out is kept
    (notice,) = [i for i in seen.items if isinstance(i, Notice)]
    assert notice.text.startswith("b.npy cannot be read (")
    assert notice.n_dropped == 1


def test_folder_tells_a_torn_frame_by_the_zeros_at_its_end(tmp_path):
    torn = FRAMES[1].copy()
    torn[3:] = 0
    np.save(tmp_path / "a.npy", FRAMES[0])
    np.save(tmp_path / "b.npy", torn)
    np.save(tmp_path / "c.npy", FRAMES[2])
    seen = watch(tmp_path)
    found = seen.wait(2)
    seen.close()
    np.testing.assert_array_equal(found[1].content, FRAMES[2])
    (notice,) = [i for i in seen.items if isinstance(i, Notice)]
    assert notice == Notice("b.npy ends in 3 rows of zeros (of 6), as if it was never finished; left out", 1)


def test_folder_takes_a_torn_frame_once_its_end_is_there(tmp_path):
    np.save(tmp_path / "a.npy", FRAMES[0])
    torn = FRAMES[1].copy()
    torn[4:] = 0
    seen = watch(tmp_path, patience_s=5.0)
    seen.wait(1)
    np.save(tmp_path / "b.npy", torn)
    time.sleep(0.15)
    assert len(seen.items) == 1
    target = np.load(tmp_path / "b.npy", mmap_mode="r+")
    target[4:] = FRAMES[1][4:]
    target.flush()
    found = seen.wait(2)
    seen.close()
    np.testing.assert_array_equal(found[1].content, FRAMES[1])


def test_folder_takes_recordings_that_all_end_in_zeros(tmp_path):
    for t in range(3):
        frame = FRAMES[t].copy()
        frame[4:] = 0
        np.save(tmp_path / f"f{t}.npy", frame)
    seen = watch(tmp_path)
    assert len(seen.wait(3)) == 3
    seen.close()
    assert [i.text for i in seen.items if isinstance(i, Notice)] == [
        "f0.npy ends in 2 rows of zeros (of 6); taken as recorded"
    ]


def test_folder_tells_of_files_and_of_itself_when_they_vanish(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    seen = watch(folder, patience_s=60.0)
    (folder / "a.npy").write_bytes(b"\x93NUMPY")
    time.sleep(0.1)
    (folder / "a.npy").unlink()
    (gone,) = seen.wait(1, Notice)
    assert gone == Notice("a.npy vanished before it was read; left out", 1)
    folder.rmdir()
    seen.wait(2, Notice)
    folder.mkdir()
    texts = [n.text for n in seen.wait(3, Notice)]
    seen.close()
    assert texts[1:] == ["the folder in is gone; waiting until it is back", "the folder in is back"]


def test_folder_of_one_kind_with_several_frames_a_file_late_files_and_another_pixel_size(tmp_path):
    from gmrm_gpu.frames import save_movie

    pytest.importorskip("tifffile", reason="needs tifffile")
    save_movie(FRAMES[:3], tmp_path / "b.tif", pixel_size_um=0.01)
    np.save(tmp_path / "c.npy", FRAMES[0])
    seen = watch(tmp_path)
    seen.wait(3)
    save_movie(FRAMES[3], tmp_path / "a.tif", pixel_size_um=0.02)
    found = seen.wait(4)
    seen.close()
    np.testing.assert_array_equal(np.stack([a.content for a in found]), FRAMES[:4])
    assert seen.source.acquisition.pixel_size_um == pytest.approx(0.01)
    assert [i.text for i in seen.items if isinstance(i, Notice)] == [
        "c.npy and other .npy files are ignored: only .tif files are read",
        "a.tif came after b.tif; frames are taken as they come",
        "a.tif has pixels of 0.02 um, the files before 0.01 um; 0.01 um is used",
    ]


def test_folder_new_only_and_burst(tmp_path):
    np.save(tmp_path / "old.npy", FRAMES[0])
    source = FolderSource(tmp_path, new_only=True, poll_s=0.02, patience_s=0.3)
    seen = Watched(source)
    time.sleep(0.06)
    stage = tmp_path / ".stage"
    stage.mkdir()
    for t in range(20):
        np.save(stage / f"n{t}.npy", FRAMES[t % 8])
    stage.rename(tmp_path / "sub")
    assert not seen.items  # a folder within is not looked at
    for path in (tmp_path / "sub").iterdir():
        path.rename(tmp_path / path.name)
    assert len(seen.wait(20)) == 20
    seen.close()
    assert source.skipped == ("old.npy",)
    taken = [(a.number, a.origin) for a in seen.items if isinstance(a, Arrival) and a.number < 18]
    again = watch(tmp_path, skip=source.skipped, taken=taken, after=17)  # as a run that is resumed
    assert [a.number for a in again.wait(2)] == [18, 19]
    again.close()
    assert not any("old" in i.text for i in seen.items if isinstance(i, Notice))


def test_folder_is_taken_up_again_by_the_names_of_files_whatever_their_order_was(tmp_path):
    for name, frames in (("f1", FRAMES[:3]), ("f3", FRAMES[3:6]), ("f2", FRAMES[6:]), ("f4", FRAMES[:2])):
        np.save(tmp_path / f"{name}.npy", frames)
    (tmp_path / "a.png").write_bytes(b"not of the kind that is read")
    (tmp_path / "f1.npy").unlink()  # read, then tidied away
    # f1, f3, and of f2, which came late, one frame of two.
    taken = [*((n, "f1.npy") for n in range(3)), *((n, "f3.npy") for n in range(3, 6)), (6, "f2.npy")]
    seen = watch(tmp_path, taken=taken, after=4)
    found = seen.wait(5)
    seen.close()
    assert [(a.number, a.origin[:2]) for a in found] == [(5, "f3"), (6, "f2"), (7, "f2"), (8, "f4"), (9, "f4")]
    np.testing.assert_array_equal(np.stack([a.content for a in found]), FRAMES[[5, 6, 7, 0, 1]])
    gone = watch(tmp_path, taken=taken)
    assert [a.number for a in gone.wait(7)] == list(range(3, 10))
    gone.close()
    assert gone.items[0] == Notice("f1.npy was analysed before and cannot be read again; the fit goes on without it")


def test_folder_says_once_what_is_waited_for(tmp_path):
    seen = watch(tmp_path, patience_s=0.5)
    time.sleep(0.05)
    for t in range(30):
        np.save(tmp_path / f"f{t}.npy", FRAMES[t % 8])
    seen.wait(30)
    assert not any("is not whole" in i.text for i in seen.items if isinstance(i, Notice))  # seen first, then read
    (tmp_path / "g0.npy").write_bytes(b"never finished")
    for t in range(1, 30):
        np.save(tmp_path / f"g{t}.npy", FRAMES[t % 8])
    seen.wait(59)
    seen.close()
    waited = [i.text for i in seen.items if isinstance(i, Notice) and "is not whole" in i.text]
    assert waited == ["g0.npy is not whole; files after it wait for it, 0.5 s at most"]
    assert sum("at once" in i.text for i in seen.items if isinstance(i, Notice)) <= 2


def test_folder_tells_of_files_written_again_and_forgets_those_that_are_gone(tmp_path):
    for t in range(3):
        np.save(tmp_path / f"f{t}.npy", FRAMES[t])
    seen = watch(tmp_path)
    seen.wait(3)
    np.save(tmp_path / "f1.npy", FRAMES[:2])
    (notice,) = seen.wait(1, Notice)
    assert notice == Notice("f1.npy was written again after it was read; what it holds now is not used", 1)
    (tmp_path / "f2.npy").unlink()
    time.sleep(0.1)
    assert "f2.npy" not in seen.source._done
    seen.close()


def test_folder_of_an_in_situ_camera_is_looked_through_in_the_order_of_time(tmp_path):
    places = ("Hour_00/Minute_00/Second_59", "Hour_00/Minute_01/Second_00", "Hour_00/Minute_10/Second_00")
    for second in reversed(range(3)):
        folder = tmp_path / places[second]
        folder.mkdir(parents=True)
        for t in range(2):
            np.save(folder / f"film_Frame_{t:04d}.npy", FRAMES[2 * second + t])
    seen = watch(tmp_path)
    found = seen.wait(6)
    seen.close()
    np.testing.assert_array_equal(np.stack([a.content for a in found]), FRAMES[:6])


# -- messages -------------------------------------------------------------------------------------------------------

HEADER = {"format": "gmrm-live", "version": 1, "kind": "frame", "shape": [6, 10], "dtype": "uint8", "number": 3}


def packed(**changes):
    return json.dumps({**HEADER, **changes}).encode()


@pytest.mark.parametrize(("order", "code"), [("little", "<"), ("big", ">")])
def test_message_holds_a_frame_in_either_byte_order(order, code):
    levels = FRAMES[0].astype(np.uint16) * 257
    buffer = b"".join(struct.pack(f"{code}H", int(v)) for v in levels.reshape(-1))
    header = parse_header(packed(dtype="uint16", byte_order=order, time_s=1.5))
    arrival = parse_frame(header, buffer)
    assert (arrival.number, arrival.time_s, arrival.shape) == (3, 1.5, (6, 10))
    assert arrival.content.dtype == np.uint16
    assert arrival.content.dtype.isnative
    np.testing.assert_array_equal(arrival.content, levels)


@pytest.mark.parametrize(("order", "code"), [("little", "<"), ("big", ">")])
def test_message_holds_visits(order, code):
    buffer = struct.pack(f"{code}3i3f", 59, 0, 59, 1.5, 2.5, -3.0)
    arrival = parse_frame(parse_header(packed(kind="visits", dtype="float32", byte_order=order, n=3)), buffer)
    assert isinstance(arrival.content, Visits)
    assert arrival.content.positions.tolist() == [59, 0, 59]
    assert arrival.content.values.tolist() == [1.5, 2.5, -3.0]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "bytes; send at most"),
        (b"[" * 60_000, "no JSON"),
        (b"[1]", "JSON list"),
        (packed(format="other"), '"other", version 1'),
        (packed(version=2), "version 2; send gmrm-live, version 1"),
        (packed(kind="movie"), 'kind "movie"'),
        (packed(shape=[6]), "[height, width]"),
        (packed(shape=[6, -1]), "[height, width]"),
        (packed(shape=[True, 6]), "[height, width]"),
        (packed(shape=[2**20, 2**20]), "at most"),
        (packed(dtype="object"), 'type "object"'),
        (packed(dtype=["u1"]), "send one of uint8"),
        (packed(dtype="uint16"), "byte order null"),
        (packed(number=-1), "frame number -1"),
        (packed(number=1.5), "frame number 1.5"),
        (packed(time_s="now"), 'time "now"'),
        (b'{"time_s": NaN, ' + packed()[1:], "time NaN"),
        (packed(shape=[6, 11]), "60 bytes, its header says 66"),
        (packed(kind="visits", n=12, byte_order="little"), "outside of its 6 x 10"),
        (packed(kind="visits"), "null visits"),
    ],
)
def test_wrong_messages_are_refused_in_words(part, says):
    with pytest.raises(InputError) as caught:
        parse_frame(parse_header(part), bytes(range(100, 160)))
    assert says in str(caught.value)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_message_says_what_of_the_recording_it_cannot_use():
    known, notes = parse_acquisition({**HEADER, "pixel_size_um": 0.005, "frame_time_s": -1, "pixel_size_nm": 5})
    assert (known.pixel_size_um, known.frame_time_s) == (0.005, None)
    assert notes == [
        'the header\'s field "pixel_size_nm" is not known and ignored',
        "the header's frame_time_s is -1, not a number above 0, and ignored",
    ]


def send(socket, number, content, **more):
    header = {**HEADER, "number": number, "shape": list(content.shape), "dtype": str(content.dtype), **more}
    socket.send_multipart([json.dumps(header).encode(), content.tobytes()])


def test_zeromq_goes_on_after_wrong_messages_and_reconnects():
    zmq = pytest.importorskip("zmq", reason="needs pyzmq")
    source = open_source("zmq:tcp://127.0.0.1:*")
    assert source.name.startswith("tcp://127.0.0.1:")
    seen = Watched(source)
    with zmq.Context() as context:
        for first in (0, 4):  # the sender is started twice
            with context.socket(zmq.PUSH) as socket:
                socket.connect(source.name)
                send(socket, first, FRAMES[first], pixel_size_um=0.01 + 0.01 * first)
                socket.send(b"nonsense")
                socket.send_multipart([packed(), FRAMES[0].tobytes(), b"more"])
                send(socket, first + 1, FRAMES[first + 1])
                seen.wait(first // 2 + 2)
        with context.socket(zmq.PUSH) as socket:
            socket.connect(source.name)
            socket.send_multipart([packed(kind="end")])
            seen._thread.join(5)
    found, notices = split(seen.items)
    assert [a.number for a in found] == [0, 1, 4, 5]
    np.testing.assert_array_equal(np.stack([a.content for a in found]), FRAMES[[0, 1, 4, 5]])
    assert source.acquisition.pixel_size_um == 0.01
    assert sum(n.n_dropped for n in notices) == 4
    texts = "\n".join(n.text for n in notices)
    assert texts.count("a sender connected") >= 2
    assert texts.count("a message has 3 parts") == 2
    assert texts.count("no JSON") == 2
    assert "frame 4 has the pixel_size_um 0.05, the first 0.01 um; what the first said is used" in texts
    assert not seen._thread.is_alive()


def test_zeromq_says_when_everybody_can_send_and_frees_its_address():
    pytest.importorskip("zmq", reason="needs pyzmq")
    source = open_source("zmq:tcp://0.0.0.0:*")
    first = next(iter(source))
    assert "open to every computer" in first.text
    source.close()
    with pytest.raises(ConfigError, match="cannot be used"):
        open_source("zmq:nonsense")


def test_zeromq_subscribes_to_a_publisher():
    zmq = pytest.importorskip("zmq", reason="needs pyzmq")
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        seen = Watched(open_source(f"zmq-sub:tcp://127.0.0.1:{port}"))
        seen.wait(1, Notice)
        for number in range(200):
            send(publisher, number, FRAMES[0])
            time.sleep(0.005)
            if any(isinstance(i, Arrival) for i in list(seen.items)):
                break
        np.testing.assert_array_equal(seen.wait(1)[0].content, FRAMES[0])
        seen.close()


# -- played movies, the simulation, and what a source may be ----------------------------------------------------------


def test_movies_are_played_at_their_rate_and_go_on_where_an_earlier_run_ended(tmp_path):
    np.save(tmp_path / "m.npy", FRAMES)
    started = time.monotonic()
    found, notices = split(open_source(tmp_path / "m.npy", fps=100.0, after=1))
    assert 0.05 <= time.monotonic() - started < 2
    assert [a.number for a in found] == [2, 3, 4, 5, 6, 7]
    assert found[0].time_s is None
    assert not notices
    source = open_source(tmp_path / "m.npy", reading={"frames": "1:8:3", "crop": "0:3,0:10"})
    assert source.waits
    found, _ = split(source)
    assert [a.number for a in found] == [1, 4, 7]
    np.testing.assert_array_equal(found[2].content, FRAMES[7, :3])


def test_clock_makes_up_for_a_second_at_most_and_stops_at_once():
    clock = Clock(1000.0)
    assert clock.wait()
    time.sleep(0.05)
    started = time.monotonic()
    assert all(clock.wait() for _ in range(50))  # those that are overdue come at once
    assert time.monotonic() - started < 0.04
    slow = Clock(0.01)
    slow.wait()
    threading.Timer(0.02, slow.stop).start()
    assert not slow.wait()
    with pytest.raises(ConfigError, match="--simulate"):
        Clock(0.0)


def test_endless_battery_starts_like_the_simulated_movie_and_turns_round():
    battery, movie = EndlessBattery((24, 32), cycle=6, seed=3), simulate("battery", shape=(24, 32), n_frames=6, seed=3)
    for t in range(6):
        np.testing.assert_array_equal(battery.frame(t), movie.movie.frame(t))
        np.testing.assert_array_equal(battery.truth(t), movie.truth[t])
    for number, t in ((6, 4), (9, 1), (10, 0), (11, 1), (10**9, 0)):
        np.testing.assert_array_equal(battery.truth(number), movie.truth[t])
    assert (battery.frame(11) != battery.frame(1)).mean() > 0.5  # other noise


def test_simulation_goes_on_with_the_same_frames():
    source = open_source("simulation", fps=1000.0, size=(24, 32), seed=1, after=6)
    items = iter(source)
    arrival = next(items)
    assert (arrival.number, arrival.time_s) == (7, 7 / 1000)
    np.testing.assert_array_equal(arrival.content, EndlessBattery((24, 32), seed=1, n_empty=20).frame(7))
    source.close()
    assert list(items) == []


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("nowhere", {}, "does not exist"),
        (".", {"size": (20, 20)}, "--size is about the simulation"),
        (".", {"fps": 25.0}, "--simulate is about movie files"),
        ("zmq", {"fps": 25.0}, "--simulate is about movie files"),
        ("zmq", {"reading": {"crop": "0:4,0:4", "luminance": False}}, "--crop is about reading files"),
        ("simulation", {"new_only": True}, "--new-only is about"),
        (".", {"reading": {"frames": "0:3"}}, "is about a movie file"),
    ],
)
def test_options_that_do_not_fit_the_source_are_refused(text, options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, InputError), match=says):
        open_source(text, **options)


# -- order ------------------------------------------------------------------------------------------------------------


def stream(*items):
    """Arrivals from (number, time) pairs; notices as they are."""
    return [i if isinstance(i, Notice) else Arrival(FRAMES[0], (6, 10), *i) for i in items]


def test_order_counts_missing_numbers_but_not_those_told_already():
    found, notices = split(Orderly(stream((0, None), (1, None), (3, None), Notice("f4 torn", 1), (5, None), (9, None))))
    assert [a.number for a in found] == [0, 1, 3, 5, 9]
    assert [(n.text, n.n_dropped) for n in notices] == [
        ("frame 2 never came", 1),
        ("f4 torn", 1),
        ("3 of the frames 6 to 8 never came", 3),
    ]


def test_order_counts_on_where_a_sender_starts_again():
    found, notices = split(Orderly(stream((5, 100.0), (6, 100.5), (0, 7.0), (1, 7.5), (3, 8.5))))
    assert [a.number for a in found] == [5, 6, 7, 8, 10]
    assert [a.time_s for a in found] == [0.0, 0.5, 1.0, 1.5, 2.5]
    assert [n.text.split(" ")[0:2] for n in notices] == [["frame", "numbers"], ["the", "clock"], ["frame", "9"]]
    assert sum(n.n_dropped for n in notices) == 1


def test_order_does_not_take_a_wild_number_for_lost_frames():
    found, notices = split(Orderly(stream((0, None), (2**50, None), (2**50 + 2, None))))
    assert [a.number for a in found] == [0, 1, 3]
    assert [n.n_dropped for n in notices] == [0, 1]
    assert notices[0].text.startswith(f"frame numbers jumped from 0 to {2**50}")


def test_order_keeps_time_ascending_whatever_the_clock_does():
    found, notices = split(Orderly(stream((0, 1.0), (1, 2.0), (2, 1.5), (3, 2.5), (4, None), (5, 4.5))))
    assert [a.time_s for a in found] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(notices) == 2
    found, notices = split(Orderly(stream((0, None), (1, 5.0), (2, 6.0))))
    assert [a.time_s for a in found] == [None, None, None]
    assert len(notices) == 1
    found, notices = split(Orderly(stream((4, 9.0), (6, 1.0)), frame_time_s=0.5))
    assert [a.time_s for a in found] == [2.0, 3.0]
    assert [n.n_dropped for n in notices] == [1]


def test_order_takes_one_wrong_number_or_time_for_a_slip():
    numbers, times = [0, 1, 2, 3, 0, 5, 10**6, 7, 8], [0.0, 0.1, 0.02, 0.3, 0.4, 0.5, 0.6, 0.0, 0.8]
    found, notices = split(Orderly(stream(*zip(numbers, times, strict=True))))
    assert [a.number for a in found] == list(range(9))
    np.testing.assert_allclose([a.time_s for a in found], np.arange(9) / 10)
    assert len(notices) == 4
    assert sum(n.n_dropped for n in notices) == 0


def test_order_goes_on_from_an_earlier_run():
    order = Orderly(stream((8, 14.0), (9, 15.0)), after=Place(number=6, time_s=2.0, origin_s=10.0))
    found, notices = split(order)
    assert [(a.number, a.time_s) for a in found] == [(8, 4.0), (9, 5.0)]
    assert [n.text for n in notices] == ["frame 7 never came"]
    assert order.place == Place(9, 5.0, 10.0)
