/* Takes pictures with the camera. Browsers allow it on localhost and with HTTPS only. */

const ERRORS = {
  NotAllowedError: "The browser does not allow the camera. Allow it for this address, then try again.",
  NotFoundError: "No camera was found. Connect one, or choose an image file.",
  NotReadableError: "The camera is in use by another program. Close it, then try again.",
};

export const hasCamera = () => window.isSecureContext && Boolean(navigator.mediaDevices?.getUserMedia);

/**
 * Opens the dialog, and calls `taken` with the file of a picture.
 *
 * @throws {Error} The camera cannot be used; the message is a sentence.
 */
export async function openCamera(dialog, taken) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(ERRORS[error.name] ?? `The camera cannot be used: ${error.message}. Choose an image file instead.`);
  }
  const video = dialog.querySelector("video");
  video.srcObject = stream;
  const stop = () => {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  };
  dialog.addEventListener("close", stop, { once: true });
  dialog.querySelector("#camera-cancel").onclick = () => dialog.close();
  dialog.querySelector("#take").onclick = async () => {
    if (!video.videoWidth) return; // the first frame is not there yet
    const file = await takePicture(video);
    dialog.close();
    taken(file);
  };
  dialog.showModal();
}

async function takePicture(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
  return new File([blob], `camera ${time}.png`, { type: "image/png" });
}
