"""Files that are whole or not there, and claims on folders."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from disk import DEATHS, ERRORS, SHORT, Disk, Killed

from gmrm_gpu import claim as claims
from gmrm_gpu import durable
from gmrm_gpu.claim import Holder, claim, holder
from gmrm_gpu.durable import sync_folder, sync_tree, whole_file, write_all, write_bytes
from gmrm_gpu.errors import OutputError

OLD, NEW = b"old", bytes(range(256)) * 5


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(OLD)
    with whole_file(path) as part:
        part.write_bytes(NEW)
        assert path.read_bytes() == OLD
        assert part.name.startswith(".")
    assert path.read_bytes() == NEW
    write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_share_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with whole_file(path) as one, whole_file(path) as other:
        one.write_bytes(OLD)
        other.write_bytes(NEW)
    assert path.read_bytes() == OLD  # the outer one was complete last
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OutputError("TIFF cannot hold this")])
def test_whatever_is_raised_inside_stays_what_it_is(tmp_path: Path, error: BaseException) -> None:
    def write() -> None:
        with whole_file(tmp_path / "a.bin") as part:
            part.write_bytes(NEW)
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_the_rights_that_any_new_file_has(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", NEW)
    (tmp_path / "b").write_bytes(NEW)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^cannot write .*/a: No such file or directory$"):
        write_bytes(tmp_path / "absent" / "a", NEW)
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputError, match=r"^cannot write .*/b: Is a directory$"):
        write_bytes(tmp_path / "b", NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def count_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    disk = Disk()
    monkeypatch.setattr(durable, "os", disk)
    write_bytes(path, NEW)
    assert disk.calls == ["open", "write", "open", "fsync", "replace", "open", "fsync"]
    return len(disk.calls)


def test_every_call_that_may_fail_fails_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    n_calls = count_calls(path, monkeypatch)
    for fault in (*ERRORS, *SHORT):
        for at in range(n_calls):
            path.write_bytes(OLD)
            disk = Disk(at, fault)
            monkeypatch.setattr(durable, "os", disk)
            fine = fault in SHORT and (disk.fault == "half written" or at != 1)
            if fine:
                write_bytes(path, NEW)
                assert path.read_bytes() == NEW
            else:
                with pytest.raises(OutputError, match=r"^cannot write .*/a: [A-Z][^\n]+$"):
                    write_bytes(path, NEW)
                # Only where the last flush fails is the new file there already.
                assert path.read_bytes() == (NEW if at >= 5 else OLD)
            assert list(tmp_path.iterdir()) == [path]


def test_after_a_kill_or_a_power_cut_the_file_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    n_calls = count_calls(path, monkeypatch)
    for fault in DEATHS:
        for at in range(n_calls):
            path.write_bytes(OLD)
            monkeypatch.setattr(durable, "os", Disk(at, fault))
            with pytest.raises(Killed):
                write_bytes(path, NEW)
            assert path.read_bytes() in (OLD, NEW), (fault, at)
    # What is told to be written stays: here the process dies after the last flush.
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("without", ["fsync of the file", "fsync of the folder"])
def test_the_power_cut_of_these_tests_sees_a_missing_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(OLD)
    skipped = "_sync" if without == "fsync of the file" else "sync_folder"
    monkeypatch.setattr(durable, skipped, lambda *args: None)
    disk = Disk()
    monkeypatch.setattr(durable, "os", disk)
    write_bytes(path, NEW)
    disk.fault = "power cut, names kept" if skipped == "_sync" else "power cut before"
    with pytest.raises(Killed):
        disk._die()
    assert path.read_bytes() == (bytes(len(NEW)) if skipped == "_sync" else OLD)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
def test_a_full_disk_for_real(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from gmrm_gpu.durable import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_bytes(sys.argv[1], bytes(1000))
try:
    write_bytes(sys.argv[1], bytes(1001))
except OSError as error:
    print(type(error).__name__, error)
"""
    path = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == f"OutputError cannot write {path}: File too large\n"
    assert path.read_bytes() == bytes(1000)
    assert list(tmp_path.iterdir()) == [path]


def test_write_all_goes_on_after_a_part() -> None:
    taken = bytearray()

    def write(data: memoryview) -> int:
        taken.extend(data[:7])
        return min(7, len(data))

    write_all(write, NEW)
    assert taken == NEW
    with pytest.raises(OSError, match="space"):
        write_all(lambda data: 0, NEW)
    with pytest.raises(OSError, match="space"):
        write_all(lambda data: None, NEW)


def test_a_disk_that_cannot_flush_folders_is_used_and_one_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(NEW)
    (tmp_path / "sub" / "a").chmod(0o444)
    sync_tree(tmp_path)

    class NoFolders(Disk):
        code = errno.EINVAL

        def fsync(self, handle: int) -> None:
            if self._names[handle].is_dir():
                raise OSError(self.code, os.strerror(self.code))

    monkeypatch.setattr(durable, "os", NoFolders())
    sync_folder(tmp_path)
    sync_tree(tmp_path)
    monkeypatch.setattr(NoFolders, "code", errno.EIO)
    for sync in (sync_folder, sync_tree):
        with pytest.raises(OSError, match="Input/output error"):
            sync(tmp_path)


# -- claims -----------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from gmrm_gpu.claim import claim
held = claim(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_claim_turns_others_away_and_says_who_has_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == other.pid
        with pytest.raises(OutputError, match=rf"stop that one first \(process {other.pid} on .+, since 20..-.+Z\)$"):
            claim(tmp_path)
        other.kill()
        other.wait()
    # Killed, it leaves its file, and holds nothing.
    assert (tmp_path / "lock").exists()
    assert holder(tmp_path) is None
    with claim(tmp_path):
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()
    assert list(tmp_path.iterdir()) == []
    assert holder(tmp_path) is None


def test_a_claim_waits_out_a_look_of_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = claims._lock

    def busy_at_first(handle: int) -> bool | None:
        seen.append(handle)
        return False if len(seen) < 3 else real(handle)

    monkeypatch.setattr(claims, "_lock", busy_at_first)
    claim(tmp_path).close()
    assert len(seen) == 3


def test_a_claim_on_a_file_that_was_just_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = claims._lock
    first = True

    def removed_before(handle: int) -> bool | None:
        nonlocal first
        if first:  # its holder ends between our opening the file and locking it
            (tmp_path / "lock").unlink()
            first = False
        return real(handle)

    monkeypatch.setattr(claims, "_lock", removed_before)
    with claim(tmp_path) as held:
        assert held.path.exists()
        with pytest.raises(OutputError, match="going on"):
            claim(tmp_path)


def test_a_claim_needs_a_folder_that_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^cannot write .*lock: No such file"):
        claim(tmp_path / "absent")


def test_a_claim_that_outlives_its_folder_ends_quietly(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    with claim(folder) as held:
        folder.rename(tmp_path / "b")
    held.close()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["lock"]


def test_without_locks_the_name_in_the_file_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_lock", lambda handle: None)
    here = claims.socket.gethostname()
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()

    def told(pid: int, host: str) -> None:
        (tmp_path / "lock").write_text(json.dumps({"pid": pid, "host": host, "since": "2026-01-01T00:00:00Z"}))

    for pid, host in ((os.getppid(), here), (done.pid, "elsewhere")):
        told(pid, host)
        with pytest.raises(OutputError, match=rf"process {pid} on {host}, .*knows no locks; if it is gone, remove it$"):
            claim(tmp_path)
        assert holder(tmp_path) == Holder(pid, host, "2026-01-01T00:00:00Z")
    for pid in (done.pid, os.getpid()):  # a process that has ended; one that had our number in an earlier container
        told(pid, here)
        claim(tmp_path).close()
    (tmp_path / "lock").write_text("{nothing")
    assert str(holder(tmp_path)) == "an unknown process"
    claim(tmp_path).close()
