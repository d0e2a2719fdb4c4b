import json
import time

import pytest

import capt
from trainer.runs.run import DECODE_BATCH, load_run

SIZES = {
    "units": 32,
    "embedding_dim": 16,
    "attention_dim": 16,
    "projection_dim": 16,
    "output_dim": 16,
    "batch_size": 16,
    "num_sample_captions": 0,
}
COUNT = 400


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("predicting") / "run"
    capt.train_captioner(store=store.path, run_dir=path, epochs=2, hyperparameters=SIZES)
    return path


@pytest.fixture(scope="module")
def folder(shown, tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    for number in range(COUNT):
        (root / f"{number:04d}.png").write_bytes(shown[number % 64].data)
    (root / "0007.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def unbroken(run, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "captions.jsonl"
    return out, capt.predict_captions(run=run, images=[str(folder)], output=out, temperature=2.0)


def test_a_directory_becomes_one_line_per_image(unbroken, run, folder):
    out, figures = unbroken
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == [str(folder / f"{number:04d}.png") for number in range(COUNT)]
    assert "error" in rows[7]
    assert all(set(row) == {"image", "text", "score"} for row in rows[:7])
    assert figures == {"output": str(out), "images": COUNT, "captions": COUNT - 1, "failed": 1, "resumed": 0}
    assert not out.with_name(f"{out.name}.part").exists()
    greedy = load_run(run)
    assert greedy.caption(folder / "0000.png", greedy.decoding(temperature=2.0)).text == rows[0]["text"]


@pytest.fixture(scope="module")
def killed(commands, run, folder, tmp_path_factory):
    """What a run left that was killed once it had written more than a batch."""
    out = tmp_path_factory.mktemp("killed") / "c.jsonl"
    part = out.with_name("c.jsonl.part")
    options = ["--images", str(folder), "--output", str(out), "--temperature", "2.0"]
    process = commands.start(["predict", "captions", str(run), *options])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if part.exists() and part.read_bytes().count(b"\n") > DECODE_BATCH:
            process.kill()
        time.sleep(0.001)
    process.wait()
    assert not out.exists()
    return part.read_bytes()


def test_a_resumed_run_writes_the_file_of_an_uninterrupted_one(unbroken, killed, run, folder, tmp_path):
    out = tmp_path / "c.jsonl"
    (tmp_path / "c.jsonl.part").write_bytes(killed)
    figures = capt.predict_captions(run=run, images=[str(folder)], output=out, temperature=2.0)
    written = killed.count(b"\n") - 1
    assert 0 < figures["resumed"] == written - written % DECODE_BATCH < COUNT
    assert out.read_bytes() == unbroken[0].read_bytes()


@pytest.mark.parametrize("written", [0, 9, DECODE_BATCH - 1])
def test_a_partly_written_batch_is_computed_again(unbroken, killed, run, folder, tmp_path, written):
    out = tmp_path / "c.jsonl"
    head, *lines = killed.splitlines(keepends=True)
    (tmp_path / "c.jsonl.part").write_bytes(head + b"".join(lines[:written]) + lines[written][:9])
    assert capt.predict_captions(run=run, images=[str(folder)], output=out, temperature=2.0)["resumed"] == 0
    assert out.read_bytes() == unbroken[0].read_bytes()


def test_output_of_another_job_is_discarded(unbroken, run, folder, tmp_path):
    out, part = tmp_path / "c.jsonl", tmp_path / "c.jsonl.part"
    part.write_text('{"job": "another"}\n{"image": "x", "text": "y", "score": 0}\n')
    assert capt.predict_captions(run=run, images=[str(folder)], output=out, temperature=2.0)["resumed"] == 0
    assert out.read_bytes() == unbroken[0].read_bytes()
