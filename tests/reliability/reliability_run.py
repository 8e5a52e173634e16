"""Small runs in processes of their own, which are forked from one that has loaded all there is to load."""

import multiprocessing
import os
import signal
import sys
import traceback
from pathlib import Path

import pyarrow.parquet  # noqa: F401  (what a run loads late)
import safetensors.torch
import torch
import transformers.integrations  # noqa: F401
from conftest import SIDE, make_dataset, make_vit

import hf_lgm.features.cache
from hf_lgm import FrozenBackbone, LGMConfig, LGMDistiller, Preprocessing
from hf_lgm.cli.parsing import run_command
from hf_lgm.distillation.checkpoint_folders import all_checkpoints

# The server imports this module, and finds it by the path that it inherits.
_PATHS = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[1]),
    *os.environ.get("PYTHONPATH", "").split(os.pathsep),
]
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, _PATHS)))
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["reliability_run"])

BACKBONE = FrozenBackbone(make_vit(), Preprocessing(SIDE, resize_ratio=1.0), name="tiny")
DATASET = make_dataset(per_class=3)

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "tests.save_file"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Operations:
    """Counts what this process does to files below a folder, and kills it before one of these, if asked.

    Args:
        root (`Path`): The folder.
        kill_at (`int`, *optional*): Number of the operation.
        torn (`bool`): Whether a file that is to be written then is left half written.
    """

    def __init__(self, root, kill_at=None, torn=False):
        self.root, self.kill_at, self.torn, self.count, self.is_busy = str(root), kill_at, torn, 0, False
        self.written = []  # numbers of operations that write a file
        save_file = safetensors.torch.save_file

        def audited(tensors, path, metadata=None):  # written by Rust, which Python does not see
            sys.audit("tests.save_file", str(path))
            save_file(tensors, path, metadata)

        safetensors.torch.save_file = audited
        sys.addaudithook(self.note)

    def note(self, event, args):
        if self.is_busy or (event != "open" and event not in _CHANGES) or isinstance(args[0], int):  # a handle
            return
        path = os.fsdecode(args[0])
        writes = event == "tests.save_file" or (event == "open" and bool(args[2] & _WRITES))
        is_below = path.startswith(self.root) or not os.path.isabs(path)  # of `rmtree`, relative to a folder's handle
        if not is_below or (event == "open" and not writes):
            return
        self.count += 1
        if writes:
            self.written.append(self.count)
        if self.count == self.kill_at:
            self.is_busy = True
            if self.torn and writes and not os.path.isdir(path):  # a file without a name is opened by its folder's
                Path(path).write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)


def distil(root, max_steps=3, resume="auto", callbacks=(), **settings):
    """A run in `root/out`, with features cached in `root/cache`."""
    hf_lgm.features.cache.cached_assets_path = lambda *parts: Path(root, "cache", *parts[1:])
    settings = {"save_steps": 1, "save_total_limit": 1, "layers": 0, "view_sizes": [], "init": "noise", **settings}
    args = LGMConfig(str(Path(root, "out")), max_steps=max_steps, views_per_step=1, disable_tqdm=True, **settings)
    distiller = LGMDistiller(BACKBONE, args, DATASET, callbacks=list(callbacks))
    distiller.train(resume)
    distiller.save_model()
    return distiller


def _child(root, report, environment, kill_at, torn, run, settings):
    """Ends as a command does, with what it says in a file, and how many operations there were in another."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    said = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1), os.dup2(said, 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    operations = Operations(root, kill_at, torn)
    try:
        run_command(lambda: run(root, **settings))
    except SystemExit as error:
        print(error.code if isinstance(error.code, str) else "", file=sys.stderr)
        os._exit(error.code if isinstance(error.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    operations.is_busy = True
    Path(f"{report}.operations").write_text(f"{operations.count} {' '.join(map(str, operations.written))}")


def start(root, rank=0, world=1, port=0, kill_at=None, torn=False, run=distil, report=None, **settings):
    """Begin a run; what it says goes to the file `report`, and is asked for by `said`."""
    environment = {"ACCELERATE_USE_CPU": "true"}
    if world > 1:
        environment |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {name: str(value) for name, value in environment.items()}
    Path(root).mkdir(parents=True, exist_ok=True)
    report = str(report or f"{root}.said-{rank}")
    process = CONTEXT.Process(target=_child, args=(root, report, environment, kill_at, torn, run, settings))
    process.start()
    process.said = lambda: Path(report).read_text()
    process.operations = lambda: [int(number) for number in Path(f"{report}.operations").read_text().split()]
    return process


def finish(process, seconds=120):
    """Its exit status."""
    process.join(seconds)
    assert process.exitcode is not None, f"still running after {seconds} s: {process.said()}"
    return process.exitcode


def result_of(root):
    """The bytes that a run is for: its last checkpoint's tensors, and the set's images."""
    out = Path(root, "out")
    last = all_checkpoints(out)[-1] / "synthetic.safetensors"
    return last.read_bytes(), (out / "data/train-00000-of-00001.parquet").read_bytes()


def leftovers(root):
    """Whatever should not be there after a run."""
    hidden = [str(path) for path in Path(root).rglob(".*")] + [str(path) for path in Path(root).rglob("*.tmp")]
    return hidden + [str(path) for path in Path(root).rglob("run.lock")]
