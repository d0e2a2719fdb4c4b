/* Draws the attention of a word over an image, as capt caption --attention-plot does. */

// As in trainer/figures/attention_maps.py: the Gaussian filter of Show, Attend and Tell, and Matplotlib's magma.
const BLUR = 20 / 224;
const MIN_BLUR = 0.6;
const OPACITY = 0.6;
const MAGMA = [
  [0, 0, 4], [24, 15, 62], [69, 16, 119], [114, 31, 129], [159, 47, 127],
  [205, 64, 113], [241, 96, 93], [253, 149, 103], [254, 202, 141], [252, 253, 191],
];
const MAP_SIDE = 160; // pixels, enlarged to the size of the image
const ROWS = ["top", "middle", "bottom"];
const COLUMNS = ["left", "center", "right"];

/**
 * @typedef {object} Attention Of one caption.
 * @property {number} height Rows of the grid.
 * @property {number} width Columns of the grid.
 * @property {string[]} words
 * @property {number[][]} weights [words][height * width], row by row.
 * @property {number[]} box Left, top, right and bottom of what the model receives, as fractions of the image.
 */

/** Draws the image alone. */
export function drawImage(canvas, preview) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (preview) context.drawImage(preview, 0, 0);
}

/**
 * Draws the image with the attention of one word.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLCanvasElement | null} preview Of the size of the canvas.
 * @param {Attention} attention
 * @param {number} word Index of the word.
 * @param {number} largest Weight with the last color of the scale.
 */
export function drawAttention(canvas, preview, attention, word, largest) {
  drawImage(canvas, preview);
  const context = canvas.getContext("2d");
  const [left, top, right, bottom] = attention.box;
  const box = [left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height];
  context.save();
  // The part of the image that the model does not receive is dark.
  const outside = new Path2D();
  outside.rect(0, 0, canvas.width, canvas.height);
  outside.rect(...box);
  context.fillStyle = "rgb(0 0 0 / 0.65)";
  context.fill(outside, "evenodd");
  context.globalAlpha = OPACITY;
  context.imageSmoothingQuality = "high";
  context.drawImage(colorMap(attention, word, largest), ...box);
  context.restore();
}

/** Returns the largest value of the smooth map of one word, or of all words. */
export function largestValue(attention, word = null) {
  const words = word === null ? attention.weights.keys() : [word];
  return Math.max(1e-12, ...Array.from(words, (one) => smoothMap(attention, one).reduce((a, b) => Math.max(a, b), 0)));
}

/** Returns the largest weight of a word and where it is, in words. */
export function describeAttention(attention, word) {
  const weights = attention.weights[word];
  const location = weights.indexOf(Math.max(...weights));
  const row = ROWS[third(Math.floor(location / attention.width), attention.height)];
  const column = COLUMNS[third(location % attention.width, attention.width)];
  const place = row === "middle" && column === "center" ? "center" : `${row} ${column}`;
  return `largest weight ${(100 * weights[location]).toFixed(1)}%, at the ${place}`;
}

/** Draws the scale of the colors, from 0 on the left. */
export function drawScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = `rgb(${color(x / (canvas.width - 1)).join(" ")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

const third = (index, count) => Math.min(2, Math.floor(((index + 0.5) * 3) / count));

function colorMap(attention, word, largest) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = MAP_SIDE;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(MAP_SIDE, MAP_SIDE);
  smoothMap(attention, word).forEach((value, i) => pixels.data.set([...color(value / largest), 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Returns the map of a word, [MAP_SIDE * MAP_SIDE]: the mean of the weights around each pixel. */
function smoothMap({ height, width, weights }, word) {
  const rows = interpolationWeights(height);
  const columns = interpolationWeights(width);
  const grid = weights[word];
  const map = new Float32Array(MAP_SIDE * MAP_SIDE);
  for (let y = 0; y < MAP_SIDE; y++) {
    const line = Array.from({ length: width }, (_, j) => sum(rows[y].map((weight, i) => weight * grid[i * width + j])));
    for (let x = 0; x < MAP_SIDE; x++) map[y * MAP_SIDE + x] = sum(columns[x].map((weight, j) => weight * line[j]));
  }
  return map;
}

/** Returns the weight of each location for each pixel along one side, [MAP_SIDE][locations]; rows sum to 1. */
function interpolationWeights(locations) {
  const deviation = Math.max(BLUR * locations, MIN_BLUR);
  const padding = Math.ceil(4 * deviation);
  return Array.from({ length: MAP_SIDE }, (_, pixel) => {
    const position = ((pixel + 0.5) * locations) / MAP_SIDE - 0.5;
    const row = new Array(locations).fill(0);
    for (let center = -padding; center < locations + padding; center++) {
      // The locations at the border are repeated beyond it.
      const location = Math.min(Math.max(center, 0), locations - 1);
      row[location] += Math.exp(-((position - center) ** 2) / (2 * deviation ** 2));
    }
    const total = sum(row);
    return row.map((value) => value / total);
  });
}

function color(value) {
  const place = Math.min(Math.max(value, 0), 1) * (MAGMA.length - 1);
  const index = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[index].map((from, i) => from + (MAGMA[index + 1][i] - from) * (place - index));
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
