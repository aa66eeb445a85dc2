"""The example with Ray Serve: four replicas on two nodes, and one read of the weights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ray_replicas.py"
SECONDS_MAX = 600
REPLICA = re.compile(
    r"replica (\d+) on node (\w+): .* this node ([\d.]+), from another node ([\d.]+), "
    r"from the store ([\d.]+)"
)
OWNER = re.compile(r"owner (\d+) on node (\w+): MB from the store ([\d.]+), in memory ([\d.]+)")
MB = 64.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_the_app_scales_from_one_replica_to_four_and_the_store_is_read_once(tmp_path):
    need("RINGLOAD_TEST_EXAMPLES", "ray", "fastapi", "numpy", "safetensors")
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Replicas import ringload from the same path as this process.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    log = tmp_path / "log"
    with log.open("w") as errors:
        done = subprocess.run(
            [sys.executable, EXAMPLE],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    assert done.returncode == 0, log.read_text()[-4000:]
    one, four = re.split(r"^4 replicas:$", done.stdout, flags=re.MULTILINE)
    assert len(REPLICA.findall(one)) == 1
    found = REPLICA.findall(four)
    assert len(found) == 4
    assert len({node for _, node, *_ in found}) == 2
    for _, _, here, moved, store in found:
        assert float(here) + float(moved) == pytest.approx(MB, abs=0.5)
        assert float(store) == 0
    owners = OWNER.findall(done.stdout)
    assert len(owners) == 2
    assert owners[0] == owners[1], "the owner has read no more for the others"
    assert float(owners[1][2]) == pytest.approx(MB, abs=0.5)
