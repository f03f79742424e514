// What to copy: the selector, the command, the Python and the TOML of a plan.

import { describe } from "./describe.js";

/** Write a plan as texts to copy. */
export function snippetsOf(model, plan) {
  const frozen = plan.names();
  const selector = describe(model, frozen);
  const trained = describe(model, new Set(model.parameters.map((one) => one.name)).difference(frozen));
  const name = model.checkpoint ?? "MODEL";
  const freeze = selector ? ` --freeze ${quoted(selector)}` : "";
  return {
    selector,
    command: `frostline train --model ${quoted(name)} --data train.csv${freeze}`,
    python: selector ? `import frostline as fl\n\nfl.freeze(model, ${JSON.stringify(selector)})` : "",
    // TOML's texts are escaped as JSON's are, but for one control character.
    toml: trained ? `[[phase]]\ntrain = ${JSON.stringify(trained).replaceAll("\x7f", "\\u007f")}` : "",
  };
}

/** Quote a word for a shell, as Python's shlex.quote does. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
