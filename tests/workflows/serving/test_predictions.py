"""The answers of a server are those of the commands, however the requests of its clients are batched."""

import http.client
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import capt
from schemas.options.serving import Serve
from tests.image_server import image_server
from tests.workflows.serving.http_client import Client
from trainer.runs.run import load_run
from workflows.serving.command import serve
from workflows.serving.served_tasks import ServedCaptioning


def write(directory: Path, pictures: Sequence[Any]) -> list[Path]:
    paths = [directory / f"{picture.image_id}.png" for picture in pictures]
    for path, picture in zip(paths, pictures, strict=True):
        path.write_bytes(picture.data)
    return paths


def test_captions_are_those_of_the_command(client, caption_run, shown, tmp_path) -> None:
    paths = write(tmp_path, shown[:3])
    options = {"num_beams": 3, "num_return_sequences": 2}
    expected = capt.caption(run=caption_run, images=paths, **options)["results"]
    files = [(str(path), path.read_bytes()) for path in paths]
    answer = client.send_form("v1/caption", files, **options)
    assert answer.status == 200
    assert (answer.json["model"], answer.json["run"]) == ("soft", "soft")
    assert [row["text"] for row in answer.json["results"]] == [row["text"] for row in expected]
    for row, wanted in zip(answer.json["results"], expected, strict=True):
        assert row.keys() == wanted.keys()
        assert row["image"] == wanted["image"]
        assert row["score"] == pytest.approx(wanted["score"], abs=1e-4)
        assert [one["text"] for one in row["captions"]] == [one["text"] for one in wanted["captions"]]


def test_labels_are_those_of_the_command(client, captcha_run, captchas, tmp_path) -> None:
    (path,) = write(tmp_path, captchas[:1])
    options = {"decoding_strategy": "lexicon", "min_confidence": 0.999}
    (expected,) = capt.recognize(run=captcha_run, images=[path], **options)["results"]
    (row,) = client.send_form("v1/recognize", [(str(path), path.read_bytes())], **options).json["results"]
    assert row.keys() == expected.keys()
    assert (row["text"], row["greedy"]["text"]) == (expected["text"], expected["greedy"]["text"])
    assert row["confidence"] == pytest.approx(expected["confidence"], abs=1e-4)


def test_images_of_a_client_that_left_are_not_computed(caption_run, shown, monkeypatch) -> None:
    entered, may_compute, predict = threading.Event(), threading.Event(), ServedCaptioning.predict
    computed = []

    def wait(task: Any, run: Any, options: Any, images: Sequence[Any], numbers: Sequence[int]) -> Any:
        computed.extend(images)
        entered.set()
        assert may_compute.wait(60)
        return predict(task, run, options, images, numbers)

    with serve(Serve.parse({"runs": [caption_run], "port": 0})) as server, ThreadPoolExecutor() as pool:
        client, address = Client(server["url"]), urlsplit(server["url"])
        monkeypatch.setattr(ServedCaptioning, "predict", wait)
        first = pool.submit(client.send, "v1/caption", shown[0].data)
        assert entered.wait(60)
        leaving = http.client.HTTPConnection(address.hostname, address.port)
        leaving.request("POST", "/v1/caption", shown[1].data, {"Content-Type": "image/png"})
        while not client.metric("capt_waiting_images", model=caption_run.name):
            pass
        leaving.close()
        while client.metric("capt_requests_in_progress", path="/v1/caption") > 1:
            pass
        may_compute.set()
        assert first.result().json["results"][0]["text"]
        assert client.send("v1/caption", shown[2].data).status == 200
    assert [image.data for image in computed] == [shown[0].data, shown[2].data]


def test_one_compiled_function_serves_all_seeds(caption_run, shown) -> None:
    run = load_run(caption_run)
    texts = set()
    for seed in range(4):
        (caption,) = run.caption_many([shown[0].data], run.decoding(temperature=2.0, seed=seed))
        (again,) = load_run(caption_run).caption_many([shown[0].data], run.decoding(temperature=2.0, seed=seed))
        assert caption.text == again.text
        texts.add(caption.text)
    assert len(texts) > 1
    assert run._make_decoder.cache_info().misses == 1


def test_a_bad_image_fails_alone(client, shown) -> None:
    files = [("a.png", shown[0].data), ("b.png", b"no image"), ("c.png", shown[1].data[:-20])]
    answer = client.send_form("v1/caption", files)
    assert answer.status == 200
    first, second, third = answer.json["results"]
    assert first["text"]
    assert {"error"} == second.keys() - {"image"} == third.keys() - {"image"}


def test_attention_has_a_grid_per_word(client, shown) -> None:
    (row,) = client.send("v1/caption", shown[0].data, attention="true").json["results"]
    attention = row["attention"]
    assert (attention["height"], attention["width"], attention["box"]) == (4, 4, [0, 0, 1, 1])
    words = row["text"].split()
    assert attention["words"] in (words, [*words, "<end>"])
    for weights in attention["weights"]:
        assert len(weights) == 16
        assert sum(weights) == pytest.approx(1, abs=1e-3)


def test_requests_of_many_clients_are_batched_and_do_not_affect_each_other(client, shown) -> None:
    def ask(number: int) -> Any:
        return client.send("v1/caption", shown[number % 8].data, temperature=1.0, seed=3).json["results"][0]["text"]

    alone = [ask(number) for number in range(8)]
    before = client.metric("capt_batch_images_count", model="soft")
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(32)))
    assert together == alone * 4
    assert client.metric("capt_batch_images_count", model="soft") - before < 32
    several = client.send_form("v1/caption", [("a", shown[0].data), ("b", shown[0].data)], temperature=1.0, seed=3)
    assert several.json["results"][0]["text"] == alone[0]


def test_the_models_are_listed_and_chosen_by_name(client, shown) -> None:
    listed = client.send("v1/models").json
    soft, captcha = listed["models"]
    assert (soft["name"], soft["task"], soft["architecture"], soft["attention"]) == (
        "soft",
        "captioner",
        "soft_attention",
        True,
    )
    assert (captcha["name"], captcha["task"], captcha["attention"]) == ("captcha", "captcha", False)
    assert client.send("v1/caption", shown[0].data, model="soft").json["model"] == "soft"
    for name in ("captcha", "none"):
        answer = client.send("v1/caption", shown[0].data, model=name)
        assert (answer.status, answer.code) == (404, "unknown_model")


def test_a_url_of_a_private_address_is_not_requested(client) -> None:
    with image_server() as images:
        answer = client.send("v1/caption", f'{{"url": "{images.url("/1.jpg")}"}}'.encode(), "application/json")
        assert not images.requests
    (row,) = answer.json["results"]
    assert "private address" in row["error"]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": "x"},
        {"num_beams": 1000},
        {"nun_beams": 3},
        {"num_beams": [1, 2]},
        {"top_k": 3},
        {"length_penalty": "inf"},
        {"temperature": "nan"},
        {"bad_words": "zebra"},
        {"max_new_tokens": 0},
    ],
)
def test_a_wrong_option_is_an_error_by_its_name(client: Client, shown, options: dict[str, Any]) -> None:
    answer = client.send("v1/caption", shown[0].data, **options)
    assert (answer.status, answer.code) == (400, "invalid_option")
    assert next(iter(options)) in answer.json["error"]["message"]
