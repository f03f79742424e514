// The tower: units as blocks, from the embeddings at the bottom to the head.

import { blocksOf, heightOf, nameOf, scaleOf } from "./blocks.js";
import { make } from "./dom.js";
import { bytes, short, shown, whole } from "./format.js";
import { makeLine } from "./line.js";
import { columnsOf, tiedUnits } from "./model.js";

const FOLD_FROM = 24; // layers of a stack that are folded without being asked

/** Draw a tower into an element. With `marks`, units show what became of them instead of being switched. */
export class Tower {
  constructor(root, model, plan, { marks, onOpen, onLook }) {
    Object.assign(this, { root, model, plan, marks, onOpen, onLook });
    this.parts = columnsOf(model);
    this.opened = new Set();
    this.isFolding = model.units.filter((unit) => unit.kind === "layer").length > FOLD_FROM;
    this.weight = (unit) => unit.count;
    this.lists = new Map();
    this.lines = [];
    this.root.append(...this.#frame());
    plan.subscribe(() => this.draw());
    new ResizeObserver(() => this.lines.forEach((line) => line.draw())).observe(root);
    this.draw();
  }

  #frame() {
    const { base, columns, top } = this.parts;
    const row = (units, name) => (units.length ? [this.#list(units, `shared ${name}`, `The units ${name}`)] : []);
    const sides = columns.map((column) => {
      const label = column.name ? `Units of the ${column.name}` : "Units of the model";
      const frame = make("div", { class: "column" }, this.#list(column.units, "units", label));
      if (!this.marks) {
        const line = makeLine(column, {
          edges: () => this.#edges(column),
          position: () => this.#position(column),
          move: (place) => this.#move(column, place),
          text: (place) => lineText(column, place),
        });
        frame.append(line.line);
        this.lines.push(line);
      }
      const title = columns.length > 1 ? make("h3", {}, shown(column.name || "text")) : null;
      return make("div", { class: "side" }, title, frame);
    });
    return [...row(top, "above"), make("div", { class: "columns" }, ...sides), ...row(base, "beneath")];
  }

  #list(units, name, label) {
    const list = make("ol", { class: `blocks ${name}`, "aria-label": label });
    this.lists.set(list, units);
    return list;
  }

  /** Let heights show another figure of a unit. */
  weigh(weight) {
    this.weight = weight;
    this.draw();
  }

  /** Fold equal neighbours, or show each. */
  fold(isFolding) {
    this.isFolding = isFolding;
    this.opened.clear();
    this.draw();
  }

  /** Draw all blocks anew; what had the focus keeps it. */
  draw() {
    const focus = this.root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const scale = scaleOf(this.parts.columns.map((column) => column.units), this.weight);
    for (const [list, units] of this.lists) {
      const isOpen = (unit) => !this.isFolding || this.opened.has(unit.place);
      const blocks = blocksOf(units, (unit) => this.#likeness(unit), isOpen);
      list.replaceChildren(...blocks.map((block) => this.#block(block, scale)));
    }
    this.lines.forEach((line) => line.draw());
    if (focus) this.root.querySelector(`[data-key="${focus}"]`)?.focus({ preventScroll: true });
  }

  /** What neighbours must share to be folded. */
  #likeness(unit) {
    const parameters = unit.parameters.map((one) => [one.shape, one.dtype, one.origin, this.plan.frozen.has(one.place)]);
    return JSON.stringify([unit.stack, unit.buffers, unit.shared, parameters, this.marks?.[unit.place]?.text ?? null]);
  }

  #block(block, scale) {
    const [unit] = block.units;
    const isFold = block.units.length > 1;
    const parameters = block.units.flatMap((one) => one.parameters);
    const state = this.plan.state(parameters);
    const mark = this.marks?.[unit.place];
    const item = make("li", { class: "block" });
    item.style.height = `${heightOf(block, this.weight, scale)}px`;
    item.dataset.state = mark ? "marked" : state;
    if (mark) item.dataset.level = mark.level;
    if (unit.isNew) item.dataset.origin = "new";
    const name = shown(nameOf(block));
    const count = block.units.reduce((sum, one) => sum + one.count, 0);
    const ties = isFold ? [] : tiedUnits(this.model, unit);
    const tags = [
      unit.isNew ? make("span", { class: "tag" }, "new") : null,
      unit.shared ? make("span", { class: "tag" }, ties.length ? "tied" : "shared") : null,
      mark ? make("span", { class: "verdict" }, mark.text) : null,
    ];
    const said = mark ? mark.text : WORDS[state];
    const more = isFold ? () => this.#open(block) : () => this.onOpen(unit);
    const look = () => this.onLook(summaryOf(block, said, ties));
    item.append(
      make(
        "button",
        {
          type: "button",
          class: "switch",
          "data-key": `switch-${unit.place}`,
          "aria-pressed": this.marks ? null : { trains: "true", partly: "mixed" }[state] ?? "false",
          "aria-label": `${name}, ${whole(count)} parameters, ${said}${unit.isNew ? ", new" : ""}`,
          disabled: !this.marks && !parameters.length,
          onclick: this.marks ? more : () => this.plan.toggle(parameters),
          onfocus: look,
          onpointerenter: look,
        },
        make("span", { class: "name" }, shown(nameOf(block, this.parts.columns.length > 1))),
        ...tags,
        make("span", { class: "size" }, short(count)),
      ),
      make(
        "button",
        {
          type: "button",
          class: "more",
          "data-key": `more-${unit.place}`,
          "aria-label": isFold ? `Show ${name} one by one` : `Parameters of ${name}`,
          onclick: more,
        },
        make("span", { "aria-hidden": "true" }, isFold ? "⇕" : "⋯"),
      ),
    );
    return item;
  }

  #open(block) {
    for (const unit of block.units) this.opened.add(unit.place);
    this.draw();
    this.root.querySelector(`[data-key="switch-${block.units.at(-1).place}"]`)?.focus();
  }

  /** Heights of the edges between a column's units, from beneath the lowest one up. */
  #edges(column) {
    const list = [...this.lists.keys()].find((one) => this.lists.get(one) === column.units);
    const isOpen = (unit) => !this.isFolding || this.opened.has(unit.place);
    const blocks = blocksOf(column.units, (unit) => this.#likeness(unit), isOpen);
    const edges = [];
    for (let at = blocks.length - 1; at >= 0; at -= 1) {
      const { offsetTop, offsetHeight } = list.children[at];
      const { length } = blocks[at].units;
      for (let step = 0; step < length; step += 1) {
        edges.push(offsetTop + offsetHeight * (1 - step / length));
      }
    }
    return [...edges, list.children[0]?.offsetTop ?? 0];
  }

  /** How many of a column's lowest units are frozen wholly. */
  #position(column) {
    const place = column.units.findIndex((unit) => ["trains", "partly"].includes(this.plan.state(unit.parameters)));
    return place < 0 ? column.units.length : place;
  }

  /** Freeze what lies beneath a place in a column, and let train what lies above; what columns share goes along. */
  #move(column, place) {
    const { base, columns } = this.parts;
    const others = columns.filter((other) => other !== column);
    const isBaseFrozen = place > 0 && others.every((other) => this.#position(other) > 0);
    const beneath = column.units.slice(0, place);
    const above = column.units.slice(place);
    const frozen = [...beneath, ...(isBaseFrozen ? base : [])];
    const free = [...above, ...(isBaseFrozen ? [] : base)];
    this.plan.set(frozen.flatMap((unit) => unit.parameters), free.flatMap((unit) => unit.parameters));
  }
}

const WORDS = { trains: "trains", frozen: "frozen", partly: "partly frozen", empty: "without parameters" };

function lineText(column, place) {
  if (place === 0) return "Nothing is frozen";
  const highest = column.units[place - 1].name;
  return place === column.units.length ? "Everything is frozen" : `Frozen up to ${highest}`;
}

/** One line about a block. */
function summaryOf(block, said, ties) {
  const sum = (key) => block.units.reduce((total, unit) => total + unit[key], 0);
  const parameters = block.units.flatMap((unit) => unit.parameters);
  const origins = [...new Set(parameters.map((one) => one.origin))].join(", ");
  const parts = [`${whole(sum("count"))} parameters in ${parameters.length} tensors`, bytes(sum("bytes")), origins, said];
  if (sum("buffers")) parts.push(`${sum("buffers")} buffers`);
  if (ties.length) parts.push(`tied with ${ties.map((unit) => unit.name).join(", ")}`);
  return `${nameOf(block)}: ${parts.filter(Boolean).join(" · ")}`;
}
