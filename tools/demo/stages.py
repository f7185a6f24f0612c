"""What the stages share: work on all processors with the time left, and a record of which code did what when."""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CODE = ("tools/demo/*.py", "tools/demo/grammar", "cohere_lite/mel.py", "cohere_lite/export")


def parallel(function: Callable, jobs: list[tuple], stage: str, names: list[str]) -> Iterator[Any]:
    """function(*job) of every job in its order, one process a processor.

    After each there is a line with the time left on stderr.
    """
    begun = time.time()
    # spawned, not forked: onnxruntime's and torch's threads do not survive a fork
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        futures = deque(pool.submit(function, *job) for job in jobs)
        try:
            for done, name in enumerate(names, 1):
                yield futures.popleft().result()  # one that is kept would keep its result, too
                minutes = (time.time() - begun) / 60
                left = minutes / done * (len(jobs) - done)
                print(
                    f"{stage}: {name}, {done} of {len(jobs)}, {minutes:.1f} min, {left:.0f} left",
                    file=sys.stderr,
                    flush=True,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or all the others would be made first
            raise


def record(folder: Path, stage: str, minutes: float, facts: dict) -> None:
    """Note in folder/stages.json that this code worked on the stage, perhaps after another version of it."""
    stages = recorded_stages(folder)
    noted = stages.get(stage, {"minutes": 0, "revisions": []})
    revisions = [*noted["revisions"], *([] if revision() in noted["revisions"] else [revision()])]
    stages[stage] = {**noted, **facts, "minutes": round(noted["minutes"] + minutes, 1), "revisions": revisions}
    (folder / "stages.tmp").write_text(json.dumps(stages, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "stages.tmp").replace(folder / "stages.json")


def recorded_stages(folder: Path) -> dict[str, dict]:
    """What `record` noted: of each stage the minutes, the revisions, and its facts."""
    path = folder / "stages.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def revision() -> str:
    """The last commit of this code (CODE), with "+" if it has been changed since."""
    git = ["git", "-C", str(REPOSITORY)]
    commit = subprocess.run([*git, "log", "-1", "--format=%H", "--", *CODE], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "--", *CODE], capture_output=True, text=True)
    if commit.returncode or not commit.stdout:
        return "unknown: not in a git repository"
    return commit.stdout.strip() + ("+" if changed.stdout else "")
