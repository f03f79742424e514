// What a page does once it is open.

import { makeAnswers } from "./answers.js";
import { makeChoosing } from "./choosing.js";
import { makeFolding, makeHeights, makeKinds, makePresets } from "./controls.js";
import { Details } from "./details.js";
import { shown } from "./format.js";
import { readModel } from "./model.js";
import { Plan } from "./plan.js";
import { makeSortable } from "./sorting.js";
import { Tower } from "./tower.js";

function main() {
  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
  if (part("choice")) makeChoosing(part("choice"));
  const data = document.querySelector("#tower-data");
  if (data) showTower(JSON.parse(data.textContent));
  document.documentElement.classList.add("live");
}

function showTower({ tower: given, marks, costs, open }) {
  const model = readModel(given);
  const plan = new Plan(model);
  const details = new Details(part("details"), model, plan, { marks });
  if (open !== undefined) details.show(model.units[open]);
  const look = part("look");
  const tower = new Tower(part("tower"), model, plan, {
    marks,
    onOpen: (unit) => details.open(unit),
    onLook: (text) => (look.textContent = shown(text)),
  });
  makeFolding(part("folding"), tower);
  if (costs) makeHeights(part("heights"), tower, costs.units.map((unit) => unit.flops));
  if (!marks) {
    makeKinds(part("kinds"), model, plan);
    makePresets(part("presets"), model, plan);
    makeAnswers(part("answers"), model, plan, costs);
  }
}

function part(name) {
  return document.querySelector(`[data-part="${name}"]`);
}

main();
