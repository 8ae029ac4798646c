// A small line of the last minute's tokens per second.

import { graphic, setAttribute } from "./dom.js";

const N_SAMPLES = 60;
const WIDTH = 120;
const HEIGHT = 28;

/** `{root, push(value)}`; a value of null counts as 0. */
export function sparkline() {
  const samples = new Array(N_SAMPLES).fill(0);
  const area = graphic("path", { class: "spark-area" });
  const line = graphic("path", { class: "spark-line" });
  const root = graphic("svg", {
    class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT,
    preserveAspectRatio: "none", "aria-hidden": "true",
  }, area, line);

  function push(value) {
    samples.push(value ?? 0);
    samples.shift();
    const top = Math.max(1, ...samples);
    const points = samples.map((sample, index) => {
      const x = index * WIDTH / (N_SAMPLES - 1);
      const y = HEIGHT - 2 - (HEIGHT - 4) * sample / top;
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    });
    setAttribute(line, "d", `M ${points.join(" L ")}`);
    setAttribute(area, "d", `M 0 ${HEIGHT} L ${points.join(" L ")} L ${WIDTH} ${HEIGHT} Z`);
  }

  push(0);
  return { root, push };
}
