// The figures, warnings and texts to copy of the plan that the page stands at.

import { makeCopying, showTexts } from "./copying.js";
import { costOf } from "./cost.js";
import { make } from "./dom.js";
import { figuresOf, warningsOf } from "./figures.js";
import { bytes, percent, shown, whole } from "./format.js";
import { snippetsOf } from "./snippets.js";

const EMPTY = {
  selector: "nothing is frozen",
  python: "# nothing to freeze: everything trains",
  toml: "# nothing trains, which no schedule takes",
};

/** Show the time of an epoch, with a store and without, beside that of training everything. */
function drawTimes(set, cost, everything) {
  const share = (seconds) => `${Number(((100 * seconds) / everything).toPrecision(2))} %`;
  if (!cost) {
    for (const name of ["epoch", "stored", "fill", "anew"]) set(name, "", "–");
    return;
  }
  set("epoch", "", share(Math.min(cost.stored ?? Infinity, cost.anew)));
  set("stored", cost.stored ?? "", cost.canStore ? share(cost.stored) : "nothing to store");
  set("fill", cost.fill ?? "", cost.canStore ? share(cost.fill) : "–");
  set("anew", cost.anew, share(cost.anew));
}

/** Keep the answers of a page at what the plan says. */
export function makeAnswers(root, model, plan, costs) {
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  let texts = {};
  makeCopying(root, (name) => texts[name]);
  const draw = () => {
    const figures = figuresOf(model, plan);
    const set = (name, value, text) => {
      part(name).textContent = text;
      part(name).dataset.value = value;
    };
    set("trainable", figures.trainable, whole(figures.trainable));
    part("share").textContent = `${percent(figures.trainable / figures.parameters)} of ${whole(figures.parameters)}`;
    const sizes = { weights: figures.weights, gradients: figures.gradients, optimizer: figures.optimizer };
    if (costs) {
      const cost = costOf(model, plan, costs);
      sizes.activations = cost?.activations ?? 0;
      drawTimes(set, cost, costs.everything);
    }
    for (const [name, size] of Object.entries(sizes)) set(name, size, bytes(size));
    const memory = Object.values(sizes).reduce((total, size) => total + size, 0);
    set("memory", memory, bytes(memory));
    for (const bar of root.querySelectorAll("[data-bar]")) {
      bar.style.width = `${memory ? (100 * sizes[bar.dataset.bar]) / memory : 0}%`;
    }
    part("warnings").replaceChildren(...warningsOf(model, plan).map((text) => make("li", {}, shown(text))));
    texts = snippetsOf(model, plan);
    showTexts(root, texts, EMPTY);
  };
  plan.subscribe(draw);
  draw();
}
