"""Killed at each operation on a file, and at any moment, a run is resumed with the same bits, and nothing stays."""

import random
import signal
import socket
import time
from collections import Counter

import pytest
from reliability_run import distil, finish, leftovers, result_of, start

from hf_lgm import DistilledSet
from hf_lgm.distillation.checkpoint_folders import all_checkpoints, damage_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbs: its result, and how many operations it takes."""
    root = tmp_path_factory.mktemp("whole") / "run"
    process = start(root)
    assert finish(process) == 0, process.said()
    assert leftovers(root) == []
    return root, result_of(root), process.operations()


def state_of(root, wanted):
    """What a reader finds after a kill; never something that is neither whole nor absent."""
    for folder in all_checkpoints(root / "out"):
        assert damage_of(folder) is None
    try:
        found = DistilledSet.from_pretrained(root / "out")
    except FileNotFoundError:
        return "no set"
    assert found.config["settings"] == wanted.config["settings"] and found.fingerprint == wanted.fingerprint
    return "whole set"


@pytest.mark.parametrize("count", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_at_each_operation_on_a_file(whole, tmp_path, count):
    root_of_whole, result, (total, *written) = whole
    points = [(number, False) for number in range(1, total + 1)] + [(number, True) for number in written]
    seed = random.randrange(2**32)
    points = points if count is None else random.Random(seed).sample(points, count)
    states, wanted = Counter(), DistilledSet.from_pretrained(root_of_whole / "out")
    for number, torn in points:
        root, point = tmp_path / f"{number}-{torn}", f"operation {number} of {total}, torn: {torn}, seed {seed}"
        assert finish(start(root, kill_at=number, torn=torn)) == -signal.SIGKILL, point
        states[state_of(root, wanted)] += 1
        process = start(root)
        assert finish(process) == 0, f"{point}: {process.said()}"
        assert result_of(root) == result, point
        assert leftovers(root) == [] and len(all_checkpoints(root / "out")) == 1, point
    print(f"{len(points)} kills at {total} operations, {len(written)} of them writes: {dict(states)}; none lost")


@pytest.mark.parametrize("count", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_at_random_moments_of_a_longer_run(tmp_path, count):
    """Each run is killed again and again, until it comes through."""

    def run(root, seconds):
        begun, process = time.monotonic(), start(root, max_steps=40, save_steps=3)
        process.join(seconds)
        process.kill()
        process.join()
        return process.exitcode, time.monotonic() - begun

    status, seconds = run(tmp_path / "whole", 120)  # the first takes longest: there is much to load
    assert status == 0
    result, kills, runs = result_of(tmp_path / "whole"), 0, 0
    while kills < count:
        root, is_whole = tmp_path / f"{runs}", True
        while (ended := run(root, random.uniform(0, seconds)))[0] != 0:
            assert ended[0] == -signal.SIGKILL
            kills, is_whole = kills + 1, False
        seconds, runs = min(seconds, ended[1]) if is_whole else seconds, runs + 1
        assert result_of(root) == result and leftovers(root) == [], f"{kills} kills"
    print(f"{kills} kills of {runs} runs of {seconds:.1f} s; none lost")


def free_port():
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def start_two(root, killed=0, **settings):
    port = free_port()
    return [
        start(root, rank, 2, port, **(settings if rank == killed else {**settings, "kill_at": None}))
        for rank in range(2)
    ]


@pytest.mark.parametrize("count", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_one_of_two_processes(tmp_path, count):
    """The other one ends with a sentence; two new ones go on."""
    two = start_two(tmp_path / "whole")
    assert [finish(each) for each in two] == [0, 0], two[0].said() + two[1].said()
    result, (total, *_) = result_of(tmp_path / "whole"), two[0].operations()
    numbers = random.sample(range(total // 2, total + 1), count)  # while features are made, both may
    for number in numbers:
        root = tmp_path / f"{number}"
        first, second = start_two(root, kill_at=number)
        assert (finish(first), finish(second)) == (-signal.SIGKILL, 1), f"operation {number}: {second.said()}"
        assert "error: Another process of this run has ended" in second.said()
        assert "Traceback" not in second.said() and "gloo" not in second.said()
        two = start_two(root)
        assert [finish(each) for each in two] == [0, 0], two[0].said()
        assert result_of(root) == result and leftovers(root) == [], f"operation {number}"
    print(f"{count} kills of the first of two processes; none lost")


def test_two_runs_in_one_folder(tmp_path):
    """One of them works, whichever is faster; the other says which it is."""
    pair = [start(tmp_path / "run", max_steps=30, save_steps=3), None]
    while not (tmp_path / "run/out/run.lock").exists():
        time.sleep(0.02)
    pair[1] = start(tmp_path / "run", rank=1, max_steps=30, save_steps=3)
    assert [finish(each) for each in pair] == [0, 1]
    assert f"is in use by process {pair[0].pid} on {socket.gethostname()} since 20" in pair[1].said()
    assert "Traceback" not in pair[1].said() and leftovers(tmp_path / "run") == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_end_a_run_save_it(tmp_path, signum):
    process = start(tmp_path / "run", max_steps=400, save_steps=400)
    while not list((tmp_path / "run/out").glob("runs/frames/*")):
        assert process.is_alive(), process.said()
        time.sleep(0.02)
    process._popen._send_signal(signum)
    assert finish(process) == (130 if signum == signal.SIGINT else -signum), process.said()
    [saved] = all_checkpoints(tmp_path / "run/out")
    assert damage_of(saved) is None and "Traceback" not in process.said()
    assert signum != signal.SIGINT or f"stopped: {saved} is saved" in process.said()
    assert leftovers(tmp_path / "run") == []


def stop_twice(root, **settings):
    """A run in which a second Ctrl-C comes while the first is being obeyed."""
    import os

    from transformers import TrainerCallback

    class Impatient(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            for _ in range(2 * (state.global_step == 2)):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)

    distil(root, callbacks=[Impatient()], **settings)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = start(tmp_path / "run", run=stop_twice, max_steps=9, save_steps=9)
    assert finish(process) == 130
    assert "stopped: The second time; nothing more was saved." in process.said() and "Traceback" not in process.said()
    assert all_checkpoints(tmp_path / "run/out") == [] and leftovers(tmp_path / "run") == []
