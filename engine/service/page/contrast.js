// Which ink can be read on a colour: the arithmetic of WCAG 2.

const ENOUGH = 4.5;

/** The parts of a colour as `getComputedStyle` gives it. */
export const parts = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);

/** A colour over another, with an opacity. */
export const over = (top, below, opacity) => top.map((part, at) => part * opacity + below[at] * (1 - opacity));

function luminance(colour) {
  const [red, green, blue] = colour.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** The ratio of two colours' contrast, 1 to 21. */
export function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

/** The first ink that can be read on a colour, else the best one. */
export function readable(inks, ground) {
  const ratios = inks.map((ink) => contrast(ink, ground));
  const first = ratios.findIndex((ratio) => ratio >= ENOUGH);
  return inks[first < 0 ? ratios.indexOf(Math.max(...ratios)) : first];
}
