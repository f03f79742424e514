// One row of a table that is chosen, and what there is to copy of it.

import { makeCopying, showTexts } from "./copying.js";

const NO_TEXTS = { selector: "no selector: nothing is frozen throughout", command: "" };

/** Keep the texts to copy at the row that is chosen. */
export function makeChoosing(root) {
  const texts = () => JSON.parse(document.querySelector("[name=choice]:checked").dataset.texts);
  const draw = () => showTexts(root, texts(), NO_TEXTS);
  document.querySelectorAll("[name=choice]").forEach((one) => one.addEventListener("change", draw));
  makeCopying(root, (name) => texts()[name]);
  draw();
}
