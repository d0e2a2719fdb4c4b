"""Defines the jobs that every runner executes: inputs, command lines, and checksums of the committed files."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capt
from features.store import open_store

_JOB_SECONDS = 600
_CAPT = (sys.executable, "-m", "capt")


@dataclass(frozen=True)
class Job:
    """A command of capt.

    Args:
        name: str. The command's name, as in `prepare features`.
        arguments: tuple of str. The rest of it, but for the store and Beam's options.
    """

    name: str
    arguments: tuple[str, ...]

    def command(self, store: Path, options: tuple[str, ...]) -> list[str]:
        """What a user types, to keep the results in `store`."""
        return [*_CAPT, *self.name.split(), "--store", str(store), *self.arguments, "--json", "--", *options]

    def run(self, store: Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
        """Do it; its figures."""
        command = self.command(store, options)
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_JOB_SECONDS)
        assert done.returncode == 0, f"{self.name}: status {done.returncode}\n{done.stderr[-4000:]}"
        return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Inputs:
    """Pictures that the tests make for themselves.

    Args:
        root: Path. Where they are made.
        scenes: int. Scenes with captions.
        captchas: int. Pictures of words.
    """

    root: Path
    scenes: int = 96
    captchas: int = 70

    def make(self) -> None:
        """Make them."""
        capt.synth_scenes(out=str(self.root / "scenes"), num_images=self.scenes, seed=5)
        capt.synth_captcha(out=str(self.root / "words"), num_images=self.captchas, seed=5)

    def features(self, shards: int = 8, side: int = 96) -> Job:
        """Features of the scenes at so many pixels a side, in so many work units."""
        network = ("--extractor", "mobilenet_v3_small", "--weights", "random:1", "--precision", "float32")
        sizes = ("--height", str(side), "--width", str(side), "--num-shards", str(shards))
        return Job("prepare features", ("--dataset-type", "coco", *self._images, *self._annotations, *network, *sizes))

    @property
    def captions(self) -> Job:
        """Tokens of the captions."""
        return Job("prepare captions", ("--dataset-type", "coco", *self._annotations))

    @property
    def captcha(self) -> Job:
        """Pixels and words of the pictures of words."""
        pictures = self.root / "words" / "words_captcha"
        return Job("prepare captcha", ("--images", str(pictures), "--labels", str(pictures / "spec_train_val.txt")))

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All of them."""
        return self.features(), self.captions, self.captcha

    @property
    def _images(self) -> tuple[str, ...]:
        return "--images", str(self.root / "scenes" / "images")

    @property
    def _annotations(self) -> tuple[str, ...]:
        files = sorted((self.root / "scenes" / "annotations").glob("captions_*.json"))
        return tuple(part for file in files for part in ("--annotations", str(file)))


def checksums(store: Path) -> dict[str, str]:
    """SHA-256 of every file that a store's live commits name, by path, as the files have it."""
    opened = open_store(store)
    tables = (*opened.feature_tables(), *opened.caption_tables(), *opened.datasets())
    verified = capt.store_verify(store=str(store))
    assert (verified["damaged"], verified["orphaned"]) == ([], [])
    return {
        f"{table.root.relative_to(opened.path).as_posix()}/{entry.path}": entry.sha256
        for table in tables
        for manifest in table.manifests
        for entry in manifest.entries()
    }
