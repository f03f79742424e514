// The plan that the page stands at: which parameters are frozen.

/** Hold a plan; whoever subscribes is called after each change. */
export class Plan {
  #listeners = [];

  constructor(model) {
    this.model = model;
    this.reset();
  }

  /** Go back to the flags that the model came with. */
  reset() {
    this.frozen = new Set(this.model.parameters.filter((one) => !one.trains).map((one) => one.place));
    this.#tell();
  }

  /** Freeze some parameters and let others train; what is named in neither stays. */
  set(frozen, free) {
    for (const { place } of frozen) this.frozen.add(place);
    for (const { place } of free) this.frozen.delete(place);
    this.#tell();
  }

  /** Freeze parameters; where all of them are frozen, let them train. */
  toggle(parameters) {
    if (this.state(parameters) === "frozen") this.set([], parameters);
    else this.set(parameters, []);
  }

  /** What parameters do: all of them "frozen", all of them "trains", "partly", or "empty" where there are none. */
  state(parameters) {
    const frozen = parameters.filter((one) => this.frozen.has(one.place)).length;
    if (!parameters.length) return "empty";
    if (!frozen) return "trains";
    return frozen === parameters.length ? "frozen" : "partly";
  }

  /** Names of the frozen parameters. */
  names() {
    return new Set(this.model.parameters.filter((one) => this.frozen.has(one.place)).map((one) => one.name));
  }

  subscribe(listener) {
    this.#listeners.push(listener);
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}
