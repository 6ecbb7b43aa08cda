// Inside one scenario: classes, confusions, calibration, chips.

const CLASS_SCORES = [
  ["recall", "Recall"],
  ["precision", "Precision"],
  ["f1", "F1"],
  ["jaccard", "IoU"],
];

const scoreTitle = () => CLASS_SCORES.find(([key]) => key === STATE.score)[1];

const modelsHere = (region) => shownModels().filter((model) => at(region, model, STATE.scenario));

const regionPanels = (host, make) => {
  const grid = h("div", { class: "grid" });
  host.append(grid);
  panels(grid, shownRegions, (region) => {
    const { title, subtitle } = DATA.regions[region];
    const panel = h("section", { class: "panel" }, h("p", { class: "panel-title" }, title, h("span", {}, subtitle)));
    make(panel, region);
    return panel;
  });
};

const modelLegend = () => {
  const legend = h("div", { class: "legend", "aria-hidden": "true" });
  const follow = () =>
    legend.replaceChildren(...shownModels().map((m) => h("span", {}, swatch(m), modelName(m))));
  follow();
  LISTENERS.push(follow);
  return legend;
};

function classBars(host) {
  host.append(
    h("div", { class: "above" }, scenarioChooser(), chooser("Score", "score", CLASS_SCORES), modelLegend()),
  );
  regionPanels(host, (panel, region) =>
    chart(panel, {
      label: () =>
        `${scoreTitle()} of each class, ${DATA.regions[region].title}, ${scenarioTitle(STATE.scenario)}`,
      draw: (width) => drawBars(region, width),
      table: () => ({
        head: ["Class", ...modelsHere(region).map((m) => `${modelName(m)}, ${scoreTitle()} (%)`)],
        rows: DATA.regions[region].classes.map((k) => [
          DATA.classes[k].name,
          ...modelsHere(region).map((model) => classText(region, model, k)),
        ]),
      }),
      fallback: 230,
    }),
  );
}

const classScore = (region, model, k) => {
  const scores = at(region, model, STATE.scenario).k[STATE.score];
  return scores.map((row) => row[k]);
};

const classText = (region, model, k) => {
  return estimate(classScore(region, model, k));
};

function drawBars(region, width) {
  const height = 230;
  const box = { left: 34, right: width - 6, top: 10, bottom: height - 40 };
  const y = linear(0, 1, box.bottom, box.top);
  const { classes, shares } = DATA.regions[region];
  const models = modelsHere(region);
  const wide = (box.right - box.left) / classes.length;
  const bar = Math.min(22, (wide * 0.8) / Math.max(models.length, 1));
  const marks = [];
  const nodes = [0, 0.25, 0.5, 0.75, 1].map((tick) => [
    s("line", { class: "rule", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
    s("text", { class: "tick end", x: box.left - 6, y: y(tick) + 4 }, 100 * tick),
  ]);
  classes.forEach((k, n) => {
    const middle = box.left + wide * (n + 0.5);
    models.forEach((model, m) => {
      const [value, low, high] = classScore(region, model, k);
      const x = middle + (m - models.length / 2) * bar;
      nodes.push(
        s("rect", {
          class: `bar m${model % 8}`,
          x: x + 1,
          y: y(value),
          width: bar - 2,
          height: Math.max(0, box.bottom - y(value)),
        }),
        known(low) &&
          s("line", {
            class: "whisker over",
            x1: x + bar / 2,
            x2: x + bar / 2,
            y1: y(low),
            y2: y(high),
          }),
      );
    });
    nodes.push(
      s("rect", {
        class: "chip",
        x: middle - 5,
        y: box.bottom + 7,
        width: 10,
        height: 10,
        fill: DATA.classes[k].rgb,
      }),
      s("text", { class: "tick middle", x: middle, y: box.bottom + 30 }, DATA.classes[k].name),
    );
    marks.push({
      x: middle,
      y: (box.top + box.bottom) / 2,
      box: [middle - wide / 2 + 2, box.top, wide - 4, box.bottom - box.top],
      title: `${DATA.classes[k].name}, ${number(shares[k])} % of labelled test pixels`,
      lines: models.map((model) => [swatch(model), modelName(model), classText(region, model, k)]),
    });
  });
  nodes.push(s("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  return { height, nodes, marks };
}

function confusionMatrices(host) {
  host.append(h("div", { class: "above" }, regionChooser(), scenarioChooser()));
  const grid = h("div", { class: "grid" });
  host.append(grid);
  panels(grid, shownModels, (model) => {
    const panel = h("section", { class: "panel" }, h("p", { class: "panel-title" }, swatch(model), modelName(model)));
    chart(panel, {
      label: () =>
        `Confusion matrix of ${modelName(model)}, ${DATA.regions[STATE.region].title}, ` +
        scenarioTitle(STATE.scenario),
      draw: (width) => drawConfusion(model, width),
      table: () => {
        const { columns, rows } = confusion(model);
        return {
          head: ["Truth", ...columns.map((k) => `as ${DATA.classes[k].name}`)],
          rows: rows.map(({ k, counts }) => [DATA.classes[k].name, ...counts.map(count)]),
        };
      },
      fallback: 300,
    });
    return panel;
  });
}

// The pixels of all seeds: rows are the classes in the labels, columns what was ever predicted.
function confusion(model) {
  const group = at(STATE.region, model, STATE.scenario);
  const size = DATA.classes.length;
  const matrix = [...Array(size).keys()].map((k) => (group?.c ?? []).slice(k * size, (k + 1) * size));
  const present = [...Array(size).keys()].filter((k) => sum(matrix[k]) > 0);
  const columns = [...Array(size).keys()].filter(
    (k) => present.includes(k) || matrix.some((row) => row[k] > 0),
  );
  return {
    columns,
    rows: present.map((k) => ({ k, total: sum(matrix[k]), counts: columns.map((c) => matrix[k][c]) })),
  };
}

function drawConfusion(model, width) {
  const { columns, rows } = confusion(model);
  if (!rows.length) return nothing(width);
  const left = 62;
  const top = 34;
  const wide = (width - left) / columns.length;
  const tall = Math.min(46, Math.max(34, wide * 0.7));
  const nodes = [
    s("text", { class: "name middle", x: left + (width - left) / 2, y: 10 }, "prediction"),
    s("text", { class: "name", x: 0, y: 26 }, "truth"),
    columns.map((k, n) =>
      s("text", { class: "tick middle", x: left + wide * (n + 0.5), y: 27 }, DATA.classes[k].name),
    ),
  ];
  const marks = [];
  rows.forEach(({ k, total, counts }, row) => {
    const y = top + row * tall;
    nodes.push(s("text", { class: "tick", x: 0, y: y + tall / 2 + 4 }, DATA.classes[k].name));
    counts.forEach((pixels, n) => {
      const box = [left + n * wide, y, wide - 2, tall - 2];
      const share = pixels / total;
      nodes.push(heatCell(box, (100 * share).toFixed(1), number(share)));
      marks.push({
        x: box[0] + wide / 2,
        y: y + tall / 2,
        box,
        title: `${DATA.classes[k].name} predicted as ${DATA.classes[columns[n]].name}`,
        lines: [
          ["", "share of the class", `${number(share)} %`],
          ["", "pixels, all seeds", count(pixels)],
        ],
      });
    });
  });
  return { height: top + rows.length * tall, nodes, marks };
}

const nothing = (width) => ({
  height: 60,
  nodes: [s("text", { class: "name middle", x: width / 2, y: 34 }, "not computed (yet)")],
});

function calibration(host) {
  host.append(h("div", { class: "above" }, scenarioChooser(), modelLegend()));
  regionPanels(host, (panel, region) =>
    chart(panel, {
      label: () =>
        `Reliability, ${DATA.regions[region].title}, ${scenarioTitle(STATE.scenario)}: ` +
        modelsHere(region)
          .map((m) => `${modelName(m)} expected calibration error ${number(ece(region, m))} %`)
          .join(", "),
      draw: (width) => drawReliability(region, width),
      table: () => ({
        head: ["Model", "Confidence (%)", "Right (%)", "Share of pixels (%)"],
        rows: modelsHere(region).flatMap((model) =>
          bins(region, model).map((bin) => [
            modelName(model),
            number(bin.confidence),
            number(bin.right),
            number(bin.share),
          ]),
        ),
      }),
      fallback: 280,
    }),
  );
}

function bins(region, model) {
  const all = at(region, model, STATE.scenario).b;
  const total = sum(all.map(([pixels]) => pixels));
  return all
    .filter(([pixels]) => pixels > 0)
    .map(([pixels, confidence, right]) => ({
      confidence: confidence / pixels,
      right: right / pixels,
      share: pixels / total,
    }));
}

const ece = (region, model) =>
  sum(bins(region, model).map((bin) => bin.share * Math.abs(bin.right - bin.confidence)));

function drawReliability(region, width) {
  const height = Math.min(300, Math.max(230, width * 0.8));
  const box = { left: 34, right: width - 10, top: 8, bottom: height - 36 };
  const x = linear(0, 1, box.left, box.right);
  const y = linear(0, 1, box.bottom, box.top);
  const models = modelsHere(region);
  const nodes = [0, 0.25, 0.5, 0.75, 1].map((tick) => [
    s("line", { class: "rule", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
    s("text", { class: "tick end", x: box.left - 6, y: y(tick) + 4 }, 100 * tick),
    s("text", { class: "tick middle", x: x(tick), y: box.bottom + 15 }, 100 * tick),
  ]);
  nodes.push(
    s("line", { class: "axis dashed", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    s("text", { class: "name middle", x: (x(0) + x(1)) / 2, y: height - 4 }, "confidence (%)"),
  );
  const marks = [];
  models.forEach((model, n) => {
    const found = bins(region, model).filter((bin) => bin.share >= 0.0005);
    const path = found.map((bin) => `${x(bin.confidence).toFixed(1)},${y(bin.right).toFixed(1)}`);
    nodes.push(s("polyline", { class: `line m${model % 8}`, points: path.join(" ") }));
    for (const bin of found) {
      const [px, py] = [x(bin.confidence), y(bin.right)];
      nodes.push(marker(model, px, py, { r: 2 + 5 * Math.sqrt(bin.share) }));
      marks.push({
        x: px,
        y: py,
        box: [px - 7, py - 7, 14, 14],
        title: modelName(model),
        lines: [
          ["", "confidence", `${number(bin.confidence)} %`],
          ["", "right", `${number(bin.right)} %`],
          ["", "share of pixels", `${number(bin.share)} %`],
        ],
      });
    }
    const row = box.top + 12 + 17 * n;
    nodes.push(
      marker(model, box.left + 12, row, { r: 4 }),
      s("text", { class: "tick", x: box.left + 22, y: row + 4 }, `error ${number(ece(region, model))}`),
    );
  });
  return { height, nodes, marks };
}

function examples(host) {
  host.append(
    h(
      "div",
      { class: "above" },
      regionChooser(),
      scenarioChooser(),
      h(
        "div",
        { class: "legend" },
        DATA.classes.map(({ name, rgb }, k) =>
          h("span", {}, h("i", { class: "chip", style: `background:${k ? rgb : "#fff"}` }), k ? name : "no label"),
        ),
      ),
    ),
  );
  const rows = h("div", { class: "chips" });
  host.append(rows);
  const follow = () => {
    const chips = DATA.examples[STATE.region] ?? [];
    rows.replaceChildren(...chips.map(exampleRow));
    if (!chips.length) rows.append(h("p", { class: "none" }, "The sweep kept no chips of this region."));
  };
  follow();
  LISTENERS.push(follow);
}

function exampleRow({ chip, rgb, label, predictions }) {
  const place = DATA.regions[STATE.region].title;
  const picture = (source, title, note, alt) =>
    h(
      "figure",
      {},
      source
        ? h("img", { src: source, alt, loading: "lazy", width: 160, height: 160 })
        : h("div", { class: "absent" }, "not kept"),
      h("figcaption", {}, title, h("span", {}, note)),
    );
  return h(
    "div",
    { class: "chip-row", role: "group", "aria-label": `Chip ${chip}` },
    picture(rgb, "Image", chip, `True-colour image of chip ${chip}, ${place}`),
    picture(label, "Truth", "labels", `Labels of chip ${chip}`),
    modelsHere(STATE.region).map((model) => {
      const found = predictions[`${model} ${STATE.scenario}`];
      const note = found ? `${number(found.right)} % right` : "";
      return picture(
        found?.image,
        [swatch(model), modelName(model)],
        note,
        `Prediction of ${modelName(model)} for chip ${chip}: ${note}`,
      );
    }),
  );
}
