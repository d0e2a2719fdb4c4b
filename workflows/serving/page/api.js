/* Sends the requests of the page. An error is a sentence that says what to do. */

const MAX_RETRIES = 4;
const KEY = "capt-api-key"; // in the storage of this tab, which ends with it

/** An answer of the server that is an error. */
export class ApiError extends Error {
  /**
   * @param {string} code Snake case, such as `overloaded`.
   * @param {string} message One sentence.
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The server does not answer. */
export class ServerGone extends Error {
  constructor() {
    super("The server does not answer. Check that capt serve still runs. The page continues when it answers again.");
  }
}

export const forgetKey = () => sessionStorage.removeItem(KEY);
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** Returns `{models, max_images, max_body_bytes, max_pixels}`. */
export const listModels = () => send("v1/models", {});

/**
 * Sends one image to one model.
 *
 * @param {{name: string, task: string}} model
 * @param {File} file
 * @param {URLSearchParams} options Decoding options by name.
 * @param {AbortSignal} signal
 * @returns The row of the image.
 */
export async function answer(model, file, options, signal) {
  const form = new FormData();
  form.append("image", file, file.name);
  const body = await send(endpoint(model, options), { method: "POST", body: form, signal });
  return body.results[0];
}

/** Returns the path and the query of the request of `answer`. */
export function endpoint(model, options) {
  const query = new URLSearchParams({ model: model.name });
  options.forEach((value, name) => query.append(name, value));
  return `${model.task === "captcha" ? "v1/recognize" : "v1/caption"}?${query}`;
}

async function send(path, request) {
  for (let tries = 1; ; tries++) {
    const response = await fetchOnce(path, request);
    if (response.ok) return readJson(response);
    if (response.status === 503 && tries < MAX_RETRIES) {
      await pause(Number(response.headers.get("Retry-After")) || 1, request.signal);
      continue;
    }
    throw await readError(response);
  }
}

async function fetchOnce(path, request) {
  const key = sessionStorage.getItem(KEY);
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  try {
    return await fetch(path, { ...request, headers, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerGone();
  }
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    // The connection ended within the answer.
    throw error.name === "AbortError" ? error : new ServerGone();
  }
}

async function readError(response) {
  const { code, message } = (await response.json().catch(() => ({}))).error ?? {};
  return new ApiError(
    code ?? `status_${response.status}`,
    message ?? `The server answered with the status ${response.status}. Try again, or look at its log.`,
  );
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
