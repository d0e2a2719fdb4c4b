/* Shows the answers of the models: captions with words to hover, and recognized labels. */

import { copyButton, element, percent } from "./elements.js";

const STRATEGIES = ["greedy", "beam", "lexicon"];

/**
 * Shows the answer for a captioned image.
 *
 * @param {object} row With `text`, `score`, and perhaps `captions` and `attention`.
 * @param {{show: (word: number, keep: boolean) => void, hide: () => void}} maps Shows the attention of a word.
 */
export function captionAnswer(row, maps) {
  const parts = [captionText(row, maps)];
  const score = row.score.toFixed(2).replace("-", "−");
  parts.push(element("p", { class: "quiet" }, `probability ${percent(Math.exp(row.score))}, score ${score}`));
  if (row.captions?.length > 1) parts.push(nextCaptions(row.captions.slice(1)));
  parts.push(copyButton("Copy the caption", row.text));
  return parts;
}

/** Shows the answer for a recognized image. */
export function captchaAnswer(row) {
  const label = row.prediction ?? row.text;
  const parts = [];
  if (row.prediction !== undefined) {
    parts.push(element("p", {}, "Left open: the confidence is below the smallest confidence. The prediction would be"));
  }
  parts.push(
    label
      ? element("p", { class: "label", dir: "auto" }, label)
      : element("p", { class: "text" }, "No character was recognized."),
    element("p", { class: "quiet" }, `confidence of the label ${percent(row.confidence)}`),
  );
  if (label) parts.push(characterList(label, row.character_confidence));
  const strategies = STRATEGIES.filter((name) => row[name]);
  if (strategies.length) parts.push(strategyTable(row, strategies));
  if (label) parts.push(copyButton("Copy the label", label));
  return parts;
}

function captionText(row, maps) {
  if (!row.text) return element("p", { class: "text" }, "The model generated no word.");
  if (!row.attention) return element("p", { class: "text", dir: "auto" }, row.text);
  const words = row.attention.words.map((word, index) => wordButton(word, index, row.attention, maps));
  const attributes = { class: "words", role: "group", dir: "auto", "aria-label": `Caption: ${row.text}` };
  const group = element("p", attributes, ...words);
  group.addEventListener("keydown", (event) => moveFocus(event, words));
  return group;
}

function wordButton(word, index, attention, maps) {
  const isEnd = index === attention.words.length - 1 && word.startsWith("<");
  return element(
    "button",
    {
      type: "button",
      class: isEnd ? "word special" : "word",
      tabindex: index === 0 ? "0" : "-1", // one stop of Tab per caption; the arrow keys move within it
      "aria-pressed": "false",
      pointerenter: (event) => event.pointerType === "mouse" && maps.show(index, false),
      pointerleave: (event) => event.pointerType === "mouse" && maps.hide(),
      focus: (event) => event.target.matches(":focus-visible") && maps.show(index, false),
      blur: () => maps.hide(),
      click: () => maps.show(index, true),
    },
    word,
  );
}

function moveFocus(event, words) {
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const from = words.indexOf(event.target);
  const to = Math.min(Math.max(from + step, 0), words.length - 1);
  words[from].tabIndex = -1;
  words[to].tabIndex = 0;
  words[to].focus();
}

/** Lists the captions after the best one. */
function nextCaptions(captions) {
  const items = captions.map(({ text, score }) =>
    element(
      "li",
      {},
      element("span", { dir: "auto" }, text || "no word"),
      " ",
      element("span", { class: "quiet" }, percent(Math.exp(score))),
    ),
  );
  const label = "Next captions, best first, with their probabilities";
  return element("ol", { class: "ranked", start: 2, "aria-label": label }, ...items);
}

function characterList(label, confidences) {
  const items = Array.from(label).map((character, index) =>
    element(
      "li",
      {},
      element("span", { class: "character" }, character),
      element("meter", { min: 0, max: 1, value: confidences[index], "aria-hidden": "true" }),
      element("span", { class: "percent" }, percent(confidences[index])),
    ),
  );
  return element("ul", { class: "characters", "aria-label": "Confidence per character" }, ...items);
}

function strategyTable(row, strategies) {
  const head = ["strategy", "label", "confidence"].map((name) => element("th", { scope: "col" }, name));
  const lines = strategies.map((name) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", { dir: "auto" }, row[name].text || "none"),
      element("td", {}, percent(row[name].confidence)),
    ),
  );
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines));
}
