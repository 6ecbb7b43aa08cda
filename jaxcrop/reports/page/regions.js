// Where the regions lie, and every score as a heat map.

function worldMap(host) {
  host.append(h("div", { class: "above" }, scenarioChooser()));
  chart(host, {
    label: () =>
      `World map of ${DATA.regions.length} regions, coloured by ${metricTitle()}: ` +
      DATA.regions.map((of, k) => `${of.title} ${number(bestOf(k)?.[0], STATE.metric)}`).join(", "),
    draw: drawMap,
    table: () => ({
      head: ["Region", "Dataset", "Longitude", "Latitude", "Test chips", "Blocks", "Classes"],
      rows: DATA.regions.map((of) => [
        of.title,
        of.subtitle,
        of.lon.toFixed(1),
        of.lat.toFixed(1),
        count(of.chips),
        count(of.blocks),
        of.classes.map((k) => DATA.classes[k].name).join(", "),
      ]),
    }),
    hints: " Enter shows or hides the region.",
  });
}

const scoresHere = (region) =>
  shownModels()
    .map((model) => [model, score(region, model, STATE.scenario)])
    .filter(([, of]) => of && known(of[0]))
    .sort((a, b) => b[1][0] - a[1][0]);

const bestOf = (region) => scoresHere(region)[0]?.[1];

function drawMap(width) {
  const [wide, high] = DATA.world.size;
  const scale = width / wide;
  const narrow = width < 480;
  const height = Math.round(high * scale) + (narrow ? 14 : 0);
  const values = [...DATA.regions.keys()].map((k) => bestOf(k)?.[0]).filter(known);
  const [from, to] = heatRange(values);
  const marks = [];
  const dots = DATA.regions.map((of, k) => {
    const [x, y] = [of.x * scale, of.y * scale];
    const best = bestOf(k);
    const on = STATE.regions.has(k);
    marks.push({
      x,
      y,
      box: [x - 13, y - 13, 26, 26],
      title: `${of.title}, ${scenarioTitle(STATE.scenario)}`,
      lines: [
        ...scoresHere(k).map(([model, of]) => [
          swatch(model),
          DATA.models[model].name,
          estimate(of, STATE.metric),
        ]),
        ["", "test chips", count(of.chips)],
      ],
      choose: () => {
        const chosen = new Set(STATE.regions);
        if (on && chosen.size > 1) chosen.delete(k);
        else chosen.add(k);
        change({ regions: chosen });
      },
    });
    // Beside its circle, or below where there is little room.
    const right = x > width * 0.82;
    const [side, dx, dy] = narrow ? [" middle", 0, 20] : right ? [" end", -13, -3] : ["", 13, -3];
    return s(
      "g",
      { class: on ? "place" : "place off" },
      s("circle", {
        cx: x,
        cy: y,
        r: 8,
        style: `--p:${best ? shade(best[0], from, to) : 0}`,
        class: best ? "heat" : "heat none",
      }),
      s(
        "text",
        { class: `label${side}`, x: x + dx, y: y + dy },
        of.title,
      ),
      s(
        "text",
        { class: `value${side}`, x: x + dx, y: y + dy + 14 },
        best ? number(best[0], STATE.metric) : "–",
      ),
    );
  });
  return {
    height,
    marks,
    nodes: [s("path", { class: "land", d: DATA.world.path, transform: `scale(${scale})` }), dots],
  };
}

// The position of a value in the range of a heat map, in per cent.
const shade = (value, from, to) => (100 * ((value - from) / (to - from || 1))).toFixed(1);

const heatRange = (values) => (values.length ? rounded(values, 5, { most: 1 }) : [0, 1]);

function heatMap(host) {
  const key = h("div", { class: "heat-key", "aria-hidden": "true" });
  host.append(h("div", { class: "above" }, key));
  const follow = () => {
    const [from, to] = heatRange(heatValues());
    key.replaceChildren(
      h("span", {}, number(from, STATE.metric)),
      h("span", { class: "ramp" }),
      h("span", {}, number(to, STATE.metric)),
      h("span", {}, metricTitle() + unit(STATE.metric)),
    );
  };
  follow();
  LISTENERS.push(follow);
  chart(host, {
    label: () => `Heat map of ${metricTitle()} by region, model and training data`,
    draw: drawHeat,
    fallback: 520,
    table: () => ({
      head: ["Region", "Model", ...shownScenarios().map(scenarioTitle)],
      rows: shownRegions().flatMap((region) =>
        shownModels().map((model) => [
          DATA.regions[region].title,
          DATA.models[model].name,
          ...shownScenarios().map((k) => number(score(region, model, k)?.[0], STATE.metric)),
        ]),
      ),
    }),
  });
}

const heatValues = () =>
  shownRegions()
    .flatMap((region) =>
      shownModels().flatMap((model) => shownScenarios().map((k) => score(region, model, k)?.[0])),
    )
    .filter(known);

function drawHeat(width) {
  const scenarios = shownScenarios();
  const [from, to] = heatRange(heatValues());
  const narrow = width < 520;
  const left = narrow ? 22 : Math.min(230, 26 + 6.6 * longest(shownModels().map(modelName)));
  const gaps = scenarios.map((k, n) => n && DATA.scenarios[k][0] !== DATA.scenarios[scenarios[n - 1]][0]);
  const gap = 8;
  const wide = (width - left - gap * sum(gaps.map(Number))) / scenarios.length;
  const tall = 26;
  const places = [];
  scenarios.reduce((x, _, n) => (places.push(x + (gaps[n] ? gap : 0)), last(places) + wide), left);
  const nodes = [];
  const marks = [];
  scenarios.forEach((k, n) => {
    const middle = places[n] + wide / 2;
    if (!n || gaps[n]) {
      const title = DATA.settings[DATA.scenarios[k][0]];
      nodes.push(s("text", { class: "label", x: places[n], y: 12 }, title));
    }
    const budget = DATA.scenarios[k][1];
    nodes.push(
      s("text", { class: "tick middle", x: middle, y: 28 }, budget === null ? "all" : String(budget)),
    );
  });
  let y = 40;
  for (const region of shownRegions()) {
    nodes.push(s("text", { class: "label", x: 0, y: y + 9 }, DATA.regions[region].title));
    y += 16;
    for (const model of shownModels()) {
      nodes.push(
        narrow
          ? marker(model, 10, y + tall / 2, { r: 4.5 })
          : [
              marker(model, 7, y + tall / 2, { r: 4 }),
              s("text", { class: "tick", x: 18, y: y + tall / 2 + 4 }, modelName(model)),
            ],
      );
      scenarios.forEach((k, n) => {
        const of = score(region, model, k);
        const box = [places[n], y, wide - 2, tall - 2];
        const p = of && known(of[0]) ? shade(of[0], from, to) : null;
        nodes.push(heatCell(box, p, of ? number(of[0], STATE.metric) : ""));
        if (p === null) return;
        marks.push({
          x: box[0] + box[2] / 2,
          y: box[1] + box[3] / 2,
          box,
          title: `${DATA.regions[region].title}, ${scenarioTitle(k)}`,
          lines: [
            [swatch(model), modelName(model), number(of[0], STATE.metric)],
            ["", "95 % interval", range(of[1], of[2], STATE.metric)],
            ["", "seeds", count(at(region, model, k).n)],
          ],
        });
      });
      y += tall;
    }
    y += 10;
  }
  return { height: y, nodes, marks };
}

const modelName = (model) => DATA.models[model].name;

const longest = (texts) => Math.max(...texts.map((text) => text.length));

// A cell of a heat map: p in per cent of the scale, null for no value.
function heatCell([x, y, width, height], p, text) {
  if (p === null) {
    return s("rect", { class: "heat none", x, y, width, height, rx: 2 });
  }
  return [
    s("rect", { class: "heat", x, y, width, height, rx: 2, style: `--p:${p}` }),
    s(
      "text",
      {
        class: `heat-text middle${p > 67 ? " strong" : ""}`,
        x: x + width / 2,
        y: y + height / 2 + 4,
        style: width < 34 ? "font-size:10px" : null,
      },
      text,
    ),
  ];
}

// The classes of the labelled test pixels, a bar for each region.
function classShares(host) {
  chart(host, {
    label: () => "Share of each class in the labelled test pixels, by region",
    draw: drawShares,
    fallback: 180,
    table: () => ({
      head: ["Region", "Labelled pixels", ...DATA.classes.slice(1).map(({ name }) => `${name} (%)`)],
      rows: shownRegions().map((k) => [
        DATA.regions[k].title,
        count(DATA.regions[k].pixels),
        ...DATA.regions[k].shares.slice(1).map((share) => number(share)),
      ]),
    }),
  });
}

function drawShares(width) {
  const left = 104;
  const tall = 26;
  const marks = [];
  const nodes = shownRegions().map((region, row) => {
    const { title, shares, classes, pixels } = DATA.regions[region];
    const y = row * tall + 2;
    let x = left;
    const parts = classes.map((k) => {
      const wide = shares[k] * (width - left);
      const box = [x, y, Math.max(0, wide - 1), 18];
      x += wide;
      return s("rect", {
        class: "chip",
        x: box[0],
        y,
        width: box[2],
        height: 18,
        fill: DATA.classes[k].rgb,
      });
    });
    marks.push({
      x: (left + width) / 2,
      y: y + 9,
      box: [left - 2, y - 2, width - left + 3, 22],
      title: `${title}, ${count(pixels)} labelled test pixels`,
      lines: classes.map((k) => [
        s(
          "svg",
          { class: "swatch", viewBox: "0 0 14 14", "aria-hidden": "true" },
          s("rect", { class: "chip", x: 2, y: 2, width: 10, height: 10, fill: DATA.classes[k].rgb }),
        ),
        DATA.classes[k].name,
        `${number(shares[k])} %`,
      ]),
    });
    return [s("text", { class: "row", x: 0, y: y + 13 }, title), parts];
  });
  const key = DATA.classes.slice(1);
  const bottom = shownRegions().length * tall + 12;
  const first = width < 420 ? 0 : left;
  const step = (width - first) / key.length;
  nodes.push(
    key.map(({ name, rgb }, k) => [
      s("rect", { class: "chip", x: first + k * step, y: bottom - 4, width: 9, height: 9, fill: rgb }),
      s("text", { class: "tick", x: first + k * step + 13, y: bottom + 4 }, name),
    ]),
  );
  return { height: bottom + 12, nodes, marks };
}
