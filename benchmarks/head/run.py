"""Peak memory and time of the chunked LM head beside full logits, forward and backward: `python benchmarks/head/run.py`.

Each case runs in a process of its own; memory is the growth of the peak resident set over what stood before the call.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
WIDTH = 64


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(kind: str, tokens: int, vocabulary: int) -> None:
    import torch

    from delta_lightning.functional.logprobs import chunk_tokens, chunked_head

    torch.manual_seed(0)
    hidden = torch.randn(tokens, WIDTH, requires_grad=True)
    weight = torch.randn(vocabulary, WIDTH, requires_grad=True)
    targets = torch.randint(0, vocabulary, (tokens,))
    (torch.randn(64, WIDTH, requires_grad=True) @ weight.detach().T).sum().backward()  # load kernels first
    before, start = peak_mib(), time.perf_counter()
    if kind == "full":
        logprobs = torch.log_softmax(hidden @ weight.T, -1).gather(1, targets[:, None])
    else:
        logprobs = chunked_head(hidden, weight, targets, chunk=chunk_tokens(vocabulary, 1 << 26)).logprobs_N
    logprobs.sum().backward()
    print(json.dumps({"peak_mib": peak_mib() - before, "seconds": time.perf_counter() - start}))


def main() -> None:
    from delta_lightning.report.provenance import provenance

    rows = []
    for vocabulary in (32_000, 151_936):
        for tokens in (1024, 2048, 4096):
            row: dict[str, object] = {"vocabulary": vocabulary, "tokens": tokens}
            for kind in ("full", "chunked"):
                command = [sys.executable, __file__, "--case", kind, str(tokens), str(vocabulary)]
                out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                row |= {f"{kind}_mib": round(out["peak_mib"]), f"{kind}_seconds": round(out["seconds"], 2)}
            rows.append(row)
            print(row, flush=True)
    result = {"provenance": provenance(seeds={"torch": 0}), "rows": rows}
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", nargs=3)
    case = parser.parse_args().case
    if case:
        measure(case[0], int(case[1]), int(case[2]))
    else:
        main()
