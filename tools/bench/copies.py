"""Which copies between the host and a device a profile shows, and how large they are.

Two kinds of profile, since neither shows everything. onnxruntime's own has the copies that it put between the nodes of
a graph, for any provider, but not those of values that are bound in the wrong memory. PyTorch's profiler has every copy
that the CUDA driver made for this process, onnxruntime's too.
"""

import json
from pathlib import Path
from typing import NamedTuple

LARGEST = 8192  # bytes; the numbers of frames for a prompt's mask have 3,504, the logits of one clip 65,536, caches MB


class Copies(NamedTuple):
    """Sizes in bytes of the copies of `runs` runs of a graph."""

    runs: int
    to_device: list[int]
    to_host: list[int]

    def summary(self) -> dict[str, float]:
        """Of one run; what is larger than LARGEST is a cache or logits."""
        sizes = self.to_device + self.to_host
        return {
            "copies_a_run": len(sizes) / self.runs,
            "bytes_a_run": sum(sizes) / self.runs,
            "largest_bytes": max(sizes, default=0),
            "too_large": sum(size > LARGEST for size in sizes),
        }


def onnxruntime_copies(profile: Path, runs: int) -> Copies:
    """Of the last `runs` runs in the file that InferenceSession.end_profiling names."""
    found: list[list[dict]] = [[]]  # the nodes of each run, which ends with an event of its own
    for event in json.loads(profile.read_text()):
        if event.get("name") == "model_run":
            found.append([])
        elif event.get("cat") == "Node" and "op_name" in event["args"]:
            found[-1].append(event["args"])
    nodes = [node for run in found[:-1][-runs:] for node in run]
    if len(found) <= runs or not nodes:
        raise ValueError(f"{profile} shows {len(found) - 1} runs and {len(nodes)} nodes: {runs} runs were made")
    sizes: dict[str, list[int]] = {"MemcpyFromHost": [], "MemcpyToHost": []}
    for node in nodes:
        if node["op_name"] in sizes:
            sizes[node["op_name"]].append(int(node["output_size"]))
    return Copies(runs, *sizes.values())


def torch_copies(trace: Path, runs: int) -> Copies:
    """Of the file that torch.profiler's export_chrome_trace wrote."""
    events = json.loads(trace.read_text())["traceEvents"]
    if not any(event.get("cat") == "kernel" for event in events):
        raise ValueError(f"{trace} shows no kernel: nothing can be told from it")
    copies = [event for event in events if event.get("cat") == "gpu_memcpy"]
    sizes = {way: [int(e["args"]["bytes"]) for e in copies if way in e["name"]] for way in ("HtoD", "DtoH")}
    return Copies(runs, sizes["HtoD"], sizes["DtoH"])
