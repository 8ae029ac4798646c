// Where the cards stand and how the rope runs past them. Pure arithmetic in CSS pixels, y down.
//
// Cards stand in rows that turn at their ends, like a furrow, so that the rope is one line:
//
//     ╭┄┄┄┄┄┄┄┄ return ┄┄┄┄┄┄┄┄╮        one row: the return hop goes back above the rope
//     ●──────────●─────────────●
//   [head]    [stage]       [stage]
//
// A single column has its rope on the left side instead.

export const GAP = 16; // between cards
const MARGIN = 20; // beside the cards, where the rope turns
const HEADROOM = 62; // above the first row: the return hop, its label, the rope and its labels
const ROW_GAP = 54; // above the other rows: the rope and its labels
const COLUMN_GAP = 30; // between the cards of a single column: a label
const SIDE = 30; // left of the cards of a single column: rope and return hop
const LIFT = 18; // of the rope above a row of cards
const SAG = 5; // of the rope between two knots
const TURN = 14; // radius at the ends of rows
const ROPE_X = 18;
const RETURN_X = 5;
const KNOT_Y = 22; // of a card's name, where it is hitched in a single column

/** How many columns, for `count` cards at least `minWidth` wide in `width`; rows come out even. */
export function columnsFor(count, width, minWidth) {
  const atMost = Math.max(1, Math.floor((width - 2 * MARGIN + GAP) / (minWidth + GAP)));
  if (count <= atMost) return Math.max(1, count);
  return Math.ceil(count / Math.ceil(count / atMost));
}

/** Grid cell of card `index`, counted from 1; every other row runs from right to left. */
export function cellOf(index, columns) {
  const row = Math.floor(index / columns);
  const place = index % columns;
  return { row: row + 1, column: row % 2 === 0 ? place + 1 : columns - place };
}

/** Space to leave around the cards for the rope. */
export function spacing(count, columns) {
  if (count < 2) return { top: 0, left: 0, right: 0, bottom: 0, rowGap: GAP };
  if (columns === 1) return { top: 0, left: SIDE, right: 0, bottom: 26, rowGap: COLUMN_GAP };
  const side = count > columns ? MARGIN : 0;
  return { top: HEADROOM, left: side, right: side, bottom: 0, rowGap: ROW_GAP };
}

function point({ x, y }) {
  return `${Math.round(x * 10) / 10} ${Math.round(y * 10) / 10}`;
}

function sagging(from, to) {
  const middle = { x: (from.x + to.x) / 2, y: Math.max(from.y, to.y) + 2 * SAG };
  return `M ${point(from)} Q ${point(middle)} ${point(to)}`;
}

/** Through corners, each rounded off with `TURN`. */
function rounded(points) {
  const parts = [`M ${point(points[0])}`];
  for (let i = 1; i < points.length - 1; i += 1) {
    const [before, corner, after] = points.slice(i - 1, i + 2);
    const toward = (target) => {
      const length = Math.hypot(target.x - corner.x, target.y - corner.y) || 1;
      const step = Math.min(TURN, length / 2) / length;
      return {
        x: corner.x + (target.x - corner.x) * step, y: corner.y + (target.y - corner.y) * step,
      };
    };
    parts.push(`L ${point(toward(before))} Q ${point(corner)} ${point(toward(after))}`);
  }
  parts.push(`L ${point(points.at(-1))}`);
  return parts.join(" ");
}

/**
 * The rope past `boxes` (`{x, y, width, height}` of each card, in stage order) in an area `width`
 * wide: `knots` (one per card, with the end of its tug line), `hops` (from each card to the next)
 * and `back` (the return hop, or null), hops with the place of their label.
 */
export function ropePast(boxes, columns, width) {
  if (boxes.length < 2) return { knots: [], hops: [], back: null };
  return columns === 1 ? ropeBeside(boxes) : ropeAbove(boxes, columns, width);
}

function ropeBeside(boxes) {
  const knots = boxes.map((box) => ({
    x: ROPE_X, y: box.y + KNOT_Y, tugX: box.x, tugY: box.y + KNOT_Y,
  }));
  const labelX = boxes[0].x + 2;
  const hops = knots.slice(0, -1).map((knot, index) => ({
    path: `M ${point(knot)} L ${point(knots[index + 1])}`,
    label: { x: labelX, y: boxes[index + 1].y - COLUMN_GAP / 2 + 4, anchor: "start" },
  }));
  const first = knots[0];
  const last = knots.at(-1);
  const bottom = boxes.at(-1).y + boxes.at(-1).height + 14;
  const back = {
    path: rounded([last, { x: ROPE_X, y: bottom }, { x: RETURN_X, y: bottom },
      { x: RETURN_X, y: first.y }, first]),
    label: { x: labelX, y: bottom + 4, anchor: "start" },
  };
  return { knots, hops, back };
}

function ropeAbove(boxes, columns, width) {
  const knots = boxes.map((box) => ({
    x: box.x + box.width / 2, y: box.y - LIFT, tugX: box.x + box.width / 2, tugY: box.y,
  }));
  const hops = knots.slice(0, -1).map((from, index) => {
    const to = knots[index + 1];
    if (Math.floor(index / columns) === Math.floor((index + 1) / columns)) {
      return {
        path: sagging(from, to),
        label: { x: (from.x + to.x) / 2, y: from.y - 9, anchor: "middle" },
      };
    }
    const goesRight = Math.floor(index / columns) % 2 === 0;
    const x = goesRight ? width - MARGIN / 2 : MARGIN / 2;
    return {
      path: rounded([from, { x, y: from.y }, { x, y: to.y }, to]),
      label: goesRight
        ? { x: width - MARGIN - 4, y: to.y - 9, anchor: "end" }
        : { x: MARGIN + 4, y: to.y - 9, anchor: "start" },
    };
  });
  return { knots, hops, back: backAbove(knots, columns, width) };
}

function backAbove(knots, columns, width) {
  const first = knots[0];
  const last = knots.at(-1);
  const y = first.y - 32;
  const isOneRow = knots.length <= columns;
  if (isOneRow) {
    const label = { x: (first.x + last.x) / 2, y: y - 7, anchor: "middle" };
    return { path: rounded([last, { x: last.x, y }, { x: first.x, y }, first]), label };
  }
  // Several rows: up the side on which the last row ends, outside of the turns.
  const nRows = Math.ceil(knots.length / columns);
  const goesRight = nRows % 2 === 1;
  const x = goesRight ? width - 2 : 2;
  const label = goesRight ? { x: width / 2, y: y - 7, anchor: "middle" }
    : { x: TURN, y: y - 7, anchor: "start" };
  return { path: rounded([last, { x, y: last.y }, { x, y }, { x: first.x, y }, first]), label };
}
