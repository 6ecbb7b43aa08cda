// The paper's tables, with its own figures beside ours.

const paperAt = (region, scenario) => {
  const [setting, budget] = DATA.scenarios[scenario];
  return DATA.paper.filter(
    ({ r, k, s: of }) => r === region && k === metricIndex() && of[0] === setting && of[1] === budget,
  );
};

const ends = ([, low, high], metric) =>
  known(low) &&
  h("span", { class: "ends" }, `${number(low, metric)}–${number(high, metric)}`);

// A figure of the paper: version, value, doubt, and where ours is given the difference from it.
function paperLine({ version, v, doubtful, note }, ours) {
  return h(
    "span",
    { class: "known", title: note || null },
    `${version} ${number(v, STATE.metric)}`,
    doubtful && h("sup", {}, "?"),
    known(ours) && h("b", {}, difference(ours - v, STATE.metric)),
  );
}

function budgetTable(host) {
  const draw = () => {
    const scenarios = shownScenarios();
    const settings = [...new Set(scenarios.map((k) => DATA.scenarios[k][0]))];
    const head = h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { rowspan: 2, scope: "col" }, "Region and model"),
        settings.map((setting) =>
          h(
            "th",
            {
              colspan: scenarios.filter((k) => DATA.scenarios[k][0] === setting).length,
              scope: "colgroup",
            },
            DATA.settings[setting],
          ),
        ),
      ),
      h("tr", {}, scenarios.map((k) => h("th", { scope: "col" }, budgetName(DATA.scenarios[k][1])))),
    );
    const bodies = shownRegions().map((region) => regionRows(region, scenarios));
    host.replaceChildren(
      h("table", { class: "figures" }, head, bodies, extraRows(scenarios)),
    );
    byId("table-budgets-metric").textContent = metricTitle() + unit(STATE.metric);
  };
  draw();
  LISTENERS.push(draw);
}

function regionRows(region, scenarios) {
  const { title, subtitle } = DATA.regions[region];
  const best = scenarios.map((k) =>
    Math.max(...shownModels().map((model) => score(region, model, k)?.[0] ?? -1)),
  );
  return h(
    "tbody",
    {},
    h(
      "tr",
      { class: "group" },
      h("th", { scope: "rowgroup", colspan: scenarios.length + 1 }, title, h("span", {}, subtitle)),
    ),
    shownModels().map((model) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, swatch(model), modelName(model)),
        scenarios.map((k, n) => {
          const of = score(region, model, k);
          if (!of) return h("td", {}, "–");
          const top = shownModels().length > 1 && of[0] === best[n];
          return h(
            "td",
            {},
            h(top ? "strong" : "span", { class: top ? "best" : "value" }, number(of[0], STATE.metric)),
            ends(of, STATE.metric),
            DATA.models[model].family === "ssl4eo" &&
              paperAt(region, k).map((figure) => paperLine(figure, of[0])),
          );
        }),
      ),
    ),
  );
}

// The paper's sixth dataset, which no region of ours stands for.
function extraRows(scenarios) {
  const figures = scenarios.map((k) => paperAt(-1, k));
  if (!figures.some((of) => of.length)) return null;
  return h(
    "tbody",
    {},
    h(
      "tr",
      { class: "group" },
      h(
        "th",
        { scope: "rowgroup", colspan: scenarios.length + 1 },
        "India",
        h("span", {}, "agrifieldnet, the paper's version 1 only"),
      ),
    ),
    h(
      "tr",
      {},
      h("th", { scope: "row" }, "the paper"),
      figures.map((of) => h("td", {}, of.length ? of.map((figure) => paperLine(figure)) : "–")),
    ),
  );
}

// Every metric of the paper, and those over present classes, for one region and scenario.
function metricTable(host, choosers) {
  choosers.append(regionChooser(), scenarioChooser());
  const draw = () => {
    const models = modelsHere(STATE.region);
    const { averages, rows } = DATA.table;
    host.replaceChildren(
      h(
        "table",
        { class: "figures" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { rowspan: 2, scope: "col" }, "Metric"),
            averages.map((title) => h("th", { colspan: models.length, scope: "colgroup" }, title)),
          ),
          h(
            "tr",
            {},
            averages.map(() => models.map((m) => h("th", { scope: "col" }, swatch(m), modelName(m)))),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map(([name, ...keys]) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, name),
              keys.map((key) => models.map((model) => metricCell(key, model))),
            ),
          ),
        ),
      ),
    );
  };
  draw();
  LISTENERS.push(draw);
}

function metricCell(key, model) {
  if (!key) return h("td", {});
  const column = DATA.metrics.findIndex((metric) => metric.key === key);
  const of = at(STATE.region, model, STATE.scenario).v[column];
  return h(
    "td",
    {},
    h("span", { class: "value" }, number(of[0], key)),
    ends(of, key),
  );
}
