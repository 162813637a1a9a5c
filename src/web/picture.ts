/** An image as it is sent: scaled down, in base64. */
export interface Picture {
  readonly mediaType: "image/png" | "image/jpeg" | "image/webp" | "image/gif";
  readonly data: string;
}

/** The longest side that the model looks at, in pixels; more is scaled down there anyway. */
const maxSide = 1568;
/** All images of a prompt together, in base64: they share a frame of 1 MiB with it. */
export const maxPicturesSize = 900_000;

/** Scales an image file down so that it takes at most `room` characters. Throws if it cannot. */
export async function pictureOf(file: Blob, room: number): Promise<Picture> {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("Cannot read that image: this browser does not know its format");
  });
  try {
    let side = Math.min(maxSide, Math.max(bitmap.width, bitmap.height));
    for (let quality = 0.85; side >= 200; quality = Math.max(0.5, quality - 0.15)) {
      // Each try depends on how large the one before was.
      // oxlint-disable-next-line no-await-in-loop
      const data = await encoded(bitmap, side, quality);
      if (data.length <= room) return { mediaType: "image/jpeg", data };
      if (quality <= 0.55) side = Math.floor(side * 0.75);
    }
  } finally {
    bitmap.close();
  }
  throw new Error("Cannot add that image: there is no room left in this prompt");
}

/** As JPEG in base64, its longer side `side` pixels. */
async function encoded(bitmap: ImageBitmap, side: number, quality: number): Promise<string> {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  if (!context) throw new Error("Cannot scale that image: this browser has no canvas");
  // What is transparent would become black.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const url = canvas.toDataURL("image/jpeg", quality);
  return url.slice(url.indexOf(",") + 1);
}
