// The way back from parameters to a selector: the same as plan/describe.py, which a test compares it with.

const DETOUR = 2;

/** Write the selector that means just these parameters: names in a Set. */
export function describe(model, wanted) {
  if (!wanted.size) return "";
  const everything = new Set(model.parameters.map((one) => one.name));
  const ways = [added(model, wanted)];
  if (wanted.size !== everything.size) {
    ways.push(["all", ...added(model, everything.difference(wanted)).map((term) => `~${term}`)]);
  }
  for (const kind of model.kinds) {
    const members = namesOf(kind);
    const touched = model.units.filter((unit) => unit.parameters.some((one) => wanted.has(one.name)));
    const all = new Set(touched.flatMap((unit) => unit.parameters.map((one) => one.name)));
    if (areEqual(all.difference(members), wanted) && !all.isDisjointFrom(members)) {
      ways.push([...added(model, all), `~${kind.name}`]);
    }
  }
  const length = (terms) => terms.length + (terms.some((term) => term.startsWith("~")) ? DETOUR : 0);
  return ways.toSorted((one, other) => length(one) - length(other))[0].join(", ");
}

function namesOf(holder) {
  return new Set(holder.parameters.map((one) => one.name));
}

function areEqual(one, other) {
  return one.size === other.size && one.isSubsetOf(other);
}

function added(model, wanted) {
  const units = model.units.filter((unit) => unit.parameters.length);
  const full = units.filter((unit) => meant(model, unit).isSubsetOf(wanted));
  if (full.length === units.length) return ["all"];
  const backbone = units.filter((unit) => unit.kind !== "head");
  const isBackbone = full.length && areEqual(new Set(full), new Set(backbone));
  const terms = isBackbone ? ["backbone"] : unitTerms(model, units, full);
  const fullNames = new Set(full.flatMap((unit) => unit.parameters.map((one) => one.name)));
  let rest = wanted.difference(fullNames).union(unnamed(units, full));
  for (const kind of model.kinds.toSorted((one, other) => other.parameters.length - one.parameters.length)) {
    const members = namesOf(kind);
    if (members.size && members.isSubsetOf(wanted) && members.intersection(rest).size > 1) {
      terms.push(kind.name);
      rest = rest.difference(members);
    }
  }
  return [...terms, ...model.parameters.filter((one) => rest.has(one.name)).map((one) => one.term)];
}

/** What a unit's own term selects; of a layer, what it shares with another layer as well. */
function meant(model, unit) {
  const names = namesOf(unit);
  if (unit.kind !== "layer") return names;
  for (const alias of unit.aliases) {
    const first = model.tied.find((group) => group.includes(alias))[0];
    const home = model.units.find((other) => other.parameters.some((one) => one.name === first));
    if (home?.kind === "layer") names.add(first);
  }
  return names;
}

function unitTerms(model, units, full) {
  const terms = [];
  const said = new Set();
  for (const group of grouped(full)) {
    const { kind, stack } = group[0];
    if (kind === "layer") {
      const word = stack ? `${stack}.layers` : "layers";
      const length = model.units.filter((unit) => unit.kind === "layer" && unit.stack === stack).length;
      for (const [first, last] of runs(group.map((unit) => unit.index))) {
        terms.push(word + brackets(first, last, length));
      }
    } else if (areAllOfKind(kind, units, full)) {
      if (!said.has(kind)) terms.push(kind);
      said.add(kind);
    } else if (stack) {
      terms.push(`${stack}.${kind}`);
    }
  }
  return terms;
}

function grouped(units) {
  const groups = [];
  for (const unit of units) {
    const last = groups.at(-1)?.[0];
    if (last && last.kind === unit.kind && last.stack === unit.stack) groups.at(-1).push(unit);
    else groups.push([unit]);
  }
  return groups;
}

function areAllOfKind(kind, units, full) {
  return units.every((unit) => unit.kind !== kind || full.includes(unit));
}

function unnamed(units, full) {
  const lost = full.filter((unit) => unit.kind !== "layer" && !unit.stack && !areAllOfKind(unit.kind, units, full));
  return new Set(lost.flatMap((unit) => unit.parameters.map((one) => one.name)));
}

function runs(numbers) {
  const found = [];
  for (const number of numbers) {
    if (found.length && found.at(-1)[1] === number - 1) found.at(-1)[1] = number;
    else found.push([number, number]);
  }
  return found;
}

function brackets(first, last, length) {
  if (first === last) return `[${first}]`;
  return `[${first === 0 ? "" : first}:${last === length - 1 ? "" : last + 1}]`;
}
