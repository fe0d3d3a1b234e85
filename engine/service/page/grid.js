// The model's genes as a grid of tiles that fill with green as attention rests on them.

import { over, parts, readable } from "./contrast.js";
import { colour, eachFrame, sharpen } from "./dom.js";

const FULL = 3; // tokens' worth of attention that make a gene fully green while the text is written
const TILE = 50; // px wide, where there is room for names
const ROOMY = 350; // px of width, without which names make the grid too long
const NAMED = 640; // more genes than these have no room for names
const COLOURS = ["card", "track", "green", "field", "soft", "ink"];
const INKS = [[0, 0, 0], [255, 255, 255]]; // for names on tiles that are green

export class GeneGrid {
  constructor(canvas, hovered) {
    this.canvas = canvas;
    this.paint = eachFrame(() => this.paintNow());
    this.clear();
    for (const kind of ["pointermove", "pointerdown"]) {
      canvas.addEventListener(kind, (event) => hovered(this.geneAt(event)));
    }
    canvas.addEventListener("pointerleave", () => hovered(null));
    new ResizeObserver(() => this.paint()).observe(canvas.parentElement);
  }

  clear() {
    this.genes = [];
    this.absent = new Set();
    this.shares = new Float64Array(0); // summed attention, per gene
    this.tokens = 0;
    this.isWhole = false;
    this.focus = null; // the weights of one token, shown instead
    this.paint();
  }

  /** Begin with these genes; tiles of the absent ones are frames. */
  start(genes, absent) {
    this.genes = genes;
    this.absent = new Set(absent);
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

  /** No token will follow: the gene most looked at is fully green now. */
  end() {
    this.isWhole = true;
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
    const full = this.isWhole ? largest : Math.max(largest, FULL);
    return this.shares.map((share) => Math.sqrt(share / full));
  }

  /** Tiles for a width: columns, and their size in px. */
  layout(width) {
    const count = this.genes.length;
    const hasNames = count <= NAMED && width >= ROOMY;
    const tall = hasNames ? 21 : Math.max(2, Math.min(20, Math.sqrt((width * 260) / count)));
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
    const [card, track, green, field, soft, ink] = COLOURS.map((name) => parts(colour(name)));
    const gap = hasNames ? 2 : Number(tall > 3);
    context.font = "9px ui-sans-serif, system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.levels().forEach((level, index) => {
      const box = [(index % columns) * wide, Math.floor(index / columns) * tall, wide - gap, tall - gap];
      const isAbsent = this.absent.has(this.genes[index]);
      const fill = over(green, isAbsent ? card : track, level);
      tile(context, box, rgb(fill), isAbsent && rgb(field));
      if (hasNames) name(context, this.genes[index], box, rgb(readable([soft, ink, ...INKS], fill)));
    });
  }
}

const rgb = (colour) => `rgb(${colour.map(Math.round).join(" ")})`;

/** Paint one gene; with an `edge` as an empty frame, as far as it is not green. */
function tile(context, [x, y, wide, tall], fill, edge) {
  const inset = edge && tall > 3 ? 0.5 : 0;
  context.beginPath();
  if (tall < 8) context.rect(x + inset, y + inset, wide - 2 * inset, tall - 2 * inset);
  else context.roundRect(x + inset, y + inset, wide - 2 * inset, tall - 2 * inset, 3);
  context.fillStyle = fill;
  context.fill();
  if (!inset) return;
  context.strokeStyle = edge;
  context.stroke();
}

function name(context, gene, [x, y, wide, tall], ink) {
  context.fillStyle = ink;
  context.fillText(shortened(context, gene, wide - 3), x + wide / 2, y + tall / 2 + 0.5);
}

/** A name as much as there is room for, in px. */
function shortened(context, gene, room) {
  const wide = context.measureText(gene).width;
  return wide <= room ? gene : `${gene.slice(0, Math.max(1, Math.floor((gene.length * room) / wide) - 1))}…`;
}
