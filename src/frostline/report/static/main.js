// What a page does once it is open.

import { makeAnswers } from "./answers.js";
import { makeFolding, makeHeights, makeKinds, makePresets } from "./controls.js";
import { Details } from "./details.js";
import { shown } from "./format.js";
import { readModel } from "./model.js";
import { Plan } from "./plan.js";
import { makeSortable } from "./sorting.js";
import { Tower } from "./tower.js";

function main() {
  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
  const data = document.querySelector("#tower-data");
  if (!data) return;
  const { tower: given, marks, flops } = JSON.parse(data.textContent);
  const part = (name) => document.querySelector(`[data-part="${name}"]`);
  const model = readModel(given);
  const plan = new Plan(model);
  const details = new Details(part("details"), model, plan, { marks });
  const look = part("look");
  const tower = new Tower(part("tower"), model, plan, {
    marks,
    onOpen: (unit) => details.open(unit),
    onLook: (text) => (look.textContent = shown(text)),
  });
  makeFolding(part("folding"), tower);
  if (flops) makeHeights(part("heights"), tower, flops);
  if (!marks) {
    makeKinds(part("kinds"), model, plan);
    makePresets(part("presets"), model, plan);
    makeAnswers(part("answers"), model, plan);
  }
  document.documentElement.classList.add("live");
}

main();
