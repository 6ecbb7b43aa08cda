// What the page holds (written by Python into #data), and what the reader has chosen to see.

const DATA = JSON.parse(byId("data").textContent);

const SETTINGS = [...new Set(DATA.scenarios.map(([setting]) => setting))];

const last = (values) => values[values.length - 1];

const largestInDistribution = () => {
  const numbered = DATA.scenarios
    .map(([setting, budget], index) => ({ setting, budget, index }))
    .filter(({ setting, budget }) => setting === "id" && budget !== null);
  return numbered.length ? last(numbered).index : DATA.scenarios.length - 1;
};

const STATE = {
  metric: "overall_accuracy",
  regions: new Set(DATA.regions.keys()),
  models: new Set([...DATA.models.keys()].filter((k) => DATA.models[k].representative)),
  settings: new Set(SETTINGS),
  scenario: largestInDistribution(),
  region: 0,
  score: "recall",
};

const LISTENERS = [];

function change(update) {
  Object.assign(STATE, update);
  for (const listener of LISTENERS) listener();
}

const metricIndex = () => DATA.metrics.findIndex(({ key }) => key === STATE.metric);

const metricTitle = () => DATA.metrics[metricIndex()].title;

// A title within a sentence.
const within = (title) => title[0].toLowerCase() + title.slice(1);

const shownRegions = () => [...DATA.regions.keys()].filter((k) => STATE.regions.has(k));

const shownModels = () => [...DATA.models.keys()].filter((k) => STATE.models.has(k));

const shownScenarios = () =>
  [...DATA.scenarios.keys()].filter((k) => STATE.settings.has(DATA.scenarios[k][0]));

const PLACES = new Map(DATA.groups.map((group) => [`${group.r} ${group.m} ${group.s}`, group]));

const at = (region, model, scenario) => PLACES.get(`${region} ${model} ${scenario}`);

// The score of a group as [value, low, high, spread], or undefined.
const score = (region, model, scenario) => at(region, model, scenario)?.v[metricIndex()];

const scenarioTitle = (index) => DATA.scenarios[index][2];

const budgetName = (budget) => (budget === null ? "all" : budget.toLocaleString("en-US"));

// The mean over regions; its interval takes the regions' errors as independent.
function overRegions(regions, model, scenario) {
  const scores = regions.map((region) => score(region, model, scenario));
  if (!scores.length || scores.some((of) => !of || !known(of[0]))) return undefined;
  const value = mean(scores.map((of) => of[0]));
  const below = Math.hypot(...scores.map((of) => of[0] - of[1])) / scores.length;
  const above = Math.hypot(...scores.map((of) => of[2] - of[0])) / scores.length;
  return [value, value - below, value + above];
}

// The toolbar: a metric, and what is shown of regions, models and settings.
function toolbar(host) {
  const titles = [...new Set(DATA.metrics.map(({ group }) => group))];
  const select = h(
    "select",
    { id: "metric", onchange: (event) => change({ metric: event.target.value }) },
    titles.map((title) =>
      h(
        "optgroup",
        { label: title },
        DATA.metrics
          .filter(({ group }) => group === title)
          .map(({ key, title: name }) =>
            h("option", { value: key, selected: key === STATE.metric }, name),
          ),
      ),
    ),
  );
  host.append(
    h("div", { class: "field metric" }, h("label", { for: "metric" }, "Metric"), select),
  );
  const body = h(
    "div",
    { class: "filters", id: "filters" },
    toggles("Regions", "regions", DATA.regions.map((region) => [region.title])),
    modelToggles(),
    toggles("Settings", "settings", SETTINGS.map((key) => [DATA.settings[key]]), SETTINGS),
  );
  // On a phone the filters fold away behind this button; elsewhere the style hides it.
  const button = h("button", {
    type: "button",
    class: "unfold",
    "aria-controls": "filters",
    "aria-expanded": "false",
    onclick: () => {
      const open = body.classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
    },
  });
  const describe = () => {
    const hidden = sum(
      [["regions", DATA.regions], ["models", DATA.models], ["settings", SETTINGS]].map(
        ([name, all]) => all.length - STATE[name].size,
      ),
    );
    button.textContent = hidden ? `Filters (${hidden} hidden)` : "Filters";
  };
  describe();
  LISTENERS.push(describe);
  host.append(button, body);
}

// The models: side by side, or where they are many, in a list that unfolds.
function modelToggles() {
  const buttons = toggles("Models", "models", DATA.models.map(({ name }, k) => [name, swatch(k)]));
  if (DATA.models.length <= 6) return buttons;
  const summary = h("summary", {});
  const list = h("details", { class: "list" }, summary, buttons);
  const describe = () => {
    summary.textContent = `${STATE.models.size} of ${DATA.models.length} models`;
  };
  describe();
  LISTENERS.push(describe);
  document.addEventListener("click", ({ target }) => {
    if (!list.contains(target)) list.open = false;
  });
  list.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    list.open = false;
    summary.focus();
  });
  return list;
}

// Buttons that show or hide the members of a set; the last one left cannot be hidden.
function toggles(title, name, labels, keys = labels.map((_, k) => k)) {
  const buttons = keys.map((key, k) =>
    h(
      "button",
      {
        type: "button",
        class: "toggle",
        "aria-pressed": String(STATE[name].has(key)),
        onclick: () => {
          const chosen = new Set(STATE[name]);
          if (chosen.has(key) && chosen.size > 1) chosen.delete(key);
          else chosen.add(key);
          change({ [name]: chosen });
        },
      },
      labels[k][1],
      labels[k][0],
    ),
  );
  LISTENERS.push(() =>
    keys.forEach((key, k) => buttons[k].setAttribute("aria-pressed", String(STATE[name].has(key)))),
  );
  return h("fieldset", { class: `field ${name}` }, h("legend", {}, title), h("div", {}, buttons));
}

// A select that stays in step with the state, wherever it stands.
function chooser(label, name, options) {
  const id = `choose-${name}-${chooser.made++}`;
  const select = h(
    "select",
    { id, onchange: (event) => change({ [name]: options[event.target.selectedIndex][0] }) },
    options.map(([, title]) => h("option", {}, title)),
  );
  const follow = () => {
    select.selectedIndex = options.findIndex(([value]) => value === STATE[name]);
  };
  follow();
  LISTENERS.push(follow);
  return h("div", { class: "field" }, h("label", { for: id }, label), select);
}
chooser.made = 0;

const scenarioChooser = () =>
  chooser(
    "Training data",
    "scenario",
    DATA.scenarios.map(([, , title], k) => [k, title]),
  );

const regionChooser = () =>
  chooser(
    "Region",
    "region",
    DATA.regions.map(({ title }, k) => [k, title]),
  );

function themeButton(button) {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const describe = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // Pages opened from a file may have no storage: the choice then lasts as long as the page.
    }
    describe();
  });
  dark.addEventListener("change", describe);
  describe();
}
