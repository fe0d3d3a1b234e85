// The model's genes as a grid of tiles that fill with green as attention rests on them.

import { colour, eachFrame, sharpen } from "./dom.js";

const FADE_IN = 8; // tokens until the gene most looked at is fully green
const TILE = 46; // px wide, where there is room for names
const NAMED = 640; // more genes than these have no room for names

export class GeneGrid {
  constructor(canvas, hovered) {
    this.canvas = canvas;
    this.paint = eachFrame(() => this.paintNow());
    this.clear();
    canvas.addEventListener("pointermove", (event) => hovered(this.geneAt(event)));
    canvas.addEventListener("pointerleave", () => hovered(null));
    new ResizeObserver(() => this.paint()).observe(canvas.parentElement);
  }

  clear() {
    this.genes = [];
    this.shares = new Float64Array(0); // summed attention, per gene
    this.tokens = 0;
    this.focus = null; // the weights of one token, shown instead
    this.paint();
  }

  start(genes) {
    this.genes = genes;
    this.shares = new Float64Array(genes.length);
    this.paint();
  }

  /** Add a token's attention: a byte per gene, relative to its largest share. */
  add(weights, largest) {
    const scale = largest / 255;
    const length = Math.min(weights.length, this.shares.length);
    for (let gene = 0; gene < length; gene++) this.shares[gene] += weights[gene] * scale;
    this.tokens += 1;
    this.paint();
  }

  /** Show one token's weights; null shows the text so far. */
  show(weights) {
    this.focus = weights;
    this.paint();
  }

  /** How green a gene is, 0 to 1. The root keeps small shares in sight. */
  levels() {
    if (this.focus) return Float64Array.from(this.focus, (weight) => Math.sqrt(weight / 255));
    const largest = this.shares.reduce((most, share) => Math.max(most, share), 0) || 1;
    const fill = Math.min(1, this.tokens / FADE_IN);
    return this.shares.map((share) => fill * Math.sqrt(share / largest));
  }

  /** Tiles for a width: columns, and their size in px. */
  layout(width) {
    const count = this.genes.length;
    const hasNames = count <= NAMED;
    const tall = hasNames ? 21 : Math.max(5, Math.min(14, Math.sqrt((width * 260) / count)));
    const columns = Math.max(1, Math.min(count, Math.round(width / (hasNames ? TILE : tall))));
    return { columns, wide: width / columns, tall, hasNames, height: Math.ceil(count / columns) * tall };
  }

  geneAt(event) {
    if (!this.genes.length) return null;
    const { columns, wide, tall } = this.layout(this.canvas.clientWidth);
    const index = Math.floor(event.offsetY / tall) * columns + Math.min(columns - 1, Math.floor(event.offsetX / wide));
    if (!(index in this.genes)) return null;
    return { gene: this.genes[index], share: this.tokens ? this.shares[index] / this.tokens : 0 };
  }

  paintNow() {
    const width = this.canvas.clientWidth;
    if (!width || !this.genes.length) return;
    const { columns, wide, tall, hasNames, height } = this.layout(width);
    this.canvas.style.height = `${height}px`;
    const { context } = sharpen(this.canvas, height);
    const [empty, green, ink, inverse] = ["track", "green", "soft", "on-green"].map(colour);
    const gap = hasNames ? 2 : 1;
    context.font = "9.5px ui-sans-serif, system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.levels().forEach((level, index) => {
      const x = (index % columns) * wide;
      const y = Math.floor(index / columns) * tall;
      this.tile(context, x, y, wide - gap, tall - gap, empty, green, level);
      if (hasNames) this.name(context, this.genes[index], x, y, wide - gap, tall - gap, level > 0.55 ? inverse : ink);
    });
  }

  tile(context, x, y, wide, tall, empty, green, level) {
    for (const [fill, alpha] of [[empty, 1], [green, level]]) {
      if (alpha < 0.01) continue;
      context.globalAlpha = alpha;
      context.fillStyle = fill;
      context.beginPath();
      context.roundRect(x, y, wide, tall, Math.min(3, tall / 4));
      context.fill();
    }
    context.globalAlpha = 1;
  }

  name(context, gene, x, y, wide, tall, ink) {
    context.fillStyle = ink;
    const room = Math.floor((wide - 4) / 5.4); // letters
    const text = gene.length > room ? `${gene.slice(0, room - 1)}…` : gene;
    context.fillText(text, x + wide / 2, y + tall / 2 + 0.5);
  }
}
