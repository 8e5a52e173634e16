"""One and two processes of one thread each, on the same work: seconds per step.

python benchmarks/processes.py --architecture mobilenet --classes 10
"""

import os
import subprocess
import sys
from dataclasses import dataclass, field

import torch
from speed import ARCHITECTURES, Meter, make_backbone, measure_ours, show

from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command


@dataclass
class ProcessesArguments:
    """What is measured."""

    architecture: str = field(default="mobilenet", metadata={"help": f"One of {', '.join(ARCHITECTURES)}."})
    processes: list[int] = field(default_factory=lambda: [1, 2, 1, 2], metadata={"help": "One run of each."})
    classes: int = field(default=10, metadata={"help": "Of one image each, with ten views."})
    steps: int = field(default=30, metadata={"help": "Timed steps of each run."})


def launch(processes: int) -> float:
    """Seconds per step of so many processes, each of which is this script."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": str(not torch.cuda.is_available())}
    done = subprocess.run([*launcher, *sys.argv], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print a table; a process that was launched for it prints its seconds alone."""
    (own,) = parse_arguments([ProcessesArguments], __doc__, sys.argv[1:])
    prepare_torch()
    if "LOCAL_RANK" in os.environ:
        torch.set_num_threads(1)
        meter = Meter()
        backbone = make_backbone(own.architecture, torch.float32, meter.device)
        seconds = measure_ours(meter, backbone, own.classes, 10, 1, own.steps, own.classes)["seconds"]
        if os.environ["RANK"] == "0":
            print(seconds)
        return
    rows = [{"processes": processes, "seconds": launch(processes)} for processes in own.processes]
    show([{**row, "times as fast": rows[0]["seconds"] / row["seconds"]} for row in rows])


if __name__ == "__main__":
    run_command(main)
