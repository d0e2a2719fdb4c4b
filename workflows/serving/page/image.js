/* Reads an image for the page: its size and a preview. The server decodes the image itself. */

const MULTIPART_BYTES = 4096; // of a request beside the image: boundaries, headers and the file name
const LARGEST_SIDE = 1200; // pixels of a preview
const SMALLEST_SIDE = 480; // so that an attention map over a small image is smooth

/** An image that is not sent. The message says why and what to do. */
export class RefusedImage extends Error {}

/** Checks what is known before an image is read: its type and its bytes. */
export function checkFile(file, limits) {
  // Browsers do not know the types of all formats that capt decodes.
  if (file.type && !file.type.startsWith("image/")) {
    throw new RefusedImage(`${file.name} is not an image. Choose a JPEG, PNG, WebP or another image.`);
  }
  if (file.size === 0) throw new RefusedImage(`${file.name} is empty. Choose another file.`);
  const maximum = limits.max_body_bytes - MULTIPART_BYTES;
  if (file.size > maximum) {
    const sizes = `${megabytes(file.size)} MB, and this server accepts ${megabytes(maximum)} MB`;
    throw new RefusedImage(`${file.name} has ${sizes}. Reduce the image, or save it as JPEG.`);
  }
}

/**
 * Draws an image at the size of the screen.
 *
 * @returns {Promise<{preview: HTMLCanvasElement | null, width: number, height: number}>} The preview is null if this
 *   browser cannot decode the image, which the server may be able to.
 */
export async function readImage(file, limits) {
  const image = new Image();
  const url = URL.createObjectURL(file);
  try {
    image.src = url;
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
    });
    const { naturalWidth: width, naturalHeight: height } = image;
    checkPixels(file, width * height, limits);
    await image.decode();
    return { preview: drawPreview(image, width, height), width, height };
  } catch (error) {
    if (error instanceof RefusedImage) throw error;
    return { preview: null, width: 0, height: 0 };
  } finally {
    URL.revokeObjectURL(url);
  }
}

function checkPixels(file, pixels, limits) {
  if (pixels <= limits.max_pixels) return;
  const sizes = `${megabytes(pixels)} megapixels, and this server accepts ${megabytes(limits.max_pixels)}`;
  throw new RefusedImage(`${file.name} has ${sizes}. Reduce the image.`);
}

function drawPreview(image, width, height) {
  const longest = Math.max(width, height);
  const scale = Math.min(Math.max(longest, SMALLEST_SIDE), LARGEST_SIDE) / longest;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const megabytes = (count) => (count / 1e6).toLocaleString("en", { maximumFractionDigits: 1 });
