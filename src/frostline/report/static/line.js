// The frost line of a column: dragged, or moved by keys.

import { make } from "./dom.js";

const STEP = 8; // of the keys for a page up or down

/** Make the line of a column; `edges()` are the heights at which it can lie, from beneath the lowest unit up. */
export function makeLine(column, { edges, position, move, text }) {
  const line = make(
    "div",
    { class: "line", role: "slider", tabindex: "0", "aria-orientation": "vertical", "aria-valuemin": "0" },
    make("span", { class: "grip", "aria-hidden": "true" }, "frost line"),
  );
  line.setAttribute("aria-label", column.name ? `Frost line of the ${column.name}` : "Frost line");
  line.setAttribute("aria-valuemax", column.units.length);
  const to = (place) => move(Math.max(0, Math.min(column.units.length, place)));
  line.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: STEP, PageDown: -STEP };
    if (event.key in steps) to(position() + steps[event.key]);
    else if (event.key === "Home") to(0);
    else if (event.key === "End") to(column.units.length);
    else return;
    event.preventDefault();
  });
  let kept = null; // the edges as they were when the drag began: blocks fold and open on the way
  line.addEventListener("pointerdown", (event) => {
    kept = edges();
    line.setPointerCapture(event.pointerId);
    line.classList.add("dragged");
  });
  line.addEventListener("pointermove", (event) => {
    if (kept === null) return;
    const height = event.clientY - line.parentElement.getBoundingClientRect().top;
    const distances = kept.map((edge) => Math.abs(edge - height));
    to(distances.indexOf(Math.min(...distances)));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    line.addEventListener(end, () => {
      kept = null;
      line.classList.remove("dragged");
    });
  }
  const draw = () => {
    const place = position();
    line.style.top = `${edges()[place]}px`;
    line.setAttribute("aria-valuenow", place);
    line.setAttribute("aria-valuetext", text(place));
  };
  return { line, draw };
}
