/* Connects the controls of the page with the requests and the results. */

import { answer, ApiError, endpoint, forgetKey, hasKey, keepKey, listModels, ServerGone } from "./api.js";
import { hasCamera, openCamera } from "./camera.js";
import { copy, element } from "./elements.js";
import { checkFile, readImage, RefusedImage } from "./image.js";
import { Picture } from "./picture.js";

const MAX_REQUESTS = 3; // at the same time
const RETRY_MS = 2000; // between two attempts to reach the server
const TASKS = { captcha: "CAPTCHA recognition" };
const SEARCH = ["num_beams", "length_penalty"];
const SAMPLING = ["temperature", "seed"];

const byId = (id) => document.getElementById(id);

let limits = null; // the answer of /v1/models
let pictures = [];
let requests = new AbortController(); // all that are under way
let isGone = false;

/* Models and API key */

async function loadModels() {
  try {
    limits = await listModels();
  } catch (error) {
    if (error instanceof ServerGone) return waitForServer();
    if (error.code === "unauthorized") return askForKey();
    return notify(error.message, "Try again", loadModels);
  }
  showModels();
  await answerAll();
}

function showModels() {
  const chosen = new Set(chosenModels().map((model) => model.name));
  const known = limits.models.some((model) => chosen.has(model.name));
  const legend = byId("models").querySelector("legend");
  const tasks = [...new Set(limits.models.map((model) => model.task))];
  const parts = tasks.flatMap((task) => {
    const models = limits.models.filter((model) => model.task === task);
    const name = element("p", { class: "task" }, TASKS[task] ?? "Captions");
    const isChecked = (model) => (known ? chosen.has(model.name) : model === limits.models[0]);
    return [...(tasks.length > 1 ? [name] : []), ...models.map((model) => modelBox(model, isChecked(model)))];
  });
  byId("models").replaceChildren(legend, ...parts);
  byId("caption-options").hidden = tasks.every((task) => task === "captcha");
  byId("captcha-options").hidden = !tasks.includes("captcha");
  for (const picture of pictures) picture.showAnswers(chosenModels());
}

function modelBox(model, checked) {
  const run = model.run === model.name ? [] : [`run ${model.run}`];
  const facts = [model.architecture, ...run, `epoch\u00a0${model.epoch}`, ...(model.registered ? ["registered"] : [])];
  const input = element("input", { type: "checkbox", name: "model", value: model.name, checked, change: changeModels });
  const text = element("span", {}, model.name, element("span", { class: "quiet" }, facts.join(", ")));
  return element("label", { class: "model" }, input, text);
}

function chosenModels() {
  const names = new Set(Array.from(document.querySelectorAll("input[name=model]:checked"), (input) => input.value));
  return (limits?.models ?? []).filter((model) => names.has(model.name));
}

function askForKey() {
  if (byId("key-dialog").open) return;
  byId("key-error").textContent = hasKey() ? "The server does not accept this key. Enter another one." : "";
  forgetKey();
  byId("key").value = "";
  byId("key-dialog").showModal();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(byId("key").value.trim());
  byId("key-dialog").close("key");
  clearNotices();
  forgetFailures();
  loadModels();
});
byId("key-cancel").addEventListener("click", () => byId("key-dialog").close("cancel"));
byId("key-dialog").addEventListener("close", () => {
  if (!hasKey()) notify("This server requires an API key, and no model runs without it.", "Enter the key", askForKey);
});

/* Images */

async function addFiles(files) {
  if (!limits) return notify("The models are not loaded yet, so no image was added. Wait, then add it again.");
  clearNotices();
  for (const file of files) {
    if (pictures.length >= limits.max_images) {
      notify(`The page shows at most ${limits.max_images} images. Remove some, then add ${file.name} again.`);
      break;
    }
    try {
      checkFile(file, limits);
      const actions = { remove: removePicture, retry: answerAll, scale: () => byId("attention_scale").value };
      const picture = new Picture(file, await readImage(file, limits), actions);
      pictures.push(picture);
      byId("pictures").append(picture.article);
      picture.showAnswers(chosenModels());
    } catch (error) {
      if (!(error instanceof RefusedImage)) throw error;
      notify(error.message);
    }
  }
  showList();
  showFirst(pictures.find((picture) => files.includes(picture.file)));
  await answerAll();
}

/** Scrolls to the results if they are below the controls, as on a phone. */
function showFirst(picture) {
  if (picture && picture.article.getBoundingClientRect().top > 0.6 * innerHeight) picture.article.scrollIntoView();
}

function removePicture(picture) {
  const index = pictures.indexOf(picture);
  pictures = pictures.filter((one) => one !== picture);
  picture.article.remove();
  const next = pictures[Math.min(index, pictures.length - 1)];
  (next ? next.heading : byId("choose")).focus();
  showList();
}

function clearPictures() {
  requests.abort();
  requests = new AbortController();
  pictures = [];
  byId("pictures").replaceChildren();
  clearNotices();
  byId("choose").focus();
  showList();
}

function showList() {
  const items = pictures.map((picture) => element("li", {}, thumbnail(picture)));
  byId("thumbnails").replaceChildren(...items);
  byId("thumbnails").hidden = pictures.length < 2;
  byId("clear").hidden = byId("save").hidden = pictures.length === 0;
  byId("empty").hidden = pictures.length > 0;
  showStatus();
  showRequest();
}

function thumbnail(picture) {
  const { name } = picture.file;
  const button = element("button", { type: "button", title: name, "aria-label": `Go to ${name}` });
  button.addEventListener("click", () => {
    picture.article.scrollIntoView();
    picture.heading.focus({ preventScroll: true });
  });
  if (!picture.preview) return button.append("?"), button;
  const canvas = element("canvas", { "aria-hidden": "true" });
  const scale = 112 / Math.min(picture.preview.width, picture.preview.height);
  canvas.width = Math.min(448, picture.preview.width * scale);
  canvas.height = Math.min(448, picture.preview.height * scale);
  canvas.getContext("2d").drawImage(picture.preview, 0, 0, canvas.width, canvas.height);
  button.append(canvas);
  return button;
}

/* Answers */

/** Sends every image to every chosen model that has not answered yet. */
async function answerAll() {
  const { signal } = requests;
  const models = chosenModels();
  showRequest();
  const waiting = pictures
    .flatMap((picture) => models.map((model) => ({ picture, model })))
    .filter(({ picture, model }) => !picture.answers.has(model.name));
  for (const { picture, model } of waiting) set(picture, model, { state: "waiting" });
  const next = async () => {
    for (let one = waiting.shift(); one && !signal.aborted; one = waiting.shift()) await answerOne(one, signal);
  };
  await Promise.all(Array.from({ length: MAX_REQUESTS }, next));
}

async function answerOne({ picture, model }, signal) {
  if (!pictures.includes(picture) || isGone) return;
  if (!chosenModels().some((one) => one.name === model.name)) return void picture.answers.delete(model.name);
  set(picture, model, { state: "running" });
  try {
    set(picture, model, { state: "done", row: await answer(model, picture.file, optionsOf(model), signal) });
  } catch (error) {
    if (signal.aborted) return;
    set(picture, model, { state: "failed", error });
    if (error instanceof ServerGone) waitForServer();
    else if (error.code === "unauthorized") askForKey();
    else if (error.code === "unknown_model") loadModels();
    else if (!(error instanceof ApiError)) throw error;
  }
}

function set(picture, model, answered) {
  picture.answers.set(model.name, answered);
  const index = chosenModels().findIndex((one) => one.name === model.name);
  if (index >= 0 && pictures.includes(picture)) picture.updateAnswer(model, index);
  showStatus();
}

function changeModels() {
  for (const picture of pictures) picture.showAnswers(chosenModels());
  showStatus();
  answerAll();
}

/** Forgets all answers of a kind and requests them again. */
function changeOptions(task) {
  requests.abort();
  requests = new AbortController();
  for (const picture of pictures) {
    for (const model of limits.models) {
      const isUnderWay = ["waiting", "running"].includes(picture.answers.get(model.name)?.state);
      if (isUnderWay || (model.task === "captcha") === (task === "captcha")) picture.answers.delete(model.name);
    }
    picture.showAnswers(chosenModels());
  }
  answerAll();
}

function optionsOf(model) {
  const options = new URLSearchParams();
  const add = (id) => byId(id).value !== "" && options.set(id, byId(id).value);
  if (model.task === "captcha") {
    ["decoding_strategy", "min_confidence"].forEach(add);
    return options;
  }
  [...(byId("method").value === "search" ? SEARCH : SAMPLING), "num_return_sequences", "max_new_tokens"].forEach(add);
  if (model.attention) options.set("attention", "true");
  return options;
}

function showStatus() {
  const models = chosenModels();
  const wanted = pictures.flatMap(({ answers }) => models.map(({ name }) => answers.get(name)?.state ?? "waiting"));
  const done = wanted.filter((state) => state === "done").length;
  const failed = wanted.filter((state) => state === "failed").length;
  const open = wanted.length - done - failed;
  let text = "";
  if (pictures.length && !wanted.length) text = "Choose a model.";
  else if (open) text = `${done + failed} of ${wanted.length} answers`;
  else if (failed) text = `${done} of ${wanted.length} answers. ${failed} failed.`;
  else if (wanted.length) text = `All ${wanted.length} answers are here.`;
  if (wanted.length === 1 && !open && !failed) text = "The answer is here.";
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

function showRequest() {
  const [model] = chosenModels();
  byId("request").hidden = !model;
  if (!model) return;
  const name = pictures[0]?.file.name ?? "photo.jpg";
  const key = hasKey() ? ' -H "Authorization: Bearer $KEY"' : "";
  const url = new URL(endpoint(model, optionsOf(model)), location.href);
  byId("command").textContent = `curl${key} -F ${quote(`image=@${name}`)} ${quote(url.href)}`;
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function save() {
  const results = pictures.map((picture) => ({
    image: picture.file.name,
    models: chosenModels().map((model) => {
      const { row, error } = picture.answers.get(model.name) ?? {};
      const failure = { error: error?.message ?? "no answer yet" };
      return { model: model.name, run: model.run, epoch: model.epoch, ...(row ?? failure) };
    }),
  }));
  const url = URL.createObjectURL(new Blob([JSON.stringify({ results }, null, 2)], { type: "application/json" }));
  element("a", { href: url, download: "results.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/* Server gone and back */

async function waitForServer() {
  if (isGone) return;
  isGone = true;
  notify(new ServerGone().message);
  while (isGone) {
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    isGone = !(await fetch("healthz", { cache: "no-store" }).then((response) => response.ok, () => false));
  }
  clearNotices();
  forgetFailures();
  await loadModels();
}

/** Forgets the answers that failed or were not requested, so that `answerAll` requests them. */
function forgetFailures() {
  for (const { answers } of pictures) {
    for (const [name, { state }] of answers) if (state === "waiting" || state === "failed") answers.delete(name);
  }
}

/* Notices */

function notify(message, action = "", run = null) {
  const close = element("button", { type: "button", class: "small" }, action || "Close");
  const notice = element("div", { class: "notice" }, element("p", {}, message), close);
  close.addEventListener("click", () => {
    notice.remove();
    run?.();
  });
  byId("notices").append(notice);
}

const clearNotices = () => byId("notices").replaceChildren();

/* Controls */

byId("choose").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = ""; // the same file can be chosen again
  addFiles(files);
});
byId("clear").addEventListener("click", clearPictures);
byId("save").addEventListener("click", save);
byId("copy-command").addEventListener("click", (event) => copy(event.target, byId("command").textContent));
byId("copy-command").hidden = !navigator.clipboard;
byId("controls").addEventListener("submit", (event) => event.preventDefault());

byId("camera").hidden = !hasCamera();
byId("camera").addEventListener("click", () =>
  openCamera(byId("camera-dialog"), (file) => addFiles([file])).catch((error) => notify(error.message)),
);

document.addEventListener("paste", (event) => {
  if (event.target.matches?.("input")) return;
  const files = [...event.clipboardData.files];
  if (files.length) addFiles(files);
  else notify("The clipboard has no image. Copy an image, not its address, then paste again.");
});

let depth = 0; // of the elements that the dragged files have entered
document.addEventListener("dragenter", () => document.body.classList.toggle("dragging", ++depth > 0));
document.addEventListener("dragleave", () => document.body.classList.toggle("dragging", --depth > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dragging");
  const files = [...event.dataTransfer.files];
  if (files.length) addFiles(files);
  else notify("Nothing that was dropped is a file. Save the image first, then drop its file.");
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const picture of pictures) picture.release();
});

byId("caption-options").addEventListener("change", (event) => {
  if (event.target.id === "attention_scale") return pictures.forEach((picture) => picture.hide());
  showMethod();
  fitBeams(event.target);
  if (checkFields("caption-options")) changeOptions("caption");
});
byId("captcha-options").addEventListener("change", () => {
  if (checkFields("captcha-options")) changeOptions("captcha");
});

function showMethod() {
  for (const part of document.querySelectorAll("[data-method]")) {
    part.hidden = part.dataset.method !== byId("method").value;
    if (part.matches("input")) part.disabled = part.hidden;
  }
}

/** A beam search returns at most as many captions as it has beams: the other field follows the changed one. */
function fitBeams(changed) {
  const [beams, captions] = [byId("num_beams"), byId("num_return_sequences")];
  if (byId("method").value !== "search" || Number(captions.value) <= Number(beams.value)) return;
  if (changed === beams) captions.value = beams.value;
  else beams.value = captions.value;
}

function checkFields(id) {
  const wrong = byId(id).querySelector("input:invalid:not([hidden])");
  clearNotices();
  if (!wrong) return true;
  const name = document.querySelector(`label[for=${wrong.id}]`).textContent;
  const whole = wrong.step === "1" ? "a whole number" : "a number";
  notify(`${name}: enter ${whole} from ${wrong.min} to ${wrong.max}.`);
  return false;
}

showMethod();
loadModels();
