"""An installed capt has the recipes and the network for scenes."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("schemas", "features", "pipelines", "trainer", "workflows")


@pytest.mark.slow
def test_a_wheel_contains_the_network_for_scenes_and_every_recipe_base_and_checksum(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "capt.py"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    recipes = ROOT / "workflows" / "reproduction" / "recipes"
    written = {str(path.relative_to(ROOT)) for path in recipes.rglob("*") if path.is_file()}
    assert len(written) > 10
    network = {f"features/extractors/scene_network.{suffix}" for suffix in ("keras", "json")}
    assert written | network <= set(ZipFile(wheel).namelist())
