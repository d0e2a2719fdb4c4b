"""Lists the published files of each dataset: URL, length and checksum.

The publishers list no checksums. These URLs, lengths and checksums were recorded by others: TensorFlow Datasets (COCO,
Karpathy's splits), Hugging Face Datasets (Conceptual Captions), and several projects that agree (Flickr8k). For IAPR
TC-12, no length and no checksum is known. The URLs were not requested when this list was written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

_FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
_CONCEPTUAL = "https://storage.googleapis.com/gcc-data"


@dataclass(frozen=True)
class PublishedFile:
    """One published file. Its URL ends with its name.

    `checksum` is `sha256:` or `md5:` and a hexadecimal digest, empty if no one has published it; `bytes` is the length,
    if known. `extra` files are downloaded only if `--only` names them.
    """

    url: str
    checksum: str = ""
    bytes: int | None = None
    extra: bool = False

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Publication:
    """The published files of a dataset, and the commands that use them, with `{dir}` for their directory."""

    files: tuple[PublishedFile, ...]
    commands: tuple[str, ...]


# Karpathy's splits of COCO 2014, Flickr8k and Flickr30k.
_KARPATHY = PublishedFile(
    "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    "sha256:4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
    36_745_453,
    extra=True,
)


def _coco(year: int, *checksums: tuple[str, int], extra: tuple[PublishedFile, ...] = ()) -> Publication:
    """Describes COCO with the SHA-256 and length of its annotations, val and train images, in this order."""
    names = (f"annotations/annotations_trainval{year}.zip", f"zips/val{year}.zip", f"zips/train{year}.zip")
    files = (
        PublishedFile(f"http://images.cocodataset.org/{name}", f"sha256:{digest}", size)
        for name, (digest, size) in zip(names, checksums, strict=True)
    )
    annotations = f"--annotations {{dir}}/annotations_trainval{year}.zip"
    images = f"--images {{dir}}/train{year}.zip --images {{dir}}/val{year}.zip"
    kind = f"--store STORE --dataset-type coco --dataset-name coco{year}"
    features = f"capt prepare features {kind} {images} {annotations}"
    return Publication((*files, *extra), (features, f"capt prepare captions {kind} {annotations}"))


PUBLISHED: Mapping[str, Publication] = {
    "coco2014": _coco(
        2014,
        ("031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009", 252_872_794),
        ("fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0", 6_645_013_297),
        ("ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775", 13_510_573_713),
        extra=(_KARPATHY,),
    ),
    "coco2017": _coco(
        2017,
        ("113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268", 252_907_541),
        ("4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05", 815_585_330),
        ("69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929", 19_336_861_798),
    ),
    # The authors' site no longer exists. Most tutorials and libraries use this copy of the two archives.
    "flickr8k": Publication(
        (
            PublishedFile(f"{_FLICKR8K}/Flickr8k_text.zip", "md5:bf6c1abcb8e4a833b7f922104de18627", 2_340_801),
            PublishedFile(f"{_FLICKR8K}/Flickr8k_Dataset.zip", "md5:f18a1e2920de5bd84dae7cf08ec78978", 1_115_419_746),
            _KARPATHY,
        ),
        (
            "capt prepare features --store STORE --dataset-type flickr8k --images {dir}/Flickr8k_Dataset.zip"
            " --annotations {dir}/Flickr8k_text.zip",
            "capt prepare captions --store STORE --dataset-type flickr8k --annotations {dir}/Flickr8k_text.zip",
        ),
    ),
    # The archive that https://imageclef.org/photodata describes. capt does not read compressed tars in place.
    "iapr": Publication(
        (PublishedFile("http://www-i6.informatik.rwth-aachen.de/imageclef/resources/iaprtc12.tgz"),),
        (
            "tar -xzf {dir}/iaprtc12.tgz -C {dir}",
            "capt prepare features --store STORE --dataset-type iapr --images {dir}/iaprtc12"
            " --annotations {dir}/iaprtc12",
            "capt prepare captions --store STORE --dataset-type iapr --annotations {dir}/iaprtc12",
        ),
    ),
    # The dataset's page links to storage.cloud.google.com, which asks for a login. The same objects can be downloaded
    # from storage.googleapis.com without one.
    "conceptual": Publication(
        (
            PublishedFile(
                f"{_CONCEPTUAL}/Validation/GCC-1.1.0-Validation.tsv",
                "sha256:528a0c939ec2ad8d1740bd3f459a51e9fe67643050e29f68fabb6da3f8ac985d",
                2_603_670,
            ),
            PublishedFile(
                f"{_CONCEPTUAL}/Train/GCC-training.tsv",
                "sha256:eab84e5ebc713a41a6b1f6ae6fa3d6617821a13b03fe24e16004cc4aac189635",
                564_607_502,
            ),
        ),
        (
            "capt prepare features --store STORE --dataset-type conceptual --images {dir}/images"
            " --annotations {dir}/GCC-training.tsv --annotations {dir}/GCC-1.1.0-Validation.tsv",
            "capt prepare captions --store STORE --dataset-type conceptual"
            " --annotations {dir}/GCC-training.tsv --annotations {dir}/GCC-1.1.0-Validation.tsv",
        ),
    ),
}
