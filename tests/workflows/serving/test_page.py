"""The page of `capt serve` in Chromium: images, answers, attention maps, errors, keyboard and accessibility."""

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

import capt
import tests.trainer.conftest as squares
from features.store import create_store
from tests.commands import CommandServer
from tests.conftest import noise_image
from tests.workflows.serving.service import Service

REQUIRED = os.environ.get("CAPT_REQUIRE_BROWSER") == "1"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM and not REQUIRED, reason="there is no Chromium on the path"),
]
MILLISECONDS = 60_000  # to wait at most: a model is compiled for its first image
expect.set_options(timeout=MILLISECONDS)

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def nic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner without attention."""
    root, shown = tmp_path_factory.mktemp("served"), squares.pictures(32)
    store = create_store(root / "store")
    squares.add_features(store, shown, pooled=True)
    squares.add_captions(store, shown)
    squares.add_dataset(store, shown)
    hyperparameters = {**squares.TINY_SIZES["nic"], "batch_size": 16, "num_sample_captions": 0}
    capt.train_captioner(store=store.path, run_dir=root / "nic", model="nic", epochs=2, hyperparameters=hyperparameters)
    return root / "nic"


@pytest.fixture(scope="module")
def service(
    commands: CommandServer,
    caption_run: Path,
    nic_run: Path,
    captcha_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """The models `soft`, which has attention, `nic` and `captcha`."""
    with Service(commands, tmp_path_factory.mktemp("log") / "log", caption_run, nic_run, captcha_run) as service:
        yield service


@pytest.fixture(scope="module")
def url(service: Service) -> str:
    return service.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests, with a camera that shows a test picture."""
    assert CHROMIUM, "install Chromium: apt-get install chromium"
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=camera)


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[OpenPage]:
    """Opens the page; a violated content security policy or an uncaught error fails the test."""
    errors: list[str] = []
    contexts = []

    def open_one(address: str = url, **settings: Any) -> Page:
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    # The browser itself logs responses with an error status, and that it reaches no server.
    assert [error for error in errors if not error.startswith("Failed to load resource")] == []


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    page = open_page()
    expect(page.get_by_role("checkbox").first).to_be_checked()
    return page


def encode(image: Image.Image, name: str) -> dict[str, Any]:
    """An image as the browser chooses it."""
    data = BytesIO()
    image.save(data, "JPEG" if name.endswith("jpg") else "PNG")
    return {"name": name, "mimeType": f"image/{'jpeg' if name.endswith('jpg') else 'png'}", "buffer": data.getvalue()}


def choose(page: Page, *files: dict[str, Any]) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose images").press("Enter")
    chooser.value.set_files(list(files))


def transfer(page: Page, file: dict[str, Any]) -> Any:
    """A DataTransfer with a file, as the browser gives it to the page when one is dropped."""
    script = """([data, name, type]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(data), (one) => one.charCodeAt(0))], name, { type }));
        return transfer;
    }"""
    return page.evaluate_handle(script, [base64.b64encode(file["buffer"]).decode(), file["name"], file["mimeType"]])


def article(page: Page, name: str) -> Locator:
    return page.get_by_role("article").filter(has=page.get_by_role("heading", name=name, exact=True))


def words(page: Page) -> Locator:
    return page.locator(".word")


def pixels(page: Page) -> list[int]:
    """The red values of the first image's canvas, at 16 × 12 places."""
    script = """(canvas) => {
        const [width, height] = [canvas.width / 16, canvas.height / 12];
        const at = (x, y) => canvas.getContext("2d").getImageData((x + 0.5) * width, (y + 0.5) * height, 1, 1).data[0];
        return Array.from({ length: 192 }, (_, index) => at(index % 16, Math.floor(index / 16)));
    }"""
    red: list[int] = page.locator("figure canvas").first.evaluate(script)
    return red


SCENE = encode(noise_image(1), "scene.png")


def test_chosen_image_gets_a_caption_and_ranked_captions_with_probabilities(page: Page) -> None:
    choose(page, SCENE)
    shown = article(page, "scene.png")
    expect(shown.get_by_text(re.compile(r"probability \d"))).to_be_visible()
    expect(shown.get_by_role("list").get_by_role("listitem")).to_have_count(2)
    expect(page.get_by_role("status")).not_to_be_empty()


def test_image_is_dropped(page: Page) -> None:
    page.dispatch_event("body", "drop", {"dataTransfer": transfer(page, SCENE)})
    expect(article(page, "scene.png").locator(".word").first).to_be_visible()


def test_image_is_pasted(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    data = base64.b64encode(SCENE["buffer"]).decode()
    script = """async (data) => {
        const blob = new Blob([Uint8Array.from(atob(data), (one) => one.charCodeAt(0))], { type: "image/png" });
        await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    }"""
    page.evaluate(script, data)
    page.keyboard.press("Control+V")
    expect(words(page).first).to_be_visible()


def test_pasted_text_is_refused(page: Page) -> None:
    page.evaluate("document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: new DataTransfer() }))")
    expect(page.get_by_role("alert").first).not_to_be_empty()


def test_camera_takes_an_image(page: Page) -> None:
    page.get_by_role("button", name="Use the camera").click()
    page.locator("video").evaluate("(video) => video.videoWidth || new Promise((done) => (video.onloadeddata = done))")
    page.get_by_role("button", name="Take the picture").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(words(page).first).to_be_visible()


def test_hovered_word_shows_its_attention(page: Page) -> None:
    choose(page, SCENE)
    expect(words(page).first).to_be_visible()
    plain = pixels(page)
    words(page).nth(0).hover()
    first = pixels(page)
    page.mouse.move(0, 0)
    assert first != plain
    assert pixels(page) == plain


def test_focused_word_shows_the_same_attention(page: Page) -> None:
    choose(page, SCENE)
    words(page).nth(1).hover()
    hovered = pixels(page)
    page.mouse.move(0, 0)
    page.get_by_role("button", name="Remove scene.png").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(words(page).nth(1)).to_be_focused()
    assert pixels(page) == hovered


def test_clicked_word_keeps_its_attention_until_escape(page: Page) -> None:
    choose(page, SCENE)
    expect(words(page).first).to_be_visible()
    plain = pixels(page)
    words(page).first.click()
    page.mouse.move(0, 0)
    expect(words(page).first).to_have_attribute("aria-pressed", "true")
    assert pixels(page) != plain
    page.keyboard.press("Escape")
    assert pixels(page) == plain


def test_models_answer_side_by_side(page: Page) -> None:
    choose(page, SCENE)
    for name in ("nic", "captcha"):
        page.get_by_role("checkbox", name=name).check()
    for name in ("soft", "nic", "captcha"):
        expect(page.get_by_role("group", name=name, exact=True)).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("group", name="captcha", exact=True).get_by_role("table")).to_be_visible()
    page.get_by_role("checkbox", name="soft").uncheck()
    expect(page.get_by_role("group", name="soft", exact=True)).to_have_count(0)
    expect(page.get_by_role("group", name="nic", exact=True)).to_be_visible()


def test_label_has_a_confidence_per_character(page: Page) -> None:
    page.get_by_role("checkbox", name="captcha").check()
    page.get_by_role("checkbox", name="soft").uncheck()
    choose(page, SCENE)
    label = page.locator(".label").inner_text()
    characters = page.get_by_role("list", name="Confidence per character").get_by_role("listitem")
    assert [re.fullmatch(r"(.)\s+[\d.e-]+%", text)[1] for text in characters.all_inner_texts()] == list(label)
    assert characters.locator("meter").count() == len(label)


def test_settings_are_sent_and_wrong_ones_are_not(page: Page) -> None:
    choose(page, SCENE)
    expect(words(page).first).to_be_visible()
    page.get_by_text("Caption settings").click()
    with page.expect_request(re.compile("num_beams=5&.*num_return_sequences=5")):
        page.get_by_label("Number of captions").fill("5")
        page.get_by_label("Number of captions").blur()
    with page.expect_request(re.compile("temperature=1&seed=0")):
        page.get_by_label("Decoding", exact=True).select_option("sampling")
    expect(page.get_by_role("status")).to_have_text("The answer is here.")
    page.get_by_label("Temperature").fill("-1")
    page.get_by_label("Temperature").blur()
    expect(page.get_by_role("alert").first).to_contain_text("Temperature")


def test_corrupt_image_is_an_error_of_its_own(page: Page) -> None:
    choose(page, {**SCENE, "name": "corrupt.png", "buffer": SCENE["buffer"][:60]}, SCENE)
    expect(article(page, "corrupt.png").locator(".error")).not_to_be_empty()
    expect(article(page, "scene.png").locator(".word").first).to_be_visible()


def test_markup_in_a_file_name_is_text(page: Page) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    choose(page, {**SCENE, "name": name})
    expect(article(page, name).locator(".word").first).to_be_visible()


def test_file_without_an_image_is_not_sent(page: Page) -> None:
    choose(page, {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"text"})
    expect(page.get_by_role("alert").first).to_contain_text("notes.txt")
    assert page.get_by_role("article").count() == 0


def test_image_above_the_limits_is_not_sent(open_page: OpenPage, url: str) -> None:
    page = open_page("about:blank")
    limits = {"max_images": 2, "max_body_bytes": 100_000, "max_pixels": 96 * 72}

    def lower(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=json.dumps({**response.json(), **limits}))

    page.route("**/v1/models", lower)
    page.goto(url)
    expect(page.get_by_role("checkbox").first).to_be_checked()
    large = encode(noise_image(2, 97, 72), "large.png")
    heavy = {**SCENE, "name": "heavy.png", "buffer": SCENE["buffer"] + bytes(100_000)}
    choose(page, large, heavy, SCENE, {**SCENE, "name": "second.png"}, {**SCENE, "name": "third.png"})
    for name in ("large.png", "heavy.png", "third.png"):
        expect(page.locator(".notice").filter(has_text=name)).to_have_count(1)
    expect(page.get_by_role("article")).to_have_count(2)


def test_image_of_30_megapixels_gets_a_caption(page: Page) -> None:
    choose(page, encode(noise_image(3, 6000, 5000), "large.jpg"))
    expect(words(page).first).to_be_visible()
    plain = pixels(page)
    words(page).first.hover()
    assert pixels(page) != plain


def test_page_continues_when_the_server_is_back(open_page: OpenPage, service: Service) -> None:
    page = open_page(service.url)
    expect(page.get_by_role("checkbox").first).to_be_checked()
    service.stop()
    choose(page, SCENE)
    expect(page.get_by_role("alert").first).to_contain_text("does not answer")
    expect(article(page, "scene.png").locator(".error")).to_contain_text("does not answer")
    service.start()
    expect(words(page).first).to_be_visible()
    expect(page.get_by_role("alert").first).to_be_empty()


def test_page_that_was_opened_without_an_answer_continues(open_page: OpenPage, url: str) -> None:
    page = open_page("about:blank")
    page.route(re.compile("/v1/models|/healthz"), lambda route: route.abort())
    page.goto(url)
    expect(page.get_by_role("alert").first).to_contain_text("does not answer")
    page.unroute_all()
    expect(page.get_by_role("checkbox").first).to_be_checked()


def test_overloaded_server_is_asked_again(page: Page) -> None:
    answers = iter([503])

    def refuse_once(route: Any) -> None:
        error = {"error": {"code": "overloaded", "message": "Try again."}}
        if next(answers, None):
            route.fulfill(status=503, headers={"Retry-After": "1"}, json=error)
        else:
            route.continue_()

    page.route("**/v1/caption?*", refuse_once)
    choose(page, SCENE)
    expect(words(page).first).to_be_visible()


def test_error_of_a_request_is_its_sentence_and_can_be_tried_again(page: Page) -> None:
    sentence = "The model needed too much time. Try again."
    error = {"error": {"code": "timeout", "message": sentence}}
    page.route("**/v1/caption?*", lambda route: route.fulfill(status=504, json=error))
    choose(page, SCENE)
    expect(article(page, "scene.png").get_by_text(sentence)).to_be_visible()
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect(words(page).first).to_be_visible()


def test_api_key_is_asked_for(open_page: OpenPage, commands: CommandServer, caption_run: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("right\n")
    with Service(commands, tmp_path / "log", caption_run, "--api-key-file", tmp_path / "key") as service:
        page = open_page(service.url)
        key = page.get_by_role("textbox", name="API key")
        expect(key).to_be_focused()
        assert violations(page) == []
        key.fill("wrong")
        key.press("Enter")
        expect(page.locator("#key-error")).not_to_be_empty()
        key.fill("right")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("checkbox").first).to_be_checked()
        choose(page, SCENE)
        expect(words(page).first).to_be_visible()
        page.reload()
        expect(page.get_by_role("checkbox").first).to_be_checked()


def test_results_are_saved(page: Page) -> None:
    choose(page, SCENE)
    expect(words(page).first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert [one["image"] for one in saved["results"]] == ["scene.png"]
    assert [one["model"] for one in saved["results"][0]["models"]] == ["soft"]
    assert saved["results"][0]["models"][0]["text"]


def test_images_are_removed(page: Page) -> None:
    choose(page, SCENE, {**SCENE, "name": "second.png"})
    page.get_by_role("button", name="Remove scene.png").click()
    expect(page.get_by_role("article")).to_have_count(1)
    expect(page.get_by_role("heading", name="second.png")).to_be_focused()
    page.get_by_role("button", name="Remove all").click()
    expect(page.get_by_role("article")).to_have_count(0)
    expect(page.get_by_role("button", name="Choose images")).to_be_focused()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible_and_fits(open_page: OpenPage, scheme: str, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
    expect(page.get_by_role("checkbox").first).to_be_checked()
    assert violations(page) == []
    for box in page.get_by_role("checkbox").all():
        box.check()
    for summary in page.locator("summary").all():
        summary.click()
    choose(page, SCENE, {**SCENE, "name": "corrupt.png", "buffer": b"nothing"})
    expect(page.locator("[aria-busy=false]")).to_have_count(6)
    words(page).first.click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def violations(page: Page) -> list[tuple[str, Any]]:
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
