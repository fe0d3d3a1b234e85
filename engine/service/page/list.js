// The list of cells: searched by id or group, moved through with arrows. Only the rows in sight are in the document.

import { el } from "./dom.js";
import { groupColour } from "./map.js";
import { t } from "./strings.js";

const ROW = 30; // px, as in cells.css
const SPARE = 6;

export class CellList {
  constructor({ input, list, space }, { markOf, pick }) {
    Object.assign(this, { input, list, space, markOf, pick });
    this.cells = { ids: [], groups: null };
    this.matches = [];
    this.at = -1; // the row that arrows have reached, in matches
    this.group = null;
    input.addEventListener("input", () => this.search());
    input.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("scroll", () => this.paint());
    list.addEventListener("scrollend", () => this.settle());
    list.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => this.paint()).observe(list);
  }

  show(cells, group = null) {
    this.cells = cells;
    this.group = group;
    this.search();
  }

  groupName(index) {
    const { groups } = this.cells;
    return groups ? (groups.names[groups.of[index]] ?? "") : "";
  }

  /** Keep the cells whose id or group holds the words searched for, of the group chosen in the legend. */
  search() {
    const wanted = this.input.value.trim().toLowerCase();
    const { ids, groups } = this.cells;
    this.matches = ids.flatMap((id, index) => {
      if (this.group !== null && groups?.of[index] !== this.group) return [];
      const isFound = !wanted || id.toLowerCase().includes(wanted) || this.groupName(index).toLowerCase().includes(wanted);
      return isFound ? [index] : [];
    });
    this.at = -1;
    this.list.scrollTop = 0;
    this.paint();
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.list.clientHeight / ROW) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (event.key in steps && this.matches.length) {
      event.preventDefault();
      this.move(this.at < 0 && event.key === "ArrowUp" ? this.matches.length - 1 : this.at + steps[event.key]);
    } else if (event.key === "Enter" && this.matches.length) {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) return; // generates
      this.pick(this.matches[Math.max(this.at, 0)]);
    }
  }

  move(to) {
    this.at = Math.min(Math.max(to, 0), this.matches.length - 1);
    const top = this.at * ROW;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    const over = top + ROW - this.list.clientHeight;
    if (over > this.list.scrollTop) this.list.scrollTop = over;
    this.paint();
  }

  /** Whole rows are shown once the list stands still. */
  settle() {
    const top = Math.round(this.list.scrollTop / ROW) * ROW;
    if (Math.abs(top - this.list.scrollTop) >= 1) this.list.scrollTop = top;
  }

  click(event) {
    const row = event.target.closest("[role=option]");
    if (!row) return;
    this.at = Number(row.getAttribute("aria-posinset")) - 1;
    this.pick(this.matches[this.at]);
  }

  paint() {
    this.space.style.height = `${Math.max(this.matches.length, 1) * ROW}px`;
    const first = Math.max(0, Math.floor(this.list.scrollTop / ROW) - SPARE);
    const last = Math.min(this.matches.length, Math.ceil((this.list.scrollTop + this.list.clientHeight) / ROW) + SPARE);
    const rows = [];
    for (let place = first; place < last; place++) rows.push(this.row(place));
    if (!this.matches.length && this.cells.ids.length) rows.push(el("p", { class: "none soft", text: t("noneFound") }));
    this.space.replaceChildren(...rows);
    const active = this.at >= first && this.at < last ? `cell-${this.matches[this.at]}` : null;
    for (const element of [this.input, this.list]) {
      if (active) element.setAttribute("aria-activedescendant", active);
      else element.removeAttribute("aria-activedescendant");
    }
  }

  row(place) {
    const index = this.matches[place];
    const mark = this.markOf(this.cells.ids[index]);
    const dot = el("i", { class: "dot" });
    dot.style.background = this.cells.groups ? groupColour(this.cells.groups.of[index]) : "var(--soft)";
    const row = el(
      "div",
      {
        class: place === this.at ? "option active" : "option", role: "option", id: `cell-${index}`,
        "aria-selected": String(mark !== null), "aria-posinset": place + 1, "aria-setsize": this.matches.length,
        title: [this.cells.ids[index], this.groupName(index)].filter(Boolean).join(" · "), // they may be cut
      },
      dot,
      el("span", { class: "id", text: this.cells.ids[index] }),
      el("span", { class: "group", text: this.groupName(index) }),
    );
    if (mark) row.append(el("b", { class: "mark", text: mark }));
    row.style.transform = `translateY(${place * ROW}px)`;
    return row;
  }
}
