"""One run in a folder at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import make_dataset

from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.distillation.run_lock import GONE_AFTER, Holder, RunLock
from hf_lgm.processes import Process


def lock_of(process, folder, since="2026-01-02 03:04:05"):
    folder.mkdir(exist_ok=True)
    (folder / "run.lock").write_text(json.dumps({"process": vars(process), "since": since}))


def process_of(pid):
    """Another process of this machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Process(Process.this().host, pid, fields[19], Process.this().space)


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_another_process_is_named_and_a_run_does_not_begin(tmp_path, sleeper, backbone):
    lock_of(process_of(sleeper.pid), tmp_path / "out")
    distiller = LGMDistiller(backbone, LGMConfig(str(tmp_path / "out"), max_steps=1), make_dataset())
    host = Process.this().host
    message = rf"out is in use by process {sleeper.pid} on {host} since 2026-01-02 03:04:05: wait for it, stop it"
    for attempt in (distiller.train, distiller.save_model, distiller.remove_earlier_run):
        with pytest.raises(FileExistsError, match=message):
            attempt()
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == ["run.lock"]


@pytest.mark.parametrize("reaped", [False, True])
def test_a_lock_of_a_killed_process_is_taken_over(tmp_path, sleeper, reaped):
    lock_of(process_of(sleeper.pid), tmp_path / "out")
    sleeper.kill()
    if reaped:
        sleeper.wait()
    else:
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still listed
    with RunLock(tmp_path / "out"):
        assert Holder.read(tmp_path / "out/run.lock").is_this_process
    assert not (tmp_path / "out").exists()  # nothing came into it


def test_a_number_that_was_given_to_another_process_is_no_holder(tmp_path, sleeper):
    holder = process_of(sleeper.pid)
    lock_of(Process(holder.host, holder.pid, "1", holder.space), tmp_path / "out")
    with RunLock(tmp_path / "out"):
        pass


@pytest.mark.parametrize("change", [{"host": "another"}, {"space": "1"}])
def test_of_another_machine_the_time_tells(tmp_path, change, caplog):
    lock_of(Process(**{**vars(Process.this()), "pid": 1, **change}), tmp_path / "out")
    advice = r"the folder is free in 10 minutes, or once .*out/run.lock is removed\."
    with pytest.raises(FileExistsError, match=f"If it does not run any more, {advice}"):
        RunLock(tmp_path / "out").acquire()
    touched = time.time() - GONE_AFTER - 60
    os.utime(tmp_path / "out/run.lock", (touched, touched))
    with RunLock(tmp_path / "out"):
        assert Holder.read(tmp_path / "out/run.lock").is_this_process
    assert "of process 1 on" in caplog.text and "was not touched for 11 minutes: it is taken over" in caplog.text


def test_a_holder_touches_its_lock_while_it_holds_it(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_lgm.distillation.run_lock._TOUCHED_EVERY", 0.01)
    (tmp_path / "notes.txt").write_text("mine")
    path, long_ago = tmp_path / "run.lock", (1.0, 1.0)
    with RunLock(tmp_path):
        os.utime(path, long_ago)
        touched = time.monotonic() + 20
        while path.stat().st_mtime == 1.0 and time.monotonic() < touched:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 60
    path.write_text("of another run")
    os.utime(path, long_ago)
    time.sleep(0.1)
    assert path.stat().st_mtime == 1.0 and not [t for t in threading.enumerate() if t.name == "hf_lgm-run-lock"]


def test_what_is_no_lock_is_said(tmp_path):
    (tmp_path / "run.lock").write_text("mine")
    with pytest.raises(FileExistsError, match="run.lock is no lock of ours: remove it if no run is on there"):
        RunLock(tmp_path).check_free()


def test_it_is_let_go_of_at_the_end_and_after_errors(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(LookupError), RunLock(tmp_path / "out"):
        with RunLock(tmp_path / "out"):
            pass
        assert (tmp_path / "out/run.lock").exists()
        (tmp_path / "out/notes.txt").write_text("mine")
        raise LookupError
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_lets_go_of_it(tmp_path):
    code = f"""
import os, signal
from hf_lgm.distillation.run_lock import RunLock
RunLock('{tmp_path}/out').acquire()
os.kill(os.getpid(), signal.SIGTERM)
os._exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGTERM and not (tmp_path / "out").exists()


def test_a_folder_that_was_removed_is_said(tmp_path, sleeper, caplog):
    with RunLock(tmp_path / "out") as lock:
        lock.check_held()
        assert not caplog.text
        (tmp_path / "out").rename(tmp_path / "elsewhere")
        lock.check_held()
        assert "out was removed while this run is on: what was in it is lost" in caplog.text
        lock.check_held()
        assert caplog.text.count("was removed") == 1
        lock_of(process_of(sleeper.pid), tmp_path / "out")  # another run has begun there
        with pytest.raises(FileExistsError, match=f"in use by process {sleeper.pid}"):
            lock.check_held()
    assert (tmp_path / "out/run.lock").exists()  # that of the other one
