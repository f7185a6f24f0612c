"""What the stages share: work on all processors with the time left, and a record of which code did what when."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def parallel(function: Callable, jobs: list[tuple], stage: str, names: list[str]) -> Iterator[Any]:
    """function(*job) of every job in its order, one process a processor; a line with the time left after each."""
    begun = time.time()
    # spawned, not forked: onnxruntime's and torch's threads do not survive a fork
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for done, (future, name) in enumerate(zip(futures, names, strict=True), 1):
                yield future.result()
                minutes = (time.time() - begun) / 60
                left = minutes / done * (len(jobs) - done)
                print(f"{stage}: {name}, {done} of {len(jobs)}, {minutes:.1f} min, {left:.0f} left", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or all the others would be made first
            raise


def record(folder: Path, stage: str, minutes: float, facts: dict) -> None:
    """Note in folder/stages.json that this code worked on the stage; a stage that went on has worked twice."""
    path = folder / "stages.json"
    stages = json.loads(path.read_text("utf-8")) if path.exists() else {}
    before = stages.get(stage, {"minutes": 0, "revisions": []})
    revisions = [*before["revisions"], *([] if revision() in before["revisions"] else [revision()])]
    stages[stage] = {"minutes": round(before["minutes"] + minutes, 1), "revisions": revisions, **facts}
    path.write_text(json.dumps(stages, indent=1, ensure_ascii=False) + "\n", "utf-8")


def revision() -> str:
    """The commit of this code, with "+" if it has been changed since."""
    git = ["git", "-C", str(REPOSITORY)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "unknown: not in a git repository"
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
    return head.stdout.strip() + ("+" if changed else "")
