// Colour maps: 33 stops each, sampled from matplotlib (cividis, viridis and magma are CC0), joined by
// straight lines. Cividis comes first: it reads alike with and without colour-vision deficiency.

export const MAPS = {
  cividis: {
    label: "Cividis",
    stops:
      "00224e 00285b 002e6a 053371 1a386f 273e6e 32436d 3b496c 434e6c 4b546c 535a6d 5a5f6e " +
      "61656f 686a71 6f7073 767676 7d7c78 848279 8c8878 938e78 9b9476 a39a74 aba072 b4a76f " +
      "bcae6c c4b468 cdbb63 d5c25e dec958 e7d150 f0d846 f9e03a fee838",
  },
  viridis: {
    label: "Viridis",
    stops:
      "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e " +
      "2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b " +
      "5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725",
  },
  magma: {
    label: "Magma",
    stops:
      "000004 030312 0a0822 130d34 1d1147 29115a 36106b 440f76 51127c 5d177f 6a1c81 762181 " +
      "832681 902a81 9c2e7f aa337d b73779 c43c75 d0416f dc4869 e75263 ef5d5e f56b5c f9795d " +
      "fc8961 fd9869 fea772 feb67c fec488 fed395 fde2a3 fcf0b2 fcfdbf",
  },
  coolwarm: {
    label: "Cool to warm",
    stops:
      "3b4cc0 445acc 4e68d8 5875e1 6282ea 6c8ff1 779af7 82a6fb 8db0fe 98b9ff a3c2fe aec9fc " +
      "b9d0f9 c3d5f4 ccd9ed d5dbe5 dddcdc e5d8d1 ecd3c5 f1ccb8 f5c4ac f7ba9f f7b093 f6a586 " +
      "f4987a f08b6e eb7d62 e46e56 dd5f4b d44e41 ca3b37 be242e b40426",
  },
  greys: {
    label: "Greys",
    stops:
      "ffffff fbfbfb f7f7f7 f4f4f4 f0f0f0 eaeaea e4e4e4 dfdfdf d9d9d9 d2d2d2 cbcbcb c4c4c4 " +
      "bdbdbd b3b3b3 a9a9a9 9f9f9f 959595 8d8d8d 848484 7b7b7b 727272 6a6a6a 626262 5a5a5a " +
      "515151 464646 3a3a3a 2f2f2f 242424 1b1b1b 111111 080808 000000",
  },
};

/** 256 colours of a map as 32-bit words of ImageData (little-endian ABGR, opaque). */
export function words(name) {
  const stops = rgbStops(name);
  const found = new Uint32Array(256);
  for (let step = 0; step < 256; step++) {
    const at = (step / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    const [red, green, blue] = [0, 1, 2].map((channel) =>
      Math.round(stops[low][channel] + (stops[low + 1][channel] - stops[low][channel]) * (at - low)),
    );
    found[step] = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  return found;
}

/** Draws a map's colours from left to right over a canvas. */
export function drawBar(canvas, name) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  new Uint32Array(image.data.buffer).set(words(name));
  context.putImageData(image, 0, 0);
}

function rgbStops(name) {
  return MAPS[name].stops.split(" ").map((hex) => {
    const value = parseInt(hex, 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  });
}
