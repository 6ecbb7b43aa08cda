// Rows of values with their intervals on one horizontal axis.

// `rows` are {label, note, dots: [{v, low, high, name, model, kind}]}; kinds are "plain", "open",
// "faint" and "paper". `axis` is {title, format, zero, log, span}.
function intervalPlot(width, rows, axis) {
  const narrow = width < 440;
  const room = Math.max(...rows.map(({ label, note }) => label.length + (note?.length ?? 0) * 0.9));
  const left = narrow ? 10 : Math.min(width * 0.42, 24 + 6.6 * room);
  const [from, to] = axis.span ?? spanOf(rows, axis);
  const scale = axis.log
    ? (value) => linear(Math.log10(from), Math.log10(to), left + 8, width - 16)(Math.log10(value))
    : linear(from, to, left + 8, width - 16);
  const x = (value) => Math.max(left, Math.min(width - 6, scale(value)));
  const nodes = [];
  const marks = [];
  let y = 8;
  const top = y;
  const drawn = rows.map((row) => {
    if (row.heading) {
      y += 24;
      return s("text", { class: "label", x: 0, y: y - 6 }, row.heading);
    }
    const label = [
      s("text", { class: "row", x: 0, y: y + (narrow ? 12 : 17) }, row.label, " ", row.note &&
        s("tspan", { class: "note" }, row.note)),
    ];
    const middle = y + (narrow ? 26 : 13);
    const dots = row.dots.map((dot) => intervalDot(dot, x, middle));
    marks.push({
      x: x(row.dots[0]?.v ?? from),
      y: middle,
      box: [left, middle - 11, width - left - 4, 22],
      title: row.note ? `${row.label}, ${row.note}` : row.label,
      lines: row.dots.map((dot) => [
        dotKey(dot),
        dot.name,
        estimate([dot.v, dot.low, dot.high], null, axis.format),
      ]),
    });
    y += narrow ? 42 : 26;
    return [label, dots];
  });
  const bottom = y + 4;
  const places = axis.log ? decades(from, to) : ticks(from, to, narrow ? 4 : 7);
  places.forEach((tick) => {
    nodes.push(
      s("line", { class: "rule", x1: x(tick), x2: x(tick), y1: top, y2: bottom }),
      s("text", { class: "tick middle", x: x(tick), y: bottom + 15 }, axis.tick(tick)),
    );
  });
  if (axis.zero !== undefined && from <= axis.zero && to >= axis.zero) {
    const at = x(axis.zero);
    nodes.push(s("line", { class: "axis", x1: at, x2: at, y1: top, y2: bottom }));
  }
  nodes.push(
    drawn,
    s("text", { class: "name middle", x: (left + width) / 2, y: bottom + 33 }, axis.title),
  );
  return { height: bottom + 40, nodes, marks };
}

function spanOf(rows, axis) {
  const ends = rows.flatMap(({ dots }) =>
    (dots ?? []).flatMap(({ v, low, high, kind }) => (kind === "faint" ? [v] : [v, low, high])),
  );
  const shown = [...ends, axis.zero].filter(known);
  if (axis.log) return [Math.min(...shown) / 1.3, Math.max(...shown) * 1.3];
  return rounded(shown, 7);
}

function decades(from, to) {
  const found = [];
  for (let power = 0; 10 ** power <= to; power++) {
    for (const step of [1, 2, 5]) {
      const value = step * 10 ** power;
      if (value >= from && value <= to) found.push(value);
    }
  }
  return found.length > 6 ? found.filter((value) => Number.isInteger(Math.log10(value))) : found;
}

const dotKey = ({ model, kind }) =>
  s("svg", { class: "swatch", viewBox: "-7 -7 14 14", "aria-hidden": "true" }, dotShape({ model, kind }, 0, 0));

function dotShape({ model, kind }, x, y) {
  if (kind === "paper") {
    return s("path", { class: "paper", d: "M-5,-5L5,5M-5,5L5,-5", transform: `translate(${x},${y})` });
  }
  if (model === undefined) {
    return s("circle", { class: `dot ${kind}`, cx: x, cy: y, r: kind === "faint" ? 3 : 4.5 });
  }
  const drawn = marker(model, x, y, { open: kind === "open", r: kind === "faint" ? 2.6 : 4.2 });
  if (kind === "faint") drawn.classList.add("faint");
  return drawn;
}

function intervalDot(dot, x, y) {
  if (!known(dot.v)) return null;
  const shift = y + (dot.shift ?? 0);
  const whisker =
    known(dot.low) &&
    dot.kind !== "faint" &&
    s("line", {
      class: `whisker${dot.model === undefined ? "" : ` m${dot.model % 8}`}`,
      x1: x(dot.low),
      x2: x(dot.high),
      y1: shift,
      y2: shift,
    });
  return [whisker, dotShape(dot, x(dot.v), shift)];
}

const points = (metric) => ({
  format: (value) => difference(value, metric),
  tick: (value) => (value === 0 ? "0" : difference(value, metric).replace(/\.0$/, "")),
  zero: 0,
});

// How an average depends on its denominator: a plot for each claim of the paper.
function policies(host) {
  const models = [...new Set(DATA.effects.map(({ m }) => m))].sort((a, b) => a - b);
  if (!models.length) {
    host.append(h("p", { class: "none" }, "The study has no two budgets that could be compared."));
    return;
  }
  STATE.model = models[0];
  host.append(
    h(
      "div",
      { class: "above" },
      chooser("Model", "model", models.map((k) => [k, modelName(k)])),
      h(
        "div",
        { class: "legend", "aria-hidden": "true" },
        POLICIES.map(([, title, kind]) => h("span", {}, dotKey({ kind }), title)),
        h("span", {}, dotKey({ kind: "paper" }), "the paper, version 1"),
      ),
    ),
  );
  const grid = h("div", { class: "grid two" });
  host.append(grid);
  DATA.claims.forEach((claim, index) => {
    const panel = h("section", { class: "panel" }, h("p", { class: "panel-title" }, claim));
    grid.append(panel);
    const here = () =>
      DATA.effects.filter(
        ({ c, m, r }) => c === index && m === STATE.model && (r < 0 || STATE.regions.has(r)),
      );
    chart(panel, {
      label: () => `${claim}: change of three averages, ${modelName(STATE.model)}`,
      draw: (width) =>
        intervalPlot(
          width,
          here().map(({ r, v, paper }) => ({
            label: r < 0 ? "All regions" : DATA.regions[r].title,
            dots: POLICIES.map(([key, name, kind], k) => ({
              v: v[key][0],
              low: v[key][1],
              high: v[key][2],
              name,
              kind,
              shift: (k - 1) * 5,
            })).concat(
              known(paper.average_accuracy)
                ? [{ v: paper.average_accuracy, name: "average accuracy, the paper", kind: "paper" }]
                : [],
            ),
          })),
          { title: "change (points)", ...points() },
        ),
      table: () => ({
        head: [
          "Region",
          ...POLICIES.map(([, title]) => `${title} (points)`),
          "Of the paper's average, the denominator makes",
          "The paper, average accuracy",
        ],
        rows: here().map(({ r, v, share, paper }) => [
          r < 0 ? "All regions" : DATA.regions[r].title,
          ...POLICIES.map(
            ([key]) => estimate(v[key], null, difference),
          ),
          known(share) ? `${Math.round(100 * share)} %` : "–",
          difference(paper.average_accuracy),
        ]),
      }),
      fallback: 230,
    });
  });
}

const POLICIES = [
  ["average_accuracy", "average accuracy, the paper's denominator", "open"],
  ["present_accuracy", "average accuracy, classes in the labels", "plain"],
  ["overall_accuracy", "overall accuracy", "faint"],
];

function traps(host) {
  const names = [...new Set(DATA.traps.map(({ t }) => t))];
  const of = (name, region) => DATA.traps.find(({ t, r }) => t === name && r === region);
  const dot = (entry, kind, name) => {
    const [v, low, high] = entry.v[metricIndex()];
    return { v, low, high, kind, name };
  };
  chart(host, {
    label: () => `What each trap changes in ${metricTitle()}`,
    draw: (width) =>
      intervalPlot(
        width,
        names.map((name) => ({
          label: name,
          dots: [
            dot(of(name, -1), "plain", "all regions"),
            ...shownRegions()
              .filter((region) => of(name, region))
              .map((region) => dot(of(name, region), "faint", DATA.regions[region].title)),
          ],
        })),
        { title: `change of ${within(metricTitle())} (points)`, ...points(STATE.metric) },
      ),
    table: () => ({
      head: ["Trap", "Region", `Change of ${metricTitle()}`, "95 % interval", "Groups"],
      rows: DATA.traps.map(({ t, r, n, v }) => {
        const [value, low, high] = v[metricIndex()];
        return [
          t,
          r < 0 ? "all" : DATA.regions[r].title,
          difference(value, STATE.metric),
          range(low, high, STATE.metric, difference),
          count(n),
        ];
      }),
    }),
    fallback: 180,
  });
}
