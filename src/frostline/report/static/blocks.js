// How units become blocks: equal neighbours in one, and how high each is.

/** Heights in pixels: what a whole column comes to about, and the least of a unit, alone and in a fold. */
const COLUMN = 560;
const LEAST = 26;
const LEAST_FOLDED = 5;

/** Fold neighbours into blocks, from the top down: { units, bottom-most first; isFolded }. */
export function blocksOf(units, likeness, isOpen) {
  const blocks = [];
  for (const unit of units) {
    const last = blocks.at(-1);
    const key = unit.kind === "layer" && !isOpen(unit) ? likeness(unit) : null;
    if (last && key !== null && last.key === key) last.units.push(unit);
    else blocks.push({ key, units: [unit] });
  }
  return blocks.reverse();
}

/** Pixels per weight, so that the heaviest column has about the same height in each model. */
export function scaleOf(columns, weight) {
  const heaviest = Math.max(...columns.map((units) => units.reduce((sum, unit) => sum + weight(unit), 0)));
  return heaviest ? COLUMN / heaviest : 0;
}

/** How high a block is. */
export function heightOf(block, weight, scale) {
  const least = block.units.length > 1 ? LEAST_FOLDED : LEAST;
  const height = block.units.reduce((sum, unit) => sum + Math.max(least, weight(unit) * scale), 0);
  return Math.round(Math.max(LEAST, height));
}

/** What a block is called: a unit's name, or "layers 0–79 × 80"; within a column the stack's name goes without saying. */
export function nameOf(block, isWithin = false) {
  const [lowest, highest] = [block.units[0], block.units.at(-1)];
  const stack = lowest.stack ? `${lowest.stack} ` : "";
  if (lowest === highest) return isWithin ? lowest.name.slice(stack.length) : lowest.name;
  return `${isWithin ? "" : stack}layers ${lowest.index}–${highest.index} × ${block.units.length}`;
}
