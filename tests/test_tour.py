"""The notebook of the documentation runs from the first cell to the last, and says what it should."""

import json
import os

import pytest

from tests.common import ROOT

nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install -r requirements-dev.txt")


def test_the_tour_runs(tmp_path, monkeypatch):
    import nbformat

    pytest.importorskip("ipykernel", reason="needs ipykernel: pip install -r requirements-dev.txt")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install -r requirements-dev.txt")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    said = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "of the strange images are flagged" in said and "AUROC" in said and "PCA reconstruction" in said


def test_it_is_kept_without_outputs():
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text())["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
