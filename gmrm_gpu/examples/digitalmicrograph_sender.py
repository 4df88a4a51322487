"""Send the front image of DigitalMicrograph, frame by frame, to a running `gmrm-gpu live zmq`.

On the computer that analyses:       gmrm-gpu live zmq --rate 0.1
In DigitalMicrograph (GMS 3.4 or newer, which has Python): open this file, bring the live image to the front, tick
"Execute on Background Thread", and run it. Once only, in the Python of GMS:   pip install pyzmq

The two may be one computer. If they are two, the analysis must listen on the network, which anybody there can then
send to:  gmrm-gpu live zmq:tcp://0.0.0.0:5599  - and ADDRESS below must name that computer.

Without DigitalMicrograph this file sends a test pattern, so that the way of the data can be tried anywhere:

    python digitalmicrograph_sender.py --frames 100
"""

import argparse
import contextlib
import json
import time
import zlib

import numpy as np

try:
    import DigitalMicrograph as DM
except ImportError:  # not inside DigitalMicrograph
    DM = None

# ---- What you may want to change -------------------------------------------------------------------------------------

ADDRESS = "tcp://127.0.0.1:5599"  # where the analysis listens
FRAME_TIME_S = None  # None: send whenever the image has changed (camera views).
#                      0.5: send every half second (scanned views, which are overwritten line by line: give the time
#                      that one frame takes, so that a picture is made of two frames at most).
DETECTOR = None  # "HAADF", for the report
N_FRAMES = None  # stop after so many; None: until the image is closed or the script is stopped

# ----------------------------------------------------------------------------------------------------------------------

LENGTHS_UM = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3, "pm": 1e-6, "Å": 1e-4, "A": 1e-4}
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
POLL_S = 0.005
PATIENCE_S = 3  # to find the other side, at the start
WAITING = 16  # frames that may wait in this computer's memory where the other side is slow


def send_frame(socket, pixels, number, time_s=None, pixel_size_um=None, frame_time_s=None, detector=None):
    """Send one image (height, width). Returns False where the other side is too slow or absent: the frame is lost.

    The number is that of the frame in the recording. Numbers that never arrive are reported by the analysis as lost.
    """
    import zmq

    pixels = np.ascontiguousarray(pixels)
    if pixels.ndim != 2 or str(pixels.dtype) not in TYPES:
        raise ValueError(f"an image of shape {pixels.shape} and type {pixels.dtype} cannot be sent; show a grey image")
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    header = {
        "format": "gmrm-live",
        "version": 1,
        "kind": "frame",
        "shape": list(pixels.shape),
        "dtype": str(pixels.dtype),
        "byte_order": "little",
        "number": number,
        "time_s": time_s,
        "pixel_size_um": pixel_size_um,
        "frame_time_s": frame_time_s,
        "detector": detector,
    }
    known = {name: value for name, value in header.items() if value is not None}
    try:
        socket.send_multipart([json.dumps(known).encode("utf-8"), little.tobytes()], flags=zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def pixel_size_um(image):
    """Side of a pixel of a DigitalMicrograph image, micrometres; None where it has none or pixels are not square."""
    sides = []
    for dimension in (0, 1):
        _, scale, unit = image.GetDimensionCalibration(dimension, 0)
        if isinstance(unit, bytes):  # some versions give the micro sign as one byte of Latin-1
            unit = unit.decode("latin-1")
        if unit not in LENGTHS_UM:
            return None
        sides.append(scale * LENGTHS_UM[unit])
    return sides[0] if sides[0] > 0 and abs(sides[0] - sides[1]) <= 1e-3 * sides[0] else None


def front_images(image):
    """(pixels, pixel size) of a DigitalMicrograph image, again and again, until it is closed or the script stopped."""
    size, last, due = pixel_size_um(image), None, time.perf_counter()
    is_open = getattr(image, "IsValid", lambda: True)
    while is_open():
        # The array is the image's own memory: copy it before it changes.
        pixels = np.array(image.GetNumArray())
        if FRAME_TIME_S is None:
            check = zlib.crc32(pixels.tobytes())
            if check == last:
                time.sleep(POLL_S)
                continue
            last = check
        else:
            due += FRAME_TIME_S
            time.sleep(max(0.0, due - time.perf_counter()))
        yield pixels, size


def test_pattern(n_frames, fps):
    """(pixels, pixel size) of a bright disc that grows on a noisy background: three grey levels, 256 x 256."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    for t in range(n_frames):
        levels = np.where(x < 60, 45.0, 118.0)
        levels[(y - 128) ** 2 + (x - 120) ** 2 < (10 + 0.4 * t) ** 2] = 172.0
        yield np.clip(levels + rng.normal(0, 9, levels.shape), 0, 255).astype(np.uint8), 0.005
        time.sleep(1 / fps)


def send_all(frames, address, n_frames=None, frame_time_s=None, detector=None, say=print):
    """Send (pixels, pixel size) pairs; then say that the stream has ended. Returns how many were sent and lost."""
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, WAITING)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # without a listener a frame is lost, and said to be
    socket.setsockopt(zmq.LINGER, 5000)  # milliseconds that the last frames have to leave
    socket.connect(address)
    if not socket.poll(1000 * PATIENCE_S, zmq.POLLOUT):
        say(f"nobody listens at {address} yet: start `gmrm-gpu live zmq` there")
    sent, started = [0, 0], time.perf_counter()
    try:
        for number, (pixels, size) in enumerate(frames):
            if number == n_frames:
                break
            now = time.perf_counter() - started
            arrived = send_frame(socket, pixels, number, now, size, frame_time_s, detector)
            sent[0 if arrived else 1] += 1
            if not arrived and sent[1] & (sent[1] - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                say(f"{sent[1]} frames lost so far: is `gmrm-gpu live zmq` running, and fast enough?")
    finally:
        end = json.dumps({"format": "gmrm-live", "version": 1, "kind": "end"}).encode("utf-8")
        with contextlib.suppress(zmq.Again):
            socket.send_multipart([end], flags=zmq.NOBLOCK)
        socket.close()
        context.term()
    say(f"{sent[0]} frames sent, {sent[1]} lost")
    return tuple(sent)


def main(arguments=None):
    """Inside DigitalMicrograph its front image, elsewhere a test pattern."""
    if DM is not None:
        send_all(front_images(DM.GetFrontImage()), ADDRESS, N_FRAMES, FRAME_TIME_S, DETECTOR)
        return
    parser = argparse.ArgumentParser(description="Send a test pattern to a running `gmrm-gpu live zmq`.")
    parser.add_argument("--address", default=ADDRESS, help=f"where the analysis listens (default {ADDRESS})")
    parser.add_argument("--frames", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--fps", type=float, default=20.0, help="frames per second (default 20)")
    given = parser.parse_args(arguments)
    send_all(test_pattern(given.frames, given.fps), given.address, detector="test pattern")


if __name__ == "__main__":
    main()
