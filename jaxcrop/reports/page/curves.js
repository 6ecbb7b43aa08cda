// Score against the number of labels: a panel for each region, and one for their mean.

const MEAN = -1;

const CURVES = { paper: false, fits: false };

function curves(host) {
  const legend = h("div", { class: "legend", "aria-hidden": "true" });
  const options = h("div", { class: "options" });
  if (DATA.paper.length) options.append(switchOf("The paper's figures", CURVES, "paper"));
  if (DATA.fits.length) options.append(switchOf("Fitted power laws, in distribution", CURVES, "fits"));
  const grid = h("div", { class: "grid" });
  host.append(h("div", { class: "above" }, legend, options), grid);
  const follow = () => legend.replaceChildren(...curveLegend());
  follow();
  LISTENERS.push(follow);
  panels(
    grid,
    () => [...shownRegions(), ...(shownRegions().length > 1 ? [MEAN] : [])],
    (region) => {
      const panel = h("section", { class: "panel" });
      const of = DATA.regions[region];
      panel.append(
        h("p", { class: "panel-title" },
          region === MEAN ? "Mean over regions" : of.title,
          h("span", {}, region === MEAN ? "of those shown" : of.subtitle),
        ),
      );
      chart(panel, {
        label: () => `${metricTitle()} by number of labels, ${of?.title ?? "mean over regions"}`,
        draw: (width) => drawCurves(region, width),
        table: () => curveTable(region),
        fallback: 250,
      });
      return panel;
    },
  );
}

function switchOf(title, options, name) {
  const box = h("input", {
    type: "checkbox",
    checked: options[name],
    onchange: () => {
      options[name] = box.checked;
      change({});
    },
  });
  return h("label", { class: "switch" }, box, title);
}

function curveLegend() {
  const lines = [
    ["id", "ID: the region's own labels", false],
    ["ood+id", "OOD+ID: other regions' data too, OOD at 0", true],
  ].filter(([setting]) => STATE.settings.has(setting));
  return [
    ...shownModels().map((model) => h("span", {}, swatch(model), DATA.models[model].name)),
    ...(CURVES.paper ? PAPER_MARKS : []).map(([title, own]) =>
      h(
        "span",
        {},
        s("svg", { class: "swatch", viewBox: "-7 -7 14 14" }, paperMark(own)),
        `the paper, ${title}`,
      ),
    ),
    ...lines.map(([, title, dashed]) =>
      h(
        "span",
        {},
        s(
          "svg",
          { class: "stroke", viewBox: "0 0 30 10" },
          s("path", { d: "M1,5h28", class: dashed ? "line dashed" : "line" }),
        ),
        title,
      ),
    ),
  ];
}

const scoreAt = (region, model, scenario) =>
  region === MEAN ? overRegions(shownRegions(), model, scenario) : score(region, model, scenario);

// The lines of a panel: ID by itself; OOD+ID with OOD as its point without labels.
function curveLines(region) {
  const lines = [];
  for (const model of shownModels()) {
    for (const dashed of [false, true]) {
      const points = shownScenarios()
        .filter((k) => (DATA.scenarios[k][0] !== "id") === dashed)
        .map((k) => ({ scenario: k, budget: DATA.scenarios[k][1], score: scoreAt(region, model, k) }))
        .filter((point) => point.score && known(point.score[0]));
      const order = (budget) => (budget === null ? Infinity : budget);
      points.sort((a, b) => order(a.budget) - order(b.budget));
      if (points.length) lines.push({ model, dashed, points });
    }
  }
  return lines;
}

// One vertical range for all panels, so that regions can be compared.
function curveRange() {
  const ends = shownRegions().flatMap((region) =>
    curveLines(region).flatMap(({ points }) => points.flatMap(({ score: of }) => of.slice(1, 3))),
  );
  const shown = CURVES.paper ? DATA.paper.filter((of) => of.k === metricIndex()) : [];
  const paper = shown.filter((of) => STATE.regions.has(of.r)).map((of) => of.v);
  return rounded([...ends, ...paper], 5, { most: 1 });
}

// Labels on a logarithmic axis; none and all have places of their own at its ends.
function budgetAxis(start, end) {
  const budgets = [...new Set(shownScenarios().map((k) => DATA.scenarios[k][1]))];
  const numbered = budgets.filter((budget) => budget > 0).sort((a, b) => a - b);
  const none = budgets.includes(0);
  const all = budgets.includes(null);
  const [from, to] = [Math.log10(numbered[0] ?? 1), Math.log10(last(numbered) ?? 10)];
  const step = numbered.length > 1 ? (to - from) / (numbered.length - 1) : 1;
  const place = linear(from - (none ? step : 0), to + (all ? step : 0), start, end);
  const x = (budget) =>
    budget === 0 ? start : budget === null ? end : place(Math.log10(budget));
  const shown = [...(none ? [0] : []), ...numbered, ...(all ? [null] : [])];
  return { x: shown.length === 1 ? () => (start + end) / 2 : x, shown, none, all };
}

function drawCurves(region, width) {
  const height = Math.round(Math.min(300, Math.max(220, width * 0.72)));
  const box = { left: 38, right: width - 14, top: 10, bottom: height - 36 };
  const [from, to] = curveRange();
  const y = linear(from, to, box.bottom, box.top);
  const { x, shown, none, all } = budgetAxis(box.left + 16, box.right - 12);
  const lines = curveLines(region);
  const frame = [
    ticks(from, to, 5).map((tick) => [
      s("line", { class: "rule", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick end", x: box.left - 6, y: y(tick) + 4 }, axisNumber(tick)),
    ]),
    shown.map((budget) =>
      s(
        "text",
        { class: "tick middle", x: x(budget), y: box.bottom + 16 },
        budget === null ? "all" : String(budget),
      ),
    ),
    [none && shown[1] && (x(shown[0]) + x(shown[1])) / 2, all && (x(null) + x(shown.at(-2))) / 2]
      .filter(Boolean)
      .map((middle) => s("text", { class: "tick middle break", x: middle, y: box.bottom + 5 }, "∥")),
    s("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    s(
      "text",
      { class: "name middle", x: (box.left + box.right) / 2, y: height - 4 },
      "labelled chips of the region",
    ),
  ];
  const drawn = lines.map(({ model, dashed, points }) => {
    const place = points.map(({ budget, score: [value, low, high] }) => [
      x(budget),
      ...[value, low ?? value, high ?? value].map(y),
    ]);
    const path = (column) => place.map((of) => `${of[0].toFixed(1)},${of[column].toFixed(1)}`);
    return {
      band: s("polygon", {
        class: `band m${model % 8}`,
        points: [...path(2), ...path(3).reverse()].join(" "),
      }),
      line: s("polyline", {
        class: `line m${model % 8}${dashed ? " dashed" : ""}`,
        points: path(1).join(" "),
      }),
      markers: place.map((of) => marker(model, of[0], of[1], { open: dashed, r: 3.6 })),
    };
  });
  return {
    height,
    nodes: [
      frame,
      drawn.map(({ band }) => band),
      CURVES.fits && region !== MEAN && fittedCurves(region, x, y, from),
      drawn.map(({ line }) => line),
      drawn.map(({ markers }) => markers),
      paperPoints(region, x, y),
    ],
    marks: curveMarks(region, lines, { shown, x, y, box }),
  };
}

const axisNumber = (tick) =>
  STATE.metric === "kappa" ? String(tick) : String(Number((100 * tick).toFixed(1)));

function curveMarks(region, lines, { shown, x, y, box }) {
  return shown.flatMap((budget) => {
    const here = lines.flatMap(({ model, dashed, points }) =>
      points
        .filter((point) => point.budget === budget)
        .map((point) => ({ model, dashed, ...point })),
    );
    if (!here.length) return [];
    here.sort((a, b) => b.score[0] - a.score[0]);
    return {
      x: x(budget),
      y: y(here[0].score[0]),
      box: [x(budget) - 9, box.top, 18, box.bottom - box.top],
      title:
        budget === 0 ? "No label" : budget === null ? "All labels" : `${count(budget)} labels`,
      lines: here.map(({ model, dashed, scenario, score: of }) => [
        swatch(model, dashed),
        `${DATA.models[model].name}, ${DATA.settings[DATA.scenarios[scenario][0]]}`,
        estimate(of, STATE.metric),
      ]).concat(
        paperOf(region)
          .filter((of) => of.s[1] === budget)
          .map((of) => [
            s("svg", { class: "swatch", viewBox: "-7 -7 14 14" }, paperMark(of.s[0] === "id")),
            `the paper (${of.version}), ${DATA.settings[of.s[0]]}`,
            number(of.v, STATE.metric) + (of.doubtful ? " ?" : ""),
          ]),
      ),
    };
  });
}

const PAPER_MARKS = [
  ["ID", true],
  ["OOD and OOD+ID", false],
];

const paperMark = (own) =>
  s("path", { class: "paper", d: own ? "M-5.5,0H5.5M0,-5.5V5.5" : "M-4,-4L4,4M-4,4L4,-4" });

const paperOf = (region) =>
  CURVES.paper
    ? DATA.paper.filter(
        (of) => of.r === region && of.k === metricIndex() && STATE.settings.has(of.s[0]),
      )
    : [];

const paperPoints = (region, x, y) =>
  paperOf(region).map((of) =>
    s(
      "g",
      { transform: `translate(${x(of.s[1])},${y(of.v)})` },
      paperMark(of.s[0] === "id"),
    ),
  );

function fittedCurves(region, x, y, least) {
  const found = DATA.fits.filter(
    (fit) => fit.r === region && fit.k === STATE.metric && STATE.models.has(fit.m),
  );
  return found.map(({ m, a, b, c, from, to }) => {
    const steps = [...Array(41).keys()].map((k) => from * (to / from) ** (k / 40));
    const points = steps
      .map((labels) => [labels, 1 - (a + b * labels ** -c)])
      .filter(([, value]) => value >= least)
      .map(([labels, value]) => `${x(labels).toFixed(1)},${y(value).toFixed(1)}`);
    return s("polyline", { class: `fit m${m % 8}`, points: points.join(" ") });
  });
}

function curveTable(region) {
  const rows = curveLines(region).flatMap(({ model, points }) =>
    points.map(({ scenario, score: of }) => [
      DATA.models[model].name,
      scenarioTitle(scenario),
      number(of[0], STATE.metric),
      range(of[1], of[2], STATE.metric),
      known(of[3]) ? number(of[3], STATE.metric) : "–",
    ]),
  );
  return {
    head: ["Model", "Training data", metricTitle() + unit(STATE.metric), "95 % interval", "SD of seeds"],
    rows,
  };
}
