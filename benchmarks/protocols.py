"""The paper's probe protocol beside the fast one: accuracy and time, on the same sets through several backbones.

python benchmarks/protocols.py --sets SET --model MODEL_A MODEL_B --dataset PATH_OR_ID

The paper's has two differences: fresh views in every epoch, and a learning rate of 1e-3 * batch / 256. The row between
has the first alone. The fresh views are encoded once for both; each row's time has that of its encoding.
"""

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from hf_lgm import DistilledSet, FrozenBackbone
from hf_lgm.cli.arguments import DataArguments, LoadingArguments, ModelArguments
from hf_lgm.cli.inputs import feature_extractor, load_backbones, load_data
from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command
from hf_lgm.evaluation.evaluator import Evaluator
from hf_lgm.evaluation.probe import ViewFeatures, probe_logits, train_probes
from hf_lgm.settings import ProbeProtocol

PAPER, FAST = ProbeProtocol.named("paper"), ProbeProtocol.named("fast")
ROWS = {"fast": FAST, "fresh views, lr of fast": replace(PAPER, learning_rate=FAST.learning_rate), "paper": PAPER}


@dataclass
class ProtocolArguments:
    """What is measured."""

    sets: list[str] = field(default_factory=list, metadata={"help": "Distilled or baseline sets."})


def encode(backbone: FrozenBackbone, images: DistilledSet, protocol: ProbeProtocol, batch: int) -> torch.Tensor:
    """Features of all views that a protocol asks for, of shape (views, seeds, n, D)."""
    features = ViewFeatures(backbone, [images] * protocol.seeds, images.views, batch)
    return torch.stack([features(view) for view in range(protocol.views)])


def measure(evaluator: Evaluator, images: DistilledSet) -> list[dict]:
    """One row per protocol: mean, standard deviation and seconds."""
    backbone, rows = evaluator.backbone, []
    y = images.labels_as(evaluator.eval_images.class_names).to(evaluator.scored.y)
    encoded: dict[int, tuple[torch.Tensor, float]] = {}
    for name, protocol in ROWS.items():
        if protocol.views not in encoded:
            started = time.perf_counter()
            z = encode(backbone, images, protocol, evaluator.extractor.batch_size)
            encoded[protocol.views] = z, time.perf_counter() - started
        z, seconds = encoded[protocol.views]
        started = time.perf_counter()
        W, b = train_probes(z.__getitem__, y, evaluator.eval_images.num_classes, protocol)
        seconds += time.perf_counter() - started
        result = evaluator.scored.result(name, backbone.name, protocol.description, probe_logits(W, b))
        rows.append({"protocol": name, "mean": result.mean, "std": result.std, "seconds": round(seconds, 1)})
    return rows


def main() -> None:
    """Measure every set through every backbone; print the table and write JSON."""
    types = (ModelArguments, DataArguments, LoadingArguments, ProtocolArguments)
    model_args, data_args, args, protocol_args = parse_arguments(types, __doc__, sys.argv[1:])
    prepare_torch()
    backbones = load_backbones(model_args, model_args.model)
    extractor = feature_extractor(args)
    _, eval_images = load_data(data_args, data_args.choose(model_args.model), backbones, args)
    found = []
    print("| set | backbone | fast | fresh views, lr of fast | paper | agree | time of paper / fast |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in protocol_args.sets:
        images = DistilledSet.from_pretrained(name)
        for backbone in backbones:
            backbone.to(extractor.accelerator.device)
            rows = measure(Evaluator(backbone, eval_images, extractor=extractor), images)
            fast, paper = rows[0], rows[-1]
            agree = abs(fast["mean"] - paper["mean"]) <= max(paper["std"], 1)
            cells = [f"{row['mean']:.1f} ± {row['std']:.1f} ({row['seconds']:.0f} s)" for row in rows]
            ratio = f"{paper['seconds'] / fast['seconds']:.1f}"
            line = [Path(name).name, backbone.name, *cells, "yes" if agree else "no", ratio]
            print(f"| {' | '.join(line)} |", flush=True)
            found.append({"set": Path(name).name, "backbone": backbone.name, "rows": rows})
    folder = Path(args.output_dir or "outputs/protocols")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "protocols.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
