"""The page on language models runs, with a random model in the place of SmolLM2."""

import re
import shutil
from pathlib import Path

TWIN = Path(__file__).parent / "twins" / "qwen3"
PAGE = Path(__file__).parents[3] / "docs" / "language-models.md"


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(TWIN, tmp_path / "SmolLM2-135M-Instruct")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 64', '"max_position_embeddings": 128'))
    monkeypatch.setenv("RECJAX_LANGUAGE_MODELS", str(tmp_path))
    there: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, there)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) >= 3 and shown[-1] == shown[-2]  # fresh adapters change no bit
