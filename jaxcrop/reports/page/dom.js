// Building blocks: elements, numbers, scales. Text enters the page as text nodes only.

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child !== undefined && child !== null && child !== false) node.append(child);
  }
  return node;
}

const h = (tag, attributes, ...children) =>
  put(document.createElement(tag), attributes, children);

const s = (tag, attributes, ...children) =>
  put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const byId = (id) => document.getElementById(id);

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

const sum = (values) => values.reduce((a, b) => a + b, 0);

const mean = (values) => sum(values) / values.length;

// Shares as per cent with one decimal; kappa, which is no share, as it is.
function number(value, metric) {
  if (!known(value)) return "–";
  return metric === "kappa" ? value.toFixed(3) : (100 * value).toFixed(1);
}

function difference(value, metric) {
  if (!known(value)) return "–";
  const text = number(Math.abs(value), metric);
  return (Number(text) === 0 ? "±" : value > 0 ? "+" : "−") + text;
}

function range(low, high, metric, format = number) {
  return known(low) && known(high) ? `${format(low, metric)} to ${format(high, metric)}` : "–";
}

// A value with its interval, where it has one.
const estimate = ([value, low, high], metric, format = number) =>
  format(value, metric) + (known(low) ? ` (${range(low, high, metric, format)})` : "");

const count = (value) => Math.round(value).toLocaleString("en-US");

const unit = (metric) => (metric === "kappa" ? "" : " (%)");

const linear = (from, to, start, end) => (value) =>
  start + ((value - from) / (to - from || 1)) * (end - start);

function stepOf(from, to, wanted) {
  const raw = (to - from || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
}

// Ticks at 1, 2 or 5 times a power of ten, about `wanted` of them.
function ticks(from, to, wanted) {
  const step = stepOf(from, to, wanted);
  const found = [];
  for (let k = Math.ceil(from / step - 1e-9); k * step <= to + step * 1e-9; k++) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

// The range of values, widened to half steps.
function rounded(values, wanted, { least = -Infinity, most = Infinity } = {}) {
  const shown = values.filter(known);
  if (!shown.length) return [0, 1];
  let [from, to] = [Math.min(...shown), Math.max(...shown)];
  if (to - from < 0.01) [from, to] = [from - 0.01, to + 0.01];
  const half = stepOf(from, to, wanted) / 2;
  return [
    Math.max(least, Math.floor(from / half - 1e-9) * half),
    Math.min(most, Math.ceil(to / half + 1e-9) * half),
  ];
}

const SHAPES = [
  (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
  (r) => `M${-r * 0.9},${-r * 0.9}h${1.8 * r}v${1.8 * r}h${-1.8 * r}z`,
  (r) => `M0,${-1.2 * r}L${1.15 * r},${0.85 * r}H${-1.15 * r}z`,
  (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0z`,
  (r) => `M0,${1.2 * r}L${1.15 * r},${-0.85 * r}H${-1.15 * r}z`,
  (r) => `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`,
];

// A marker whose shape and colour are those of the model; `open` leaves its middle empty.
function marker(model, x, y, { open = false, r = 4 } = {}) {
  return s("path", {
    d: SHAPES[model % SHAPES.length](r),
    transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
    class: `marker m${model % 8}${open ? " open" : ""}`,
  });
}

const swatch = (model, open = false) =>
  s(
    "svg",
    { class: "swatch", viewBox: "-7 -7 14 14", "aria-hidden": "true" },
    marker(model, 0, 0, { open, r: 4.5 }),
  );
