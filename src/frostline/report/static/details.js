// The parameters of a unit, or those that a search finds, each with its switch.

import { make } from "./dom.js";
import { bytes, shown } from "./format.js";
import { tiedUnits } from "./model.js";

const MOST = 200; // rows at a time

/** The list of parameters beside the tower. */
export class Details {
  constructor(root, model, plan, { marks }) {
    Object.assign(this, { root, model, plan, marks, unit: null });
    this.search = root.querySelector("input");
    this.title = root.querySelector("[data-part=title]");
    this.list = root.querySelector("[data-part=list]");
    this.search.addEventListener("input", () => this.draw());
    plan.subscribe(() => this.draw());
    this.draw();
  }

  /** Show a unit's parameters. */
  show(unit) {
    this.unit = unit;
    this.search.value = "";
    this.draw();
  }

  /** Show a unit's parameters, and go there. */
  open(unit) {
    this.show(unit);
    this.title.focus();
    this.title.scrollIntoView({ block: "nearest" });
  }

  draw() {
    const query = this.search.value.trim().toLowerCase();
    const found = query ? this.model.parameters.filter((one) => one.name.toLowerCase().includes(query)) : [];
    const rows = query ? found : this.unit?.parameters ?? [];
    this.title.replaceChildren(...this.#title(query, rows));
    const focus = this.list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.list.replaceChildren(...rows.slice(0, MOST).map((one) => this.#row(one)));
    if (rows.length > MOST) this.list.append(make("li", {}, `and ${rows.length - MOST} more`));
    if (focus) this.list.querySelector(`[data-key="${focus}"]`)?.focus({ preventScroll: true });
  }

  #title(query, rows) {
    if (query) return [`${rows.length} parameters with “${shown(query)}”`];
    if (!this.unit) return ["Open a unit by its ⋯, or search."];
    const ties = tiedUnits(this.model, this.unit);
    const tied = ties.length ? ` · tied with ${ties.map((unit) => unit.name).join(", ")}` : "";
    const aliases = this.unit.aliases.length ? ` · also holds ${this.unit.aliases.join(", ")}` : "";
    return [shown(`${this.unit.name}: ${rows.length} parameters${tied}${aliases}`)];
  }

  #row(one) {
    const unit = this.model.units[one.unit];
    const mark = this.marks?.[unit.place].facts[one.place - unit.parameters[0].place];
    const facts = [one.shape.join(" × ") || "one value", one.dtype, bytes(one.bytes), mark ?? one.origin];
    const key = `parameter-${one.place}`;
    const name = make("span", { class: "parameter" }, shown(one.name));
    const about = make("span", { class: "facts" }, shown(facts.filter(Boolean).join(" · ")));
    if (this.marks) return make("li", {}, name, about);
    const box = make("input", {
      type: "checkbox",
      "data-key": key,
      checked: !this.plan.frozen.has(one.place),
      onchange: () => this.plan.toggle([one]),
    });
    return make("li", {}, make("label", {}, box, make("span", { class: "hidden" }, "train "), name), about);
  }
}
