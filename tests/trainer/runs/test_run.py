import os
import shutil
import zipfile
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import capt
from features.extractors.keras_file import encode_model
from features.extractors.runtimes import read_frozen_graph
from schemas.errors import CaptError, CorruptFileError, RecordError, StoreError, UsageError
from tests.image_server import answer, image_server
from tests.workflows.test_example_pages import Page, assert_inert
from trainer.inference.image_inputs import print_results
from trainer.runs.directory import copy_frozen_extractor
from trainer.runs.run import load_run

SIZES = {"units": 64, "embedding_dim": 32, "attention_dim": 32, "projection_dim": 32, "output_dim": 64}


@pytest.fixture(scope="module", params=["float16", pytest.param("int8", marks=pytest.mark.slow)])
def trained(request, squares, shown, tmp_path_factory):
    """A run whose store is gone, and what it said of the store's features while it was there."""
    root = tmp_path_factory.mktemp("trained")
    store = squares.make_store(root / "store", shown, dtype=request.param)
    options = {**SIZES, "batch_size": 16, "learning_rate": 0.006, "num_sample_captions": 0}
    capt.train_captioner(store=store.path, run_dir=root / "first", epochs=20, hyperparameters=options)
    table = store.feature_tables()[0]
    rows = table.lookup(np.frombuffer(b"".join(p.key for p in shown), np.uint8).reshape(-1, 32))
    said = load_run(root / "first").caption_features(table.read(rows))
    (root / "first").rename(root / "run")
    shutil.rmtree(root / "store")
    return root / "run", said


@pytest.fixture(scope="module")
def run(trained):
    return load_run(trained[0])


def test_captions_from_images_equal_those_from_stored_features(trained, run, shown):
    _, said = trained
    for made, stored in zip(run.caption_many([p.data for p in shown]), said, strict=True):
        assert made.text == stored.text
        assert made.score == pytest.approx(stored.score, abs=1e-4)
        np.testing.assert_allclose(made.attention, stored.attention, atol=1e-4)


def test_the_image_at_a_url_is_downloaded_once(run, shown, monkeypatch):
    downloads = []

    def download(url):
        downloads.append(url)
        return shown[0].data

    monkeypatch.setattr("features.inputs.named_image.download", download)
    caption = run.caption("https://example.com/a.jpg")
    assert caption.text == run.caption(shown[0].data).text
    caption.figure()
    assert downloads == ["https://example.com/a.jpg"]


def test_images_are_resized_as_in_the_feature_table(squares, shown, tmp_path):
    store = squares.make_store(tmp_path / "store", shown[:16], resize="tf-bilinear", fit="crop")
    capt.train_captioner(
        store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters={**SIZES, "batch_size": 16}
    )
    table, run = store.feature_tables()[0], load_run(tmp_path / "run")
    (stored,) = run.caption_features(table.read(table.lookup(np.frombuffer(shown[0].key, np.uint8)[None])))
    made = run.caption(shown[0].data)
    assert made.score == pytest.approx(stored.score, abs=1e-6)
    np.testing.assert_allclose(made.attention, stored.attention, atol=1e-6)


def test_captions_describe_the_image(run, shown):
    held_out = [p for p in shown if p.split == "val"]
    said = run.caption_many(p.data for p in held_out)
    right = [made.text in p.captions for p, made in zip(held_out, said, strict=True)]
    assert np.mean(right) >= 0.8


def test_paths_bytes_and_pil_images_have_equal_captions(run, shown, tmp_path):
    data = shown[0].data
    (tmp_path / "a.png").write_bytes(data)
    images = (tmp_path / "a.png", str(tmp_path / "a.png"), data, Image.open(BytesIO(data)))
    made = [run.caption(image) for image in images]
    assert len({one.text for one in made}) == 1
    assert len({one.score for one in made}) == 1
    assert made[0].words == tuple(made[0].text.split())
    assert made[0].attention.shape == (len(made[0].words), 16)
    assert made[0].score < 0


def test_the_exif_orientation_is_applied(run, shown, tmp_path):
    image = Image.open(BytesIO(shown[0].data))
    exif = Image.Exif()
    exif[274] = 3
    image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png", exif=exif)
    expected = run.caption(shown[0].data).text
    assert run.caption(tmp_path / "turned.png").text == expected
    assert run.caption(Image.open(tmp_path / "turned.png")).text == expected


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "LA"])
def test_images_of_every_mode_are_captioned(run, shown, mode):
    assert run.caption(Image.open(BytesIO(shown[0].data)).convert(mode)).words


def test_an_invalid_image_raises_an_error(run, tmp_path):
    with pytest.raises(RecordError, match="decode: unsupported"):
        run.caption(b"no picture")
    with pytest.raises(RecordError, match=r"read: missing: .*none\.png"):
        run.caption(tmp_path / "none.png")


def test_invalid_images_do_not_affect_others(run, shown):
    images = [shown[0].data, b"", shown[1].data, shown[2].data[:60]]
    made = list(run.caption_many(images))
    assert [isinstance(one, RecordError) for one in made] == [False, True, False, True]
    assert made[2].text == run.caption(shown[1].data).text


def test_images_of_several_batches_are_returned_in_order(run, shown):
    many = [shown[i % 16].data for i in range(150)]
    made = [one.text for one in run.caption_many(many)]
    assert made == [made[i % 16] for i in range(150)]


def test_files_directories_and_archives_are_captioned(run, shown, tmp_path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "b.png").write_bytes(shown[1].data)
    (tmp_path / "folder" / "deep" / "c.png").write_bytes(shown[2].data)
    (tmp_path / "folder" / "notes.txt").write_text("no picture")
    (tmp_path / "a.png").write_bytes(shown[0].data)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("in/d.png", shown[3].data)
        archive.writestr("in/bad.jpg", b"no picture")
    (tmp_path / "broken.zip").write_bytes(b"PK no archive")
    names = [str(tmp_path / name) for name in ("a.png", "folder", "broken.zip", "z.zip", "gone.png")]
    results = capt.caption(run=run.path, images=names)["results"]
    assert [os.path.relpath(result["image"], tmp_path) for result in results] == [
        "a.png",
        "folder/b.png",
        "folder/deep/c.png",
        "broken.zip",
        "z.zip/in/bad.jpg",
        "z.zip/in/d.png",
        "gone.png",
    ]
    expected = [shown[0], shown[1], shown[2], None, None, shown[3], None]
    for result, picture in zip(results, expected, strict=True):
        if picture:
            assert result["text"] == run.caption(picture.data).text
        else:
            assert set(result) == {"image", "error"}


def test_an_image_at_a_url_is_captioned(run, shown):
    with image_server() as server:
        url = server.on("/photo.png", answer(body=shown[0].data, kind="image/png"))
        (result,) = capt.caption(run=run.path, images=[url], allow_private_addresses=True)["results"]
        with pytest.raises(CaptError, match="private address"):
            capt.caption(run=run.path, images=[url])
    assert (result["image"], result["text"]) == (url, run.caption(shown[0].data).text)


def test_a_run_is_opened_by_its_path(trained, shown, tmp_path):
    (tmp_path / "a.png").write_bytes(shown[0].data)
    (result,) = capt.caption(run=str(trained[0]), images=[str(tmp_path / "a.png")])["results"]
    assert result["text"]


def test_attention_is_drawn_for_one_image_and_numbered_for_several(run, shown, tmp_path):
    names = [str(tmp_path / name) for name in ("a.png", "bad.png", "c.png")]
    for name, data in zip(names, (shown[0].data, b"", shown[1].data), strict=True):
        Path(name).write_bytes(data)
    (one,) = capt.caption(run=run.path, images=names[:1], attention_plot=str(tmp_path / "out.png"))["results"]
    assert one["attention"] == str(tmp_path / "out.png")
    panels = 1 + len(one["text"].split())
    assert Image.open(tmp_path / "out.png").width > 100 * min(5, panels)
    several = capt.caption(run=run.path, images=names, attention_plot=str(tmp_path / "all.png"))["results"]
    drawn = [result.get("attention") for result in several]
    assert drawn == [str(tmp_path / "all-1.png"), None, str(tmp_path / "all-3.png")]
    assert (tmp_path / "all-3.png").is_file()


def test_the_map_of_the_end_token_is_kept_unless_the_caption_was_cut(run, shown):
    complete = run.caption(shown[0].data)
    assert complete.end_attention.shape == (16,)
    assert complete.end_attention.sum() == pytest.approx(1, abs=1e-5)
    cut = run.caption(shown[0].data, run.decoding(max_new_tokens=len(complete.words)))
    assert cut.words == complete.words
    assert cut.end_attention is None
    np.testing.assert_allclose(cut.attention, complete.attention, atol=1e-6)


def test_the_attention_of_a_caption_is_computed_again_by_layer_and_head(run, shown):
    made = run.caption(shown[0].data)
    weights = made.attention_by_head()
    assert weights.shape == (1, 1, len(made.words) + 1, 16)
    np.testing.assert_allclose(weights[0, 0, :-1], made.attention, atol=1e-5)
    np.testing.assert_allclose(weights[0, 0, -1], made.end_attention, atol=1e-5)
    cut = run.caption(shown[0].data, run.decoding(max_new_tokens=3))
    assert cut.attention_by_head().shape == (1, 1, 3, 16)


def test_a_caption_shows_its_image_and_maps_in_a_notebook(run, shown):
    made = run.caption(shown[0].data)
    figure = made.figure(style="grid", scale="caption")
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["", *made.words, "<end>"]
    assert figure.get_suptitle() == made.text
    assert Image.open(BytesIO(figure._repr_png_())).format == "PNG"
    assert made.figure(heads=True).axes[0].get_title() == "layer 1, head 1"


def test_several_captions_of_an_image_have_figures_each(run, shown):
    made = run.caption(shown[0].data, run.decoding(num_beams=3, num_return_sequences=3))
    assert [one.figure().get_suptitle() for one in (made, *made.others)] == [made.text, *(o.text for o in made.others)]


def test_after_a_failed_image_a_caption_has_its_own_image(run, shown):
    _, made = run.caption_many([b"", shown[1].data])
    expected = Image.open(BytesIO(shown[1].data)).convert("RGB")
    np.testing.assert_array_equal(made.figure().axes[0].images[0].get_array(), np.asarray(expected))


def test_a_caption_from_features_needs_an_image_for_its_figure(trained):
    made = trained[1][0]
    assert made.figure(image=Image.new("RGB", (40, 30))).get_suptitle() == made.text
    with pytest.raises(CaptError, match="generated from features"):
        made.figure()


def test_attention_plots_have_a_style_a_scale_and_an_animation(run, shown, tmp_path):
    (tmp_path / "a.png").write_bytes(shown[0].data)

    def draw(name, **options):
        capt.caption(run=run.path, images=str(tmp_path / "a.png"), attention_plot=tmp_path / name, **options)
        return (tmp_path / name).read_bytes()

    drawn = [
        draw("smooth.png"),
        draw("grid.png", attention_style="grid"),
        draw("scale.png", attention_scale="caption"),
        draw("heads.png", attention_heads=True),
    ]
    assert len(set(drawn)) == 4
    draw("maps.gif")
    with Image.open(tmp_path / "maps.gif") as opened:
        assert opened.n_frames == len(run.caption(shown[0].data).words) + 1


@pytest.mark.parametrize(
    "options", [{"attention_style": "grid"}, {"attention_scale": "caption"}, {"attention_heads": True}]
)
def test_options_of_the_attention_plot_require_it(run, options):
    with pytest.raises(UsageError, match=r"--attention-[a-z]+: it requires --attention-plot or --page"):
        capt.caption(run=run.path, images="a.png", **options)


def test_a_page_shows_every_image_with_its_captions_and_maps(run, shown, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(shown[number].data if number else b"")
    result = capt.caption(
        run=run.path,
        images=[str(tmp_path / f"{number}.png") for number in range(3)],
        page=tmp_path / "deep" / "page.html",
        num_beams=3,
        num_return_sequences=2,
        attention_style="grid",
    )
    assert result["page_path"] == str(tmp_path / "deep" / "page.html")
    page = Page(Path(result["page_path"]).read_text())
    assert len(page.pictures) == 2 * 2, "a picture and its maps"
    assert "no caption: decode: empty" in page.text
    for row in result["results"][1:]:
        assert row["image"] in page.text
        for caption in row["captions"]:
            assert caption["text"] in page.text
    assert "beam search of width 3" in page.text
    assert_inert(page)


def test_the_page_of_a_model_with_pooled_features_has_no_maps(squares, shown, tmp_path, tiny_sizes):
    store = squares.make_store(tmp_path / "store", shown[:16], pooled=True)
    sizes = {**tiny_sizes["nic"], "batch_size": 16}
    capt.train_captioner(store=store.path, run_dir=tmp_path / "nic", model="nic", epochs=1, hyperparameters=sizes)
    (tmp_path / "a.png").write_bytes(shown[0].data)
    capt.caption(run=tmp_path / "nic", images=str(tmp_path / "a.png"), page=tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert len(page.pictures) == 1
    made = load_run(tmp_path / "nic").caption(shown[0].data)
    assert made.figure().get_suptitle().split() == list(made.words)
    with pytest.raises(UsageError, match="has no attention"):
        made.figure(heads=True)


@pytest.mark.parametrize("option", ["page", "attention_plot"])
def test_captions_are_kept_if_a_page_or_plot_cannot_be_written(run, shown, tmp_path, option):
    (tmp_path / "a.png").write_bytes(shown[0].data)
    (tmp_path / "file").write_text("no directory")
    request = {"run": run.path, "images": str(tmp_path / "a.png")}
    (expected,) = capt.caption(**request)["results"]
    with pytest.raises(CaptError) as caught:
        capt.caption(**request, **{option: tmp_path / "file" / "out.png"})
    (row,) = caught.value.summary["results"]
    assert expected.items() <= row.items()
    assert ("attention_error" in row) == (option == "attention_plot")


def test_a_page_that_is_a_directory_is_wrong_usage(run, tmp_path):
    with pytest.raises(UsageError, match=r"--page .*: this is a directory"):
        capt.caption(run=run.path, images="a.png", page=tmp_path)


def test_one_line_per_image_is_printed(run, shown, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(shown[0].data)
    (tmp_path / "b.png").write_bytes(b"")
    result = capt.caption(run=run.path, images=[str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    print_results(result)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path}/a.png\t{result['results'][0]['text']}"
    assert second.startswith(f"{tmp_path}/b.png\tdecode: empty")


def test_missing_images_are_wrong_usage(run):
    with pytest.raises(UsageError, match="PATH: "):
        capt.caption(run=run.path, images=[])


def test_a_directory_without_a_run_is_an_error_with_a_command(tmp_path):
    with pytest.raises(StoreError, match=r"does not contain a run.*capt train captioner"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("network.pb", "the extractor is missing"),
        ("vocabulary.txt", "vocabulary is missing"),
        ("checkpoints/state.json", "no checkpoint yet"),
    ],
)
def test_a_missing_part_of_a_run_is_named(trained, shown, tmp_path, name, reason):
    shutil.copytree(trained[0], tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(StoreError, match=reason):
        load_run(tmp_path / "run").caption(shown[0].data)


def test_corrupt_weights_are_an_error(trained, shown, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob("*.h5"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CorruptFileError, match=r"model\.weights\.h5: the weights cannot be read"):
        load_run(tmp_path / "run").caption(shown[0].data)


def test_metadata_of_a_later_version_is_refused(trained, tmp_path):
    text = (trained[0] / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace('"version": 1', '"version": 2', 1))
    with pytest.raises(StoreError, match=r"run\.json: this version of capt cannot read the run: version"):
        load_run(tmp_path)


def test_a_run_contains_no_links(trained):
    assert not [path for path in trained[0].rglob("*") if path.is_symlink()]


def test_several_captions_are_sorted_best_first(run, shown, tmp_path):
    (tmp_path / "a.png").write_bytes(shown[0].data)
    (result,) = capt.caption(run=run.path, images=[str(tmp_path / "a.png")], num_beams=4, num_return_sequences=3)[
        "results"
    ]
    assert result["text"] == result["captions"][0]["text"]
    assert len({one["text"] for one in result["captions"]}) == 3
    per_word = [one["score"] / (len(one["text"].split()) + 1) for one in result["captions"]]
    assert per_word == sorted(per_word, reverse=True)


def test_samples_depend_on_the_number_of_an_image_and_not_on_its_batch(run, shown):
    decoding = run.decoding(temperature=3.0, seed=5)
    images = [shown[0].data] * 80
    first, again = ([made.text for made in run.caption_many(images, decoding)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 10
    _, bad, *others = run.caption_many([shown[0].data, b"", *images[2:]], decoding)
    assert isinstance(bad, RecordError)
    assert [made.text for made in others] == first[2:]


def test_a_bad_word_is_not_generated(run, shown):
    said = run.caption(shown[0].data)
    assert said.words[1] not in run.caption(shown[0].data, run.decoding(bad_words=[said.words[1]])).words


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bad_words": ["elephant"]}, "--bad-words: 'elephant' is not in the vocabulary"),
        ({"num_beams": 0}, "--num-beams: "),
        ({"top_k": 5}, "require a temperature"),
        ({"num_beams": 2, "temperature": 1.0}, "cannot be combined with a beam"),
    ],
)
def test_invalid_generation_options_are_wrong_usage(run, shown, tmp_path, options, complaint):
    (tmp_path / "a.png").write_bytes(shown[0].data)
    with pytest.raises(UsageError, match=complaint):
        capt.caption(run=run.path, images=[str(tmp_path / "a.png")], **options)


def test_a_run_has_one_file_of_its_extractor(words_store, tmp_path):
    (features,) = words_store.feature_tables()
    (tmp_path / "network.keras").write_bytes(b"of an earlier training")
    copy_frozen_extractor(tmp_path, features)
    assert [path.name for path in tmp_path.iterdir()] == ["network.pb"]


def test_a_run_computes_with_either_format_of_its_extractor(words_run, captchas, tmp_path):
    original = load_run(words_run[0])
    run = load_run(shutil.copytree(words_run[0], tmp_path / "run"))
    table_config = run.metadata.features.table_config
    (run.path / "network.pb").unlink()
    pixels = keras.Input((table_config.height, table_config.width, 3))
    (run.path / "network.keras").write_bytes(encode_model(keras.Model(pixels, pixels)))
    images = [captcha.data for captcha in captchas[:4]]
    assert list(run.recognize_many(images)) == list(original.recognize_many(images))
    assert read_frozen_graph(run.require_extractor(), table_config) == (words_run[0] / "network.pb").read_bytes()
