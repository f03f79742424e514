// What to copy: the selector, the command and the Python of a plan.

import { describe } from "./describe.js";

/** Write a plan as texts to copy. */
export function snippetsOf(model, plan) {
  const selector = describe(model, plan.names());
  const name = model.checkpoint ?? "MODEL";
  const freeze = selector ? ` --freeze ${quoted(selector)}` : "";
  return {
    selector,
    command: `frostline train --model ${quoted(name)} --data train.csv${freeze}`,
    python: selector ? `import frostline as fl\n\nfl.freeze(model, ${JSON.stringify(selector)})` : "",
  };
}

/** Quote a word for a shell, as Python's shlex.quote does. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
