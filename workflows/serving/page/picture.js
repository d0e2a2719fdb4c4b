/* Shows one image with the answers of all chosen models. */

import { captchaAnswer, captionAnswer } from "./answers.js";
import { describeAttention, drawAttention, drawImage, drawScale, largestValue } from "./attention.js";
import { element } from "./elements.js";

const EMPTY_SIDES = [480, 360]; // pixels, for an image that this browser cannot show

export class Picture {
  /**
   * @param {File} file
   * @param {{preview: HTMLCanvasElement | null, width: number, height: number}} image
   * @param {{remove: (picture: Picture) => void, retry: () => void, scale: () => string}} page
   */
  constructor(file, image, page) {
    this.file = file;
    this.preview = image.preview;
    this.page = page;
    /** @type {Map<string, {state: string, row?: object, error?: Error}>} By the name of the model. */
    this.answers = new Map();
    this.kept = null; // the attention that stays on the image: {model, word}
    this.canvas = element("canvas", { role: "img", "aria-label": file.name });
    [this.canvas.width, this.canvas.height] = image.preview ? [image.preview.width, image.preview.height] : EMPTY_SIDES;
    this.caption = element("figcaption", { class: "quiet", "aria-live": "polite" });
    this.cards = element("div", { class: "answers" });
    this.heading = element("h3", { tabindex: "-1" }, file.name);
    this.size = image.preview ? `${image.width} × ${image.height} pixels` : "This browser cannot show the image.";
    const remove = element("button", { type: "button", class: "small", "aria-label": `Remove ${file.name}` }, "Remove");
    remove.addEventListener("click", () => page.remove(this));
    this.article = element(
      "article",
      { class: "picture" },
      element("header", {}, this.heading, remove),
      element("div", { class: "sides" }, element("figure", {}, this.canvas, this.caption), this.cards),
    );
    this.hide();
  }

  /** Shows the answers of these models, in this order. */
  showAnswers(models) {
    this.kept = null;
    this.hide();
    this.cards.replaceChildren(...models.map((model) => this.#card(model)));
  }

  /** Shows the new answer of one model, in its place. */
  updateAnswer(model, index) {
    const old = this.cards.children[index];
    if (old.contains(document.activeElement)) this.heading.focus({ preventScroll: true });
    old.replaceWith(this.#card(model));
  }

  /** Shows the image without attention, or with the one that is kept. */
  hide() {
    if (this.kept) this.#draw(this.kept.model, this.kept.word);
    else {
      drawImage(this.canvas, this.preview);
      this.canvas.hidden = !this.preview;
      this.caption.replaceChildren(this.size);
    }
  }

  /** Removes the attention that is kept. */
  release() {
    this.#keep(null);
    this.hide();
  }

  #card(model) {
    const answer = this.answers.get(model.name) ?? { state: "waiting" };
    const facts = element("span", { class: "quiet" }, `${model.architecture}, epoch ${model.epoch}`);
    const heading = element("h4", {}, model.name, facts);
    const busy = answer.state === "waiting" || answer.state === "running";
    const attributes = { class: "answer", role: "group", "aria-label": model.name, "aria-busy": String(busy) };
    return element("div", attributes, heading, ...this.#content(model, answer));
  }

  #content(model, { state, row, error }) {
    if (state === "waiting") return [element("p", { class: "quiet" }, "Waits for the server.")];
    if (state === "running") return [element("p", { class: "quiet" }, "The model runs.")];
    if (state === "failed") {
      const retry = element("button", { type: "button", class: "small" }, "Try again");
      retry.addEventListener("click", () => {
        this.answers.delete(model.name);
        this.page.retry();
      });
      return [element("p", { class: "error" }, error.message), retry];
    }
    if (row.error) {
      const advice = "Check that the file opens elsewhere, or save it as JPEG or PNG.";
      const reason = row.error.replace(/\.$/, "");
      return [element("p", { class: "error" }, `The server cannot read this image: ${reason}. ${advice}`)];
    }
    if (model.task === "captcha") return captchaAnswer(row);
    return captionAnswer(row, {
      show: (word, keep) => (keep ? this.#toggle(model, word) : this.#draw(model, word)),
      hide: () => this.hide(),
    });
  }

  #toggle(model, word) {
    const isKept = this.kept?.model === model && this.kept.word === word;
    this.#keep(isKept ? null : { model, word });
    if (isKept) this.hide();
    else this.#draw(model, word);
  }

  #keep(kept) {
    this.kept = kept;
    for (const button of this.cards.querySelectorAll(".word")) button.setAttribute("aria-pressed", "false");
    if (!kept) return;
    const card = Array.from(this.cards.children).find((one) => one.getAttribute("aria-label") === kept.model.name);
    card.querySelectorAll(".word")[kept.word].setAttribute("aria-pressed", "true");
  }

  #draw(model, word) {
    const { attention } = this.answers.get(model.name).row;
    const isOfCaption = this.page.scale() === "caption";
    const largest = largestValue(attention, isOfCaption ? null : word);
    drawAttention(this.canvas, this.preview, attention, word, largest);
    const scale = element("canvas", { class: "scale", width: 80, height: 12, "aria-hidden": "true" });
    drawScale(scale);
    this.canvas.hidden = false;
    this.caption.replaceChildren(
      `${model.name}, “${attention.words[word]}”: ${describeAttention(attention, word)}`,
      element("div", {}, "0", scale, isOfCaption ? "maximum of the caption" : "maximum of the word"),
    );
  }
}
