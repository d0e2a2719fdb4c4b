/* Builds elements. Every text is a text node, because answers and file names may contain markup. */

/**
 * @param {string} tag
 * @param {Object<string, unknown>} attributes A function is a listener of the event; undefined and false set nothing.
 * @param {...(Node | string)} content
 */
export function element(tag, attributes = {}, ...content) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...content);
  return node;
}

/** Returns a button that copies a text, or an empty text if the browser does not allow it. */
export function copyButton(label, text) {
  if (!navigator.clipboard) return "";
  const button = element("button", { type: "button", class: "small" }, label);
  button.addEventListener("click", () => copy(button, text));
  return button;
}

/** Copies a text; the button says whether it succeeded. */
export async function copy(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select the text to copy it";
  }
  setTimeout(() => (button.textContent = label), 2000);
}

/** Formats a probability: 12.3%, or 0.00041%. */
export function percent(probability) {
  const value = 100 * probability;
  return `${value > 0 && value < 0.05 ? value.toPrecision(2) : value.toFixed(1)}%`;
}
