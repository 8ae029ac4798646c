// Numbers as text, each with its unit. "Not measured" (null, undefined, NaN) is a dash, never 0.

export const NOTHING = "–";

const KIB = 1024;
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Three significant digits at most below 100, whole numbers above. */
function short(value) {
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1).replace(/\.0$/, "");
  return value.toFixed(value >= 1 ? 1 : 2).replace(/\.?0+$/, "");
}

/** 23_300_000_000 → "21.7 GiB" */
export function bytes(value) {
  if (!known(value)) return NOTHING;
  let unit = 0;
  let amount = value;
  while (amount >= 1000 && unit < BYTE_UNITS.length - 1) {
    amount /= KIB;
    unit += 1;
  }
  return `${short(amount)} ${BYTE_UNITS[unit]}`;
}

/** Milliseconds → "9.1 ms", "1.3 s" */
export function milliseconds(value) {
  if (!known(value)) return NOTHING;
  return value >= 1000 ? `${short(value / 1000)} s` : `${short(value)} ms`;
}

/** Microseconds → "31 µs", "1.2 ms" */
export function microseconds(value) {
  if (!known(value)) return NOTHING;
  return value >= 1000 ? milliseconds(value / 1000) : `${short(value)} µs`;
}

/** Gigabits per second → "22.1 Gb/s", "300 Mb/s" */
export function gigabits(value) {
  if (!known(value)) return NOTHING;
  return value < 1 ? `${short(value * 1000)} Mb/s` : `${short(value)} Gb/s`;
}

/** Operations per second → "1.1 TOPS" */
export function operations(value) {
  return known(value) ? `${short(value / 1e12)} TOPS` : NOTHING;
}

/** Tokens per second → "410 tok/s" */
export function rate(value) {
  return known(value) ? `${short(value)} tok/s` : NOTHING;
}

/** A number alone, for where the unit stands apart. */
export function figure(value) {
  return known(value) ? short(value) : NOTHING;
}

/** 0.432 → "43 %" */
export function percent(fraction) {
  return known(fraction) ? `${Math.round(fraction * 100)} %` : NOTHING;
}

/** [0, 3] → "[0, 3)" */
export function span([start, end]) {
  return `[${start}, ${end})`;
}

/** plural(1, "node") → "1 node", plural(2, "node") → "2 nodes" */
export function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
