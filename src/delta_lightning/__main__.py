"""The `delta-lightning` command. What needs no torch is answered before anything heavy is imported."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from delta_lightning import __version__
from delta_lightning.cli.failures import rank

USAGE = """\
delta-lightning trains language models by reinforcement learning from verifiable rewards.

  delta-lightning fit --config CONFIG [--model.KEY=VALUE ...]        train, with held-out accuracy before and after
  delta-lightning validate --config CONFIG [--ckpt_path FILE]        held-out accuracy only
  delta-lightning plan --config CONFIG [--device=h100]               sizes, memory, seconds and contradictions of a run
  delta-lightning decontaminate --config CONFIG [--report=FILE]      training problems that overlap with evaluation sets
  delta-lightning export --ckpt_path CHECKPOINT --out FOLDER         a checkpoint as a model that transformers loads
  delta-lightning ablate --config CONFIG --assigners '[A, B]'        credit assigners compared on the same rollouts
  delta-lightning check package.MyPart                               a part of yours, held to the laws of its seam
  delta-lightning verify --config CONFIG --data answers.jsonl        a file of answers graded, without a model
  delta-lightning serve --config CONFIG [--port=8000]                a vLLM server for VLLMServerSampler, on this machine
  delta-lightning plugins                                            installed plug-ins
  delta-lightning --version

  delta-lightning fit --help                       every option, and the known classes of every part
  delta-lightning fit --model.credit.help=Delta    the options of one class
  delta-lightning fit --config CONFIG --print_config   the resolved config, without running it

Set DELTA_DEBUG=1 to see tracebacks and what Lightning says.
"""
OWN = ("check", "decontaminate", "export", "serve", "verify")  # each is `run` of its file in cli/; the others are cli/app.py's

PATIENCE = 2.0  # seconds without a word


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 the run failed, 2 the config cannot be run.

    Args:
        args: the arguments; those of the process by default.
    """
    given = list(sys.argv[1:] if args is None else args)
    if given in ([], ["-h"], ["--help"]):
        return _say(USAGE)
    if given == ["--version"]:
        return _say(f"delta-lightning {__version__}\n")
    if given == ["plugins"]:
        from delta_lightning.cli.plugins import listing

        return _say(listing())
    # Before torch loads. Threads that spin at OpenMP barriers take the cores from the verifier processes and from everything
    # else on the machine: with one busy neighbour on two cores a training step was five times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # parts in a file beside the config; last, so that it shadows nothing
    if given[0] == "plan":  # asks no network; libraries read this when they are imported
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    own = given[0] in OWN
    with said_if_slow("loading torch, Lightning and transformers"):
        command = import_module(f"delta_lightning.cli.{given[0] if own else 'app'}")
    code: int = command.run(given[1:] if own else given)
    return code


@contextmanager
def said_if_slow(line: str, seconds: float = PATIENCE) -> Iterator[None]:
    """Says what the block does, on stderr and by rank 0, if it is still at it after so many seconds."""
    timer = threading.Timer(seconds, lambda: sys.stderr.write(line + "\n"))
    timer.daemon = True
    if rank() == 0:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say(text: str) -> int:
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
