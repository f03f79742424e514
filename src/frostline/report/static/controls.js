// What is set for the whole tower at once: kinds of parameters, usual plans, heights, folding.

import { make } from "./dom.js";

const SAID = { trains: "trains", frozen: "frozen", partly: "in part", empty: "" };

/** Buttons that freeze a kind of parameters everywhere, or let it train. */
export function makeKinds(root, model, plan) {
  const kinds = model.kinds.filter((kind) => kind.parameters.length);
  const draw = () => {
    const focus = root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    root.replaceChildren(
      ...kinds.map((kind) => {
        const state = plan.state(kind.parameters);
        return make(
          "button",
          {
            type: "button",
            class: "kind",
            "data-key": kind.name,
            "data-state": state,
            "aria-pressed": { trains: "true", partly: "mixed" }[state] ?? "false",
            onclick: () => plan.toggle(kind.parameters),
          },
          `${kind.name} `,
          make("span", { class: "said" }, SAID[state]),
        );
      }),
    );
    if (focus) root.querySelector(`[data-key="${focus}"]`)?.focus();
  };
  plan.subscribe(draw);
  draw();
}

/** Buttons for usual plans. */
export function makePresets(root, model, plan) {
  const head = model.units.filter((unit) => unit.kind === "head").flatMap((unit) => unit.parameters);
  const presets = [
    ["As given", () => plan.reset()],
    ["Train all", () => plan.set([], model.parameters)],
    ["Head only", () => plan.set(model.parameters, head)],
  ];
  for (const [name, apply] of presets) {
    if (name === "Head only" && !head.length) continue;
    root.append(make("button", { type: "button", onclick: apply }, name));
  }
}

/** The choice of what a unit's height shows. */
export function makeHeights(root, tower, flops) {
  const choices = [["parameters", (unit) => unit.count], ["computation", (unit) => flops[unit.place]]];
  const list = make("select", { id: "heights", onchange: () => tower.weigh(choices[list.selectedIndex][1]) });
  list.append(...choices.map(([name]) => make("option", {}, name)));
  root.append(make("label", { for: "heights" }, "height by "), list);
}

/** The switch that folds equal neighbours. */
export function makeFolding(root, tower) {
  const box = make("input", { type: "checkbox", checked: tower.isFolding, onchange: () => tower.fold(box.checked) });
  root.append(make("label", {}, box, " fold equal layers"));
}
