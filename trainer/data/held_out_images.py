"""Loads the images of a split that runs are evaluated on, with their references."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import CaptError
from schemas.records import join_keys
from schemas.table_config import canonical_json
from trainer.data.caption_data import check_captions
from trainer.data.table_selection import TrainingTables

ImageName = tuple[str, str]


@dataclass(frozen=True)
class HeldOutImages:
    """The images of a split that a run is evaluated on, in the order of their content hashes.

    The references are all captions of an image as published, in the order of their IDs, or only its label. `skipped`
    counts other images of the split, by the reason why they are not evaluated.
    """

    split: str
    names: tuple[ImageName, ...]  # (dataset, image ID)
    references: dict[ImageName, list[str]]
    rows: NDArray[np.int64]  # positions in the feature table [images]
    catalog: dict[ImageName, Mapping[str, Any]]  # rows of `schemas.tables.CATALOG`
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def keys(self) -> NDArray[np.uint8]:
        """The content hashes of the images, uint8 [N, 32]."""
        return join_keys([self.catalog[name]["key"] for name in self.names])

    @property
    def digest(self) -> str:
        """SHA-256 of images and references. Runs with equal digests were evaluated on equal data."""
        rows = sorted([*name, self.catalog[name]["key"].hex(), self.references[name]] for name in self.names)
        return hashlib.sha256(canonical_json(rows)).hexdigest()

    def select_rows(self, rows: NDArray[np.int64]) -> "HeldOutImages":
        """Returns the images at these positions in the feature table."""
        is_selected = np.isin(self.rows, rows)
        names = tuple(name for name, selected in zip(self.names, is_selected, strict=True) if selected)
        return replace(
            self,
            names=names,
            references={name: self.references[name] for name in names},
            rows=self.rows[is_selected],
            catalog={name: self.catalog[name] for name in names},
        )

    def select_evenly(self, count: int) -> NDArray[np.int64]:
        """Returns the numbers of at most `count` images that are evenly spaced over the split."""
        return np.unique(np.linspace(0, len(self.names) - 1, count).astype(np.int64))

    @property
    def labels(self) -> tuple[str, ...]:
        """The first reference of each image, in order."""
        return tuple(self.references[name][0] for name in self.names)


def load_held_out_images(tables: TrainingTables, split: str) -> HeldOutImages:
    """Loads the captioned images of a split. If no image of test has a caption, those of val are loaded instead.

    Raises:
        CaptError: The split has no captions, or the feature table contains none of its captioned images.
        StoreError: Captions are in another split than their images, or belong to other images.
    """
    references = _read_captions(tables, split)
    if not references and split == "test":
        split, references = "val", _read_captions(tables, "val")
    if not references:
        raise no_held_out_images(tables, f"the split {split} has no captions")
    held_out = join_references(tables, split, references)
    if not held_out.names:
        problem = f"the feature table contains none of the {len(references)} captioned images of the split {split}"
        raise no_held_out_images(tables, problem, "Run `capt prepare features` on them.")
    return held_out


def join_references(
    tables: TrainingTables,
    split: str,
    references: Mapping[ImageName, list[str]],
    skipped: Mapping[str, int] | None = None,
) -> HeldOutImages:
    """Joins references to the catalog rows and positions of their images; `skipped` counts those without references."""
    rows: dict[ImageName, dict[str, Any]] = {}
    for dataset in tables.datasets:
        catalog = dataset.catalog()
        image_ids = pa.array([image_id for name, image_id in references if name == dataset.name], pa.string())
        found = catalog.filter(pc.is_in(catalog["image_id"], value_set=image_ids)).to_pylist()
        rows |= {(dataset.name, row["image_id"]): row for row in found}
    known = sorted((name for name in references if name in rows), key=lambda name: (rows[name]["key"], name))
    positions = tables.features.lookup(join_keys([rows[name]["key"] for name in known]))
    names = tuple(name for name, position in zip(known, positions, strict=True) if position >= 0)
    lost = {"without_features": len(known) - len(names), "without_image": len(references) - len(known)}
    return HeldOutImages(
        split=split,
        names=names,
        references={name: references[name] for name in names},
        rows=positions[positions >= 0],
        catalog={name: rows[name] for name in names},
        skipped={**lost, **(skipped or {})},
    )


def no_held_out_images(tables: TrainingTables, problem: str, hint: str = "Choose another --split.") -> CaptError:
    """Returns the error for a split that no run can be evaluated on."""
    return CaptError(problem, location=", ".join(dataset.name for dataset in tables.datasets), hint=hint)


def _read_captions(tables: TrainingTables, split: str) -> dict[ImageName, list[str]]:
    references: dict[ImageName, list[str]] = {}
    for dataset, table in zip(tables.datasets, tables.caption_tables, strict=True):
        captions = table.captions().select(["image_id", "caption_id", "split", "caption"])
        check_captions(table, captions, dataset, dataset.catalog())
        rows = captions.filter(pc.equal(captions["split"], split)).to_pylist()
        for row in sorted(rows, key=lambda row: (len(row["caption_id"]), row["caption_id"])):
            references.setdefault((dataset.name, row["image_id"]), []).append(row["caption"])
    return references
