// Families compared, how firm their order is, and what labels are worth.

// Statistics are computed for a few metrics: the chosen one, or overall accuracy in its place.
const comparedMetric = () =>
  DATA.compared.includes(STATE.metric) ? STATE.metric : "overall_accuracy";

const comparedTitle = () => DATA.metrics.find(({ key }) => key === comparedMetric()).title;

function comparedNote(host) {
  const follow = () => {
    host.textContent =
      comparedMetric() === STATE.metric
        ? `What follows is about ${within(comparedTitle())}.`
        : `What follows is about ${within(comparedTitle())}: it is not computed for ${within(metricTitle())}.`;
  };
  follow();
  LISTENERS.push(follow);
}

function familyDifferences(host) {
  const pairs = [...new Set(DATA.pairs.map(({ a, b }) => `${a} ${b}`))].map((pair) =>
    pair.split(" ").map(Number),
  );
  const grid = h("div", { class: "grid" });
  host.append(grid);
  const here = ([a, b]) =>
    DATA.pairs.filter(
      (of) =>
        of.a === a && of.b === b && of.k === comparedMetric() && shownScenarios().includes(of.s),
    );
  for (const pair of pairs) {
    const title = `${modelName(pair[0])} minus ${modelName(pair[1])}`;
    const panel = h("section", { class: "panel" }, h("p", { class: "panel-title" }, title));
    grid.append(panel);
    chart(panel, {
      label: () => `${title}, difference of ${comparedTitle()} by training data, all regions`,
      draw: (width) =>
        intervalPlot(
          width,
          here(pair).map(({ s: scenario, v: [v, low, high], p, regions }) => ({
            label: scenarioTitle(scenario),
            dots: [
              {
                v,
                low,
                high,
                name: `all regions, corrected p ${pValue(p)}`,
                kind: p < 0.05 ? "plain" : "open",
              },
              ...regions
                .filter(([region]) => STATE.regions.has(region))
                .map(([region, value]) => ({
                  v: value,
                  kind: "faint",
                  name: DATA.regions[region].title,
                })),
            ],
          })),
          { title: "difference (points)", ...points(comparedMetric()) },
        ),
      table: () => ({
        head: ["Training data", "Difference (points)", "95 % interval", "p, corrected"],
        rows: here(pair).map(({ s: scenario, v: [v, low, high], p }) => [
          scenarioTitle(scenario),
          difference(v, comparedMetric()),
          range(low, high, comparedMetric(), difference),
          pValue(p),
        ]),
      }),
      fallback: 300,
    });
  }
}

const pValue = (p) => (!known(p) ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));

function ranks(host) {
  host.append(h("div", { class: "above" }, modelLegend()));
  const here = () =>
    DATA.ranks.filter((of) => of.k === comparedMetric() && shownScenarios().includes(of.s));
  chart(host, {
    label: () => `How often each model ranks first by ${comparedTitle()}, by training data`,
    draw: (width) => drawRanks(here(), width),
    table: () => ({
      head: [
        "Training data",
        ...DATA.lineup.flatMap((m) => [`${modelName(m)}, mean rank`, "first (%)"]),
        "Kendall's W",
        "Friedman's p",
        "Kendall's tau with the last in distribution",
      ],
      rows: here().map(({ s: scenario, rank, first, w, p, tau }) => [
        scenarioTitle(scenario),
        ...DATA.lineup.flatMap((_, k) => [rank[k].toFixed(2), number(first[k])]),
        known(w) ? w.toFixed(2) : "–",
        pValue(p),
        known(tau) ? tau.toFixed(2) : "–",
      ]),
    }),
    fallback: 220,
  });
}

function drawRanks(rows, width) {
  const narrow = width < 440;
  const left = narrow ? 0 : 190;
  const tall = narrow ? 44 : 28;
  const marks = [];
  const x = linear(0, 1, left, width);
  const nodes = rows.map(({ s: scenario, rank, first, w }, row) => {
    const y = row * tall + (narrow ? 18 : 4);
    let start = 0;
    const parts = first.map((share, k) => {
      const box = [x(start), y, Math.max(0, x(start + share) - x(start) - 1.5), 20];
      start += share;
      return [
        s("rect", {
          class: `bar m${DATA.lineup[k] % 8}`,
          x: box[0],
          y,
          width: box[2],
          height: 20,
          rx: 2,
        }),
        box[2] > 44 &&
          s("text", { class: "inside", x: box[0] + 7, y: y + 14 }, `${Math.round(100 * share)} %`),
      ];
    });
    marks.push({
      x: (left + width) / 2,
      y: y + 10,
      box: [left, y - 2, width - left, 24],
      title: scenarioTitle(scenario),
      lines: [
        ...DATA.lineup.map((m, k) => [
          swatch(m),
          modelName(m),
          `first in ${number(first[k])} %, mean rank ${rank[k].toFixed(2)}`,
        ]),
        ["", "Kendall's W", known(w) ? w.toFixed(2) : "–"],
      ],
    });
    const title = s("text", { class: "row", x: 0, y: narrow ? y - 5 : y + 14 }, scenarioTitle(scenario));
    return [title, parts];
  });
  return { height: rows.length * tall + 4, nodes, marks };
}

function efficiency(host) {
  const here = () =>
    DATA.efficiency.filter(
      (of) =>
        of.k === comparedMetric() &&
        STATE.regions.has(of.r) &&
        STATE.models.has(of.m) &&
        STATE.settings.has(of.setting),
    );
  host.append(h("div", { class: "above" }, modelLegend()));
  chart(host, {
    label: () => `Labels needed for ${DATA.share} % of the full ${comparedTitle()}`,
    draw: (width) => {
      const shown = here();
      if (!shown.length) return nothing(width);
      const rows = shownRegions().flatMap((region) =>
        ["id", "ood+id"]
          .map((setting) => [setting, shown.filter((of) => of.r === region && of.setting === setting)])
          .filter(([, found]) => found.length)
          .map(([setting, found]) => ({
            label: DATA.regions[region].title,
            note: DATA.settings[setting],
            dots: found.map(({ m, v: [v, low, high] }, k) => ({
              v,
              low,
              high,
              model: m,
              kind: setting === "id" ? "plain" : "open",
              name: modelName(m),
              shift: (k - (found.length - 1) / 2) * 7,
            })),
          })),
      );
      return intervalPlot(width, rows, {
        title: `labels needed for ${DATA.share} % of the full score`,
        format: (value) => count(value),
        tick: (value) => count(value),
        log: true,
      });
    },
    table: () => ({
      head: ["Region", "Model", "Setting", "Labels needed", "95 % interval"],
      rows: here().map(({ r, m, setting, v: [v, low, high] }) => [
        DATA.regions[r].title,
        modelName(m),
        DATA.settings[setting],
        known(v) ? count(v) : "–",
        known(low) ? `${count(low)} to ${count(high)}` : "–",
      ]),
    }),
    fallback: 300,
  });
}

function fits(host) {
  const draw = () => {
    const rows = DATA.fits
      .filter(
        (of) => of.k === comparedMetric() && STATE.regions.has(of.r) && STATE.models.has(of.m),
      )
      .map(({ r, m, a, b, c, limit, gain }) => [
        `${DATA.regions[r].title}, ${modelName(m)}`,
        estimate(limit),
        b.toFixed(2),
        c.toFixed(2),
        estimate(gain, null, difference),
      ]);
    host.replaceChildren(
      tableOf({
        head: [
          "Region and model",
          "Limit of the score (%)",
          "Scale b",
          "Exponent c",
          "The next 100 labels bring (points)",
        ],
        rows,
      }),
    );
  };
  draw();
  LISTENERS.push(draw);
}
