"""The Python examples of README.md and docs/.

Each fenced block of Python runs in its own process, unless its info string says `no_run`. In it
`/models/llama-8b` is a tiny Llama, which is also `s3://bucket/llama-8b/` on a real S3 server and
`hf://openai-community/gpt2` in a local cache of the Hub; `/mnt/nvme` is an empty directory; and
`model` is a transformers model that the tensors of this Llama fit. `tests/integration/docs.rs` runs
the examples in other languages.
"""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import run
from needs import need
from stores import BUCKET, moto

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS_MAX = 180  # importing transformers takes a while on a busy machine
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"

MODEL = """
from transformers import AutoConfig, AutoModelForCausalLM
model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained("/models/llama-8b"))
"""


def examples() -> list[object]:
    """Returns the text of each block that runs, as a parameter named by its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            name = f"{page.relative_to(REPOSITORY)}:{line}"
            found.append(pytest.param(block[1], id=name))
    return found


def test_there_are_examples() -> None:
    assert len(examples()) > 5


@pytest.mark.parametrize("example", examples())
def test_the_example_runs(example: str, tmp_path: Path) -> None:
    need("RINGLOAD_TEST_EXAMPLES", "transformers")
    from tiny_models import write_llama

    llama = write_llama(tmp_path / "models" / "llama-8b")
    (tmp_path / "nvme").mkdir()
    repository = tmp_path / "hub" / "models--openai-community--gpt2"
    shutil.copytree(llama, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}

    program = example
    if "model." in example and "model =" not in example:
        program = MODEL + example
    for shown, own in (("/models", "models"), ("/mnt/nvme", "nvme")):
        program = program.replace(f'"{shown}', f'"{tmp_path / own}')
    with ExitStack() as servers:
        if "s3://" in program:
            scratch = tmp_path / "scratch"
            scratch.mkdir()
            store = servers.enter_context(moto(tmp_path / "models", scratch))
            environment.update(store.environment(scratch))
            program = program.replace("s3://bucket/", f"s3://{BUCKET}/")
        run(program, SECONDS_MAX, **environment)
