// What every chart shares: drawn when it comes into view and when the choice or the width changes,
// a tooltip under the pointer or the arrow keys, and a table behind it.

const CHARTS = [];

// The chart whose tooltip is shown, whether the arrow keys brought it, and how far down the page.
const SHOWN = { chart: null, pinned: false, top: 0 };

const TIP = h("div", { id: "tip", role: "presentation", hidden: true });

const SPOKEN = h("div", { class: "unseen", "aria-live": "polite" });

document.body.append(TIP, SPOKEN);

// `label()` is read by screen readers; `draw(width)` gives {height, nodes, marks}, a mark being
// {x, y, box: [x, y, width, height], title, lines: [[swatch, name, value]], choose}; `table()` gives
// {head, rows}.
function chart(host, { label, draw, table, fallback = 320, hints = "" }) {
  const svg = s("svg", { class: "chart", role: "img", tabindex: 0 });
  const cursor = s("rect", { class: "cursor", rx: 3 });
  const self = { stale: true, seen: false, width: 0, marks: [], active: -1 };
  host.append(svg);
  if (table) host.append(dataTable(table, self));

  self.draw = () => {
    const width = Math.floor(host.clientWidth);
    if (!width) return;
    hide();
    const drawn = draw(width);
    Object.assign(self, { stale: false, width, marks: drawn.marks ?? [], active: -1 });
    svg.setAttribute("viewBox", `0 0 ${width} ${drawn.height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", drawn.height);
    svg.setAttribute(
      "aria-label",
      `${label()}. ${self.marks.length ? `Arrow keys go from value to value.${hints}` : ""}`,
    );
    svg.replaceChildren(cursor, ...drawn.nodes.flat(4).filter(Boolean));
    cursor.setAttribute("visibility", "hidden");
    self.refresh?.();
  };
  self.update = () => {
    self.stale = true;
    svg.setAttribute("aria-label", label());
    if (self.seen) self.draw();
  };

  function activate(index, spoken) {
    self.active = index;
    const mark = self.marks[index];
    const [x, y, width, height] = mark.box;
    put(cursor, { x, y, width, height, visibility: "visible" }, []);
    if (SHOWN.chart !== self) SHOWN.chart?.hide();
    Object.assign(SHOWN, { chart: self, pinned: spoken, top: scrollY });
    showTip(svg, mark);
    if (spoken) SPOKEN.textContent = words(mark);
  }
  function hide() {
    self.active = -1;
    cursor.setAttribute("visibility", "hidden");
    if (SHOWN.chart !== self) return;
    TIP.hidden = true;
    SHOWN.chart = null;
  }
  self.follow = () => showTip(svg, self.marks[self.active]);
  self.hide = hide;

  const point = (event) => {
    const frame = svg.getBoundingClientRect();
    const index = nearest(self.marks, event.clientX - frame.left, event.clientY - frame.top);
    if (index < 0) hide();
    else if (index !== self.active) activate(index, false);
  };
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointermove", point);
  svg.addEventListener("focus", () => self.stale && self.draw());
  svg.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse" && document.activeElement !== svg) hide();
  });
  svg.addEventListener("click", () => self.marks[self.active]?.choose?.());
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    else if (event.key === "Enter" || event.key === " ") {
      const choose = self.marks[self.active]?.choose;
      if (!choose) return;
      choose();
    } else {
      const to = neighbour(self.marks, self.active, event.key);
      if (to === undefined) return;
      if (to >= 0) activate(to, true);
    }
    event.preventDefault();
  });

  svg.setAttribute("height", fallback);
  svg.setAttribute("aria-label", label());
  svg.charted = self;
  CHARTS.push(self);
  WATCH.observe(svg);
  RESIZE.observe(host);
  host.charted = self;
  LISTENERS.push(self.update);
  return self;
}

const WATCH = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      target.charted.seen = isIntersecting;
      if (isIntersecting && target.charted.stale) target.charted.draw();
    }
  },
  { rootMargin: "400px" },
);

const RESIZE = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (Math.floor(target.clientWidth) !== target.charted.width) target.charted.update();
  }
});

addEventListener("beforeprint", () => CHARTS.forEach((of) => of.draw()));

// The mark whose box the point lies in or nearest to, if it is no farther than a finger.
function nearest(marks, x, y) {
  let [best, least] = [-1, 24];
  marks.forEach((mark, index) => {
    const [left, top, width, height] = mark.box;
    const away = Math.hypot(
      Math.max(left - x, 0, x - left - width),
      Math.max(top - y, 0, y - top - height),
    );
    const distance = away + Math.hypot(mark.x - x, mark.y - y) / 1e3;
    if (distance < least) [best, least] = [index, distance];
  });
  return best;
}

// The mark that an arrow key leads to, -1 for none, undefined for another key.
function neighbour(marks, active, key) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
    key
  ] ?? [0, 0];
  if (key === "Home") return marks.length ? 0 : -1;
  if (key === "End") return marks.length - 1;
  if (!dx && !dy) return undefined;
  if (active < 0) return marks.length ? 0 : -1;
  const from = marks[active];
  let [best, least] = [-1, Infinity];
  marks.forEach((mark, index) => {
    const along = (mark.x - from.x) * dx + (mark.y - from.y) * dy;
    const across = Math.abs((mark.x - from.x) * dy) + Math.abs((mark.y - from.y) * dx);
    if (index !== active && along > 0.5 && along + 3 * across < least) {
      [best, least] = [index, along + 3 * across];
    }
  });
  return best;
}

const words = (mark) =>
  [mark.title, ...mark.lines.map(([, name, value]) => `${name}: ${value}`)].join(". ");

function showTip(svg, mark) {
  TIP.replaceChildren(
    h("div", { class: "tip-title" }, mark.title),
    h(
      "table",
      {},
      mark.lines.map(([key, name, value]) =>
        h("tr", {}, h("td", {}, key), h("td", {}, name), h("td", { class: "n" }, value)),
      ),
    ),
  );
  TIP.hidden = false;
  const frame = svg.getBoundingClientRect();
  const [left, top, width, height] = mark.box;
  const [wide, high] = [TIP.offsetWidth, TIP.offsetHeight];
  let x = frame.left + left + width + 10;
  if (x + wide > innerWidth - 8) x = frame.left + left - wide - 10;
  if (x < 8) x = Math.max(8, Math.min(innerWidth - wide - 8, frame.left + mark.x - wide / 2));
  let y = frame.top + Math.min(mark.y, top + height) - high / 2;
  y = Math.max(8, Math.min(innerHeight - high - 8, y));
  TIP.style.transform = `translate(${Math.round(x)}px,${Math.round(y)}px)`;
}

// A tooltip of the arrow keys goes with its chart when the page scrolls; the pointer's goes away.
addEventListener(
  "scroll",
  () => {
    if (SHOWN.pinned) SHOWN.chart?.follow();
    else if (Math.abs(scrollY - SHOWN.top) > 4) SHOWN.chart?.hide();
  },
  { passive: true },
);

// The table behind a chart, made when it is opened.
function dataTable(table, self) {
  const body = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Data" });
  const details = h("details", { class: "behind" }, h("summary", {}, "Data table"), body);
  const fill = () => {
    if (details.open) body.replaceChildren(tableOf(table()));
  };
  details.addEventListener("toggle", fill);
  self.refresh = fill;
  return details;
}

const tableOf = ({ head, rows }) =>
  h(
    "table",
    {},
    h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
    h(
      "tbody",
      {},
      rows.map((row) =>
        h(
          "tr",
          {},
          row.map((cell, k) =>
            k ? h("td", { class: "n" }, cell) : h("th", { scope: "row" }, cell),
          ),
        ),
      ),
    ),
  );

// Children of `host`, one for each of `keys`, made anew only when the keys change.
function panels(host, keys, make) {
  const made = new Map();
  const update = () => {
    const wanted = keys();
    host.replaceChildren(
      ...wanted.map((key) => {
        if (!made.has(key)) made.set(key, make(key));
        return made.get(key);
      }),
    );
  };
  update();
  LISTENERS.unshift(update);
}
