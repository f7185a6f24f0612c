"""The service under load, by ApacheBench: whether many clients get as much done as one, and are treated alike.

    python -m tools.serve.load [--model FOLDER] [--clients 1 4 16 64] [--seconds 10] [--rounds 3]

Reads   the demonstration model, or FOLDER; cohere_lite/demo/sample.wav, which every request sends
Prints  for each number of clients: requests a second (the median of the rounds, which take turns), what that is of one
        client's, latencies (median, 95 %, longest); then memory, descriptors and threads before and after
Needs   ab on the PATH (apt install apache2-utils), the extra [serve], Linux for the last line
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

SAMPLE = Path(__file__).parents[2] / "cohere_lite/demo/sample.wav"
_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


class Run(NamedTuple):
    """Latencies in ms."""

    per_s: float
    half: float  # the median
    most: float  # of 95 %
    longest: float
    failed: int


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.serve.load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", help="a folder (default: the demonstration model)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default="1", help="of the model: leave a core to the clients")
    args = parser.parse_args(argv)
    command = [
        sys.executable,
        "-m",
        "cohere_lite.serve",
        "--port",
        "0",
        "--max-queue",
        "1000",
        "--threads",
        args.threads,
    ]
    command += ["--model", args.model] if args.model else []
    with tempfile.NamedTemporaryFile() as body, subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        body.write(_HEAD + SAMPLE.read_bytes() + b"\r\n--b--\r\n")
        body.flush()
        assert server.stderr
        try:
            url = json.loads(server.stderr.readline())["url"]
            log = subprocess.Popen(["sed", "-n", "/traceback/p"], stdin=server.stderr)  # which must be read
            bench(url, body.name, 1, args.seconds)  # warm
            before = held(server.pid)
            runs: dict[int, list[Run]] = {clients: [] for clients in args.clients}
            for _ in range(args.rounds):
                for clients in args.clients:
                    runs[clients].append(bench(url, body.name, clients, args.seconds))
            show(runs)
            time.sleep(8)  # until connections that were kept are closed
            print(f"before: {before}\nafter:  {held(server.pid)}")
        finally:
            server.terminate()
            server.wait()
            log.wait()
    return int(any(run.failed for of_clients in runs.values() for run in of_clients))


def bench(url: str, body: str, clients: int, seconds: int) -> Run:
    """One measurement."""
    options = ["-q", "-r", "-s", "600", "-t", str(seconds), "-n", "1000000", "-c", str(clients), "-p", body]
    options += ["-T", "multipart/form-data; boundary=b", f"{url}/v1/audio/transcriptions"]
    told = subprocess.run(["ab", *options], capture_output=True, text=True, check=True).stdout

    def number(pattern: str) -> float:
        found = re.search(pattern, told)
        return float(found[1]) if found else 0

    failed = number(r"Failed requests: +(\d+)") + number(r"Non-2xx responses: +(\d+)")
    half, most, longest = (number(rf"\n +{percent}% +(\d+)") for percent in (50, 95, 100))
    return Run(number(r"Requests per second: +([\d.]+)"), half, most, longest, int(failed))


def show(runs: dict[int, list[Run]]) -> None:
    """The table."""
    alone = median(run.per_s for run in next(iter(runs.values())))
    print("clients  requests/s  of one client's  median ms  95 % ms  longest ms  failed")
    for clients, of_clients in runs.items():
        per_s, *latencies, failed = (median(column) for column in zip(*of_clients, strict=True))
        middle, most, longest = (f"{latency:9.0f}" for latency in latencies)
        print(f"{clients:7}  {per_s:10.1f}  {per_s / alone:14.0%}  {middle}{most}   {longest}  {failed:6.0f}")


def held(pid: int) -> str:
    """Of a process, in words."""
    here = Path(f"/proc/{pid}")
    memory = re.search(r"VmRSS:\s+(\d+)", (here / "status").read_text())
    n_open, n_threads = (len([*(here / name).iterdir()]) for name in ("fd", "task"))
    return f"{int(memory[1]) // 1024 if memory else 0} MB, {n_open} descriptors, {n_threads} threads"


if __name__ == "__main__":
    sys.exit(main())
