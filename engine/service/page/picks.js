// Which cells are chosen: one, a pair to compare, or many.

const LETTERS = ["A", "B"];

export class Picks {
  constructor(changed) {
    this.changed = changed;
    this.ids = [];
    this.most = 1;
    this.slot = 0; // where the next choice of a pair goes
  }

  get isPair() {
    return this.most === 2;
  }

  /** All places of a pair are taken, or at least one of many. */
  get isWhole() {
    return this.isPair ? this.ids.filter(Boolean).length === 2 : this.ids.length > 0;
  }

  /** The letter of a chosen cell in a pair, an empty text for another chosen cell, null for one not chosen. */
  markOf(id) {
    const at = this.ids.indexOf(id);
    if (at < 0) return null;
    return this.isPair ? LETTERS[at] : "";
  }

  start(ids) {
    this.ids = ids;
    this.slot = this.isPair ? 1 : 0;
    this.changed();
  }

  pick(id) {
    if (this.most > 2) this.toggle(id);
    else if (this.isPair) this.place(id);
    else this.ids = [id];
    this.changed();
  }

  toggle(id) {
    if (this.ids.includes(id)) this.ids = this.ids.filter((other) => other !== id);
    else if (this.ids.length < this.most) this.ids = [...this.ids, id];
  }

  place(id) {
    const other = 1 - this.slot;
    const pair = [this.ids[0] ?? null, this.ids[1] ?? null];
    if (pair[other] === id) pair[other] = pair[this.slot]; // they change places
    pair[this.slot] = id;
    this.ids = pair;
    if (!pair[other]) this.slot = other;
  }

  turnTo(slot) {
    this.slot = slot;
    this.changed();
  }

  compare(isPair) {
    this.most = isPair ? 2 : 1;
    this.ids = isPair ? [this.ids[0] ?? null, null] : this.ids.slice(0, 1).filter(Boolean);
    this.slot = isPair && this.ids[0] ? 1 : 0;
    this.changed();
  }
}
