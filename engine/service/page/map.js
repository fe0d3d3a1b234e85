// The map of cells: one point each, coloured by group; a click takes the nearest.

import { colour, eachFrame, sharpen } from "./dom.js";

const HUES = [
  "#4c78a8", "#ef8a2f", "#b279a2", "#df5b5b", "#56aab8", "#9d755d", "#dcb53a", "#d67195", "#7f6bb3", "#5f8fd6",
  "#a3983f", "#8a8f98",
];
const NEAR = 18; // px
const MARGIN = 16; // px

/** The colour of a group, the same everywhere. */
export const groupColour = (group) => (group === undefined || group < 0 ? "#8a8f98" : HUES[group % HUES.length]);

const range = (values) =>
  values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

export class CellMap {
  constructor(canvas, tip, { markOf, pick, nameOf }) {
    Object.assign(this, { canvas, tip, markOf, pick, nameOf });
    this.cells = null;
    this.group = null;
    this.over = -1;
    this.paint = eachFrame(() => this.paintNow());
    canvas.addEventListener("click", (event) => {
      const index = this.nearest(event);
      if (index >= 0) this.pick(index);
    });
    canvas.addEventListener("pointermove", (event) => this.hover(this.nearest(event)));
    canvas.addEventListener("pointerleave", () => this.hover(-1));
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  show(cells, group = null) {
    this.cells = cells;
    this.group = group;
    this.over = -1;
    if (cells.map) {
      this.xs = range(cells.map.x);
      this.ys = range(cells.map.y);
    }
    this.paint();
  }

  /** Where a cell lies in the canvas, in CSS pixels; one scale for both axes, up is up. */
  place(index) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [left, right] = this.xs;
    const [bottom, top] = this.ys;
    const scale = Math.min((width - 2 * MARGIN) / (right - left || 1), (height - 2 * MARGIN) / (top - bottom || 1));
    return [
      width / 2 + (this.cells.map.x[index] - (left + right) / 2) * scale,
      height / 2 - (this.cells.map.y[index] - (bottom + top) / 2) * scale,
    ];
  }

  nearest(event) {
    if (!this.cells?.map) return -1;
    let best = -1;
    let least = NEAR * NEAR;
    for (let index = 0; index < this.cells.map.x.length; index++) {
      if (this.isFaint(index)) continue;
      const [x, y] = this.place(index);
      const distance = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
      if (distance < least) [best, least] = [index, distance];
    }
    return best;
  }

  isFaint(index) {
    return this.group !== null && this.cells.groups?.of[index] !== this.group;
  }

  hover(index) {
    if (index === this.over) return;
    this.over = index;
    this.canvas.classList.toggle("pointing", index >= 0);
    this.tip.hidden = index < 0;
    if (index >= 0) {
      const [x, y] = this.place(index);
      this.tip.textContent = this.nameOf(index);
      const most = this.canvas.clientWidth - this.tip.offsetWidth;
      this.tip.style.left = `${Math.max(0, Math.min(x - this.tip.offsetWidth / 2, most))}px`;
      this.tip.style.top = `${y < 44 ? y + 14 : y - this.tip.offsetHeight - 12}px`;
    }
    this.paint();
  }

  paintNow() {
    if (!this.cells?.map || !this.canvas.clientWidth) return;
    const { context, width, height } = sharpen(this.canvas);
    context.clearRect(0, 0, width, height);
    const count = this.cells.map.x.length;
    const radius = Math.max(1.4, Math.min(4.2, 60 / Math.sqrt(count)));
    for (const faint of [true, false]) {
      context.globalAlpha = faint ? 0.12 : 0.85;
      for (let index = 0; index < count; index++) {
        if (this.isFaint(index) === faint) this.dot(context, index, radius);
      }
    }
    context.globalAlpha = 1;
    for (let index = 0; index < count; index++) {
      const mark = this.markOf(this.cells.ids[index]);
      if (mark !== null || index === this.over) this.ring(context, index, radius, mark);
    }
  }

  dot(context, index, radius) {
    const [x, y] = this.place(index);
    context.fillStyle = groupColour(this.cells.groups?.of[index]);
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }

  ring(context, index, radius, mark) {
    const [x, y] = this.place(index);
    context.lineWidth = 2;
    context.strokeStyle = colour(mark === null ? "soft" : "ink");
    context.beginPath();
    context.arc(x, y, radius + 3.5, 0, 2 * Math.PI);
    context.stroke();
    if (!mark) return;
    const [side, edge] = mark === "A" ? [-1, "right"] : [1, "left"]; // such that neighbours do not hide each other
    context.font = "650 12px system-ui, sans-serif";
    context.lineWidth = 4;
    context.strokeStyle = colour("card");
    context.textAlign = edge;
    context.strokeText(mark, x + side * (radius + 6), y - radius - 1);
    context.fillStyle = colour("ink");
    context.fillText(mark, x + side * (radius + 6), y - radius - 1);
  }
}
