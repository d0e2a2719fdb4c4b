"""IAPR TC-12 descriptions are divided into clauses; Latin-1 and bare ampersands are read."""

from pathlib import Path

import pytest

from features.text.lines import FailedRecord
from pipelines.datasets import open_reader
from pipelines.datasets.base import CaptionEntry, ImageEntry
from pipelines.datasets.iapr import IaprReader
from schemas.errors import UsageError
from tests.pipelines.datasets.entries import bare_entries

DOC = """<DOC>
<DOCNO>annotations/00/25.eng</DOCNO>
<TITLE>Plaza de Armas</TITLE>
<DESCRIPTION>a café & a bar; two palm
trees &amp; a bench;;  ;</DESCRIPTION>
<NOTES>None</NOTES>
<LOCATION>Cochabamba, Bolivia</LOCATION>
<DATE>1 February 2002</DATE>
<IMAGE>images/00/25.jpg</IMAGE>
<THUMBNAIL>thumbnails/00/25.jpg</THUMBNAIL>
</DOC>
"""
IMAGE = "images/00/25.jpg"


def write(tmp_path: Path, **texts: str) -> IaprReader:
    for name, text in texts.items():
        path = tmp_path / "annotations_complete_eng" / "00" / f"{name}.eng"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    return IaprReader([str(tmp_path)])


def test_each_clause_is_a_caption_of_the_image(tmp_path: Path) -> None:
    source = write(tmp_path, a=DOC)
    assert bare_entries(source.read_images()) == [ImageEntry(IMAGE, IMAGE)]
    assert bare_entries(source.read_captions()) == [
        CaptionEntry(IMAGE, "0", "a café & a bar"),
        CaptionEntry(IMAGE, "1", "two palm\ntrees & a bench"),
    ]


def test_a_whole_description_is_one_caption_by_option(tmp_path: Path) -> None:
    write(tmp_path, a=DOC, b=DOC.replace("DESCRIPTION", "SUMMARY").replace(IMAGE, "images/00/26.jpg"))
    source = open_reader("iapr", [str(tmp_path)], whole_descriptions=True)
    assert len(bare_entries(source.read_images())) == 2
    good, bad = bare_entries(source.read_captions())
    assert good == CaptionEntry(IMAGE, "description", "a café & a bar; two palm\ntrees & a bench")
    assert isinstance(bad, FailedRecord)
    assert bad.reason == "no description"


def test_other_types_have_no_whole_descriptions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--whole-descriptions: the dataset type csv has no descriptions"):
        open_reader("csv", [str(tmp_path)], whole_descriptions=True)


def test_files_that_are_no_annotation_are_reported_and_affect_no_other(tmp_path: Path) -> None:
    imageless = DOC.replace(IMAGE, "")
    source = write(tmp_path, a="", b="<DOC>", c=imageless, d=DOC)
    *bad, good, _ = source.read_captions()
    location = f"{tmp_path}/annotations_complete_eng/00"
    assert [(one.location, one.reason) for one in bad if isinstance(one, FailedRecord)] == [
        (f"{location}/a.eng", "no DOC"),
        (f"{location}/b.eng", "no DOC"),
        (f"{location}/c.eng", "no IMAGE"),
    ]
    assert isinstance(good, CaptionEntry)
    assert len(bare_entries(source.read_images())) == 1


def test_an_image_without_a_description_is_an_image_and_no_caption(tmp_path: Path) -> None:
    source = write(tmp_path, a=DOC.replace("DESCRIPTION", "SUMMARY"))
    assert len(bare_entries(source.read_images())) == 1
    (entry,) = source.read_captions()
    assert isinstance(entry, FailedRecord)
    assert (entry.reason, entry.detail) == ("no description", IMAGE)


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c SYSTEM "file:///etc/passwd">]>\n'
    source = write(tmp_path, a=bomb + DOC.replace("a café", "&b;x &c"))
    assert [entry.caption for entry in source.read_captions() if isinstance(entry, CaptionEntry)][:2] == [
        "&b",
        "x &c & a bar",
    ]


def test_tags_that_never_close_take_no_longer_than_their_length(tmp_path: Path) -> None:
    source = write(tmp_path, a="<DOC>" * 100_000, b=DOC.replace("<DESCRIPTION>", "<DESCRIPTION>" * 100_000))
    assert [type(entry) for entry in source.read_captions()] == [FailedRecord, CaptionEntry, CaptionEntry]


def test_light_annotations_beside_complete_ones_are_left(tmp_path: Path) -> None:
    source = write(tmp_path, a=DOC)
    light = tmp_path / "annotations" / "00" / "25.eng"
    light.parent.mkdir(parents=True)
    light.write_text("<DOC><IMAGE>images/00/25.jpg</IMAGE></DOC>")
    assert all(isinstance(entry, CaptionEntry) for entry in source.read_captions())
    (entry,) = IaprReader([str(light.parent)]).read_captions()
    assert isinstance(entry, FailedRecord)
