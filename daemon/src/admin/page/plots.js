// The plots of the last hour: drawn as SVG by hand, since the page loads nothing from elsewhere.

import { bytes, byId, clock, el, millis, number } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 150;
const LEFT = 60;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;
/** The least time that a plot spans: a daemon that has just started fills it sooner than an hour. */
const LEAST_SPAN = 600;

const svg = (name, attributes = {}, ...children) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

const PLOTS = [
  {
    title: "Requests", unit: value => `${number(value)}/s`,
    series: [
      { name: "all", kind: "one", area: true, of: (point, step) => point.requests / step },
      // A line along the bottom for no errors would look like some.
      { name: "errors", kind: "fault", dash: "dashed", hidesZero: true, of: (point, step) => point.errors / step },
    ],
  },
  {
    title: "Time to the response", unit: millis,
    series: [
      { name: "50 %", kind: "one", of: point => point.p50_ms },
      { name: "90 %", kind: "two", dash: "dashed", of: point => point.p90_ms },
      { name: "99 %", kind: "three", dash: "dotted", of: point => point.p99_ms },
    ],
  },
  {
    title: "Bytes", unit: value => `${bytes(value)}/s`,
    series: [
      { name: "to visitors", kind: "one", area: true, of: (point, step) => point.bytes_out / step },
      { name: "from visitors", kind: "three", dash: "dashed", of: (point, step) => point.bytes_in / step },
    ],
  },
];

/** The next round figure at or above a value: 1, 2 or 5 times a power of ten. */
export const roundUp = value => {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map(step => step * power).find(step => step >= value * 0.9999);
};

class Plot {
  constructor(plot) {
    Object.assign(this, plot);
    this.keys = this.series.map(({ name, kind, dash }) => el("span", { class: `key ${kind} ${dash ?? ""}` }, name));
    this.at = el("span", { class: "at" });
    this.drawing = svg("svg", { role: "img" });
    this.element = el("figure", { class: "plot" },
      el("figcaption", {}, el("strong", {}, this.title), this.at, el("span", { class: "keys" }, ...this.keys)), this.drawing);
    this.drawing.addEventListener("pointermove", event => this.point(event));
    this.drawing.addEventListener("pointerleave", () => this.tell(null));
    this.points = [];
  }

  draw(points, step) {
    Object.assign(this, { points, step });
    const width = Math.max(220, this.drawing.clientWidth || 320);
    const now = points.length ? points.at(-1).at + step : Date.now() / 1000;
    const span = Math.min(3600, Math.max(LEAST_SPAN, now - (points[0]?.at ?? now)));
    const values = this.series.map(({ of }) => points.map(point => of(point, step)));
    const top = roundUp(Math.max(0, ...values.flat().filter(value => value !== null)));
    const x = at => LEFT + (width - LEFT - RIGHT) * (1 - (now - at - step / 2) / span);
    const y = value => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    Object.assign(this, { x, width });
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
    const parts = [];
    for (const part of [0, 0.5, 1]) {
      const label = svg("text", { x: LEFT - 6, y: y(top * part) + 4, "text-anchor": "end" });
      label.textContent = part === 0 ? "0" : this.unit(top * part);
      parts.push(svg("line", { class: part ? "grid" : "base", x1: LEFT, x2: width - RIGHT, y1: y(top * part), y2: y(top * part) }), label);
    }
    for (const [part, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
      const label = svg("text", { x: LEFT + (width - LEFT - RIGHT) * (1 - part), y: HEIGHT - 4, "text-anchor": anchor });
      label.textContent = part ? `${Math.round(span * part / 60)} min ago` : "now";
      parts.push(label);
    }
    this.series.forEach(({ kind, dash, area, hidesZero }, index) => {
      const drawn = hidesZero ? values[index].map(value => value || null) : values[index];
      for (const run of runs(points, drawn)) {
        const line = run.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
        if (line.length === 1) line.push(`${(x(run[0][0]) + 1.5).toFixed(1)},${y(run[0][1]).toFixed(1)}`);
        if (area) {
          const [first, last] = [x(run[0][0]).toFixed(1), x(run.at(-1)[0]).toFixed(1)];
          parts.push(svg("path", { class: "area", d: `M${first},${y(0)}L${line.join("L")}L${last},${y(0)}Z` }));
        }
        parts.push(svg("path", { class: `line ${kind} ${dash ?? ""}`, d: `M${line.join("L")}` }));
      }
    });
    this.drawing.replaceChildren(...parts, this.cursor);
    this.tell(null);
    const latest = this.series.map(({ name }, index) => `${name} ${this.shown(values[index].at(-1))}`);
    this.drawing.setAttribute("aria-label", `${this.title}, latest: ${latest.join(", ")}. The figures below have all.`);
  }

  shown(value) {
    return value === null || value === undefined ? "–" : this.unit(value);
  }

  /** Shows the point under the pointer. */
  point(event) {
    const box = this.drawing.getBoundingClientRect();
    const at = (event.clientX - box.left) * this.width / box.width;
    const distance = point => Math.abs(this.x(point.at) - at);
    const nearest = this.points.reduce((best, point) => (!best || distance(point) < distance(best) ? point : best), null);
    this.tell(nearest);
  }

  /** Shows the figures of a point: of the latest one for `null`. */
  tell(point) {
    const told = point ?? this.points.at(-1);
    this.cursor?.setAttribute("x1", point ? this.x(point.at) : -9);
    this.cursor?.setAttribute("x2", point ? this.x(point.at) : -9);
    this.at.textContent = told ? `${point ? "at" : "latest, at"} ${clock(told.at)}` : "no point yet: the first comes after ten seconds";
    this.series.forEach(({ name, of }, index) => {
      this.keys[index].textContent = told ? `${name} ${this.shown(of(told, this.step))}` : name;
    });
  }
}

/** Cuts a series where it has no value. */
const runs = (points, values) => {
  const found = [];
  let run = [];
  points.forEach((point, index) => {
    if (values[index] === null) {
      if (run.length) found.push(run);
      run = [];
    } else {
      run.push([point.at, values[index]]);
    }
  });
  return run.length ? [...found, run] : found;
};

/** The last hour: keeps its points, and draws them. */
export class Hour {
  constructor() {
    this.plots = PLOTS.map(plot => new Plot(plot));
    byId("plots").replaceChildren(...this.plots.map(plot => plot.element));
    this.points = [];
    this.step = 10;
    this.most = 360;
    this.draw();
    new ResizeObserver(() => this.draw()).observe(byId("plots"));
  }

  set({ points, seconds_per_point }) {
    Object.assign(this, { points, step: seconds_per_point });
    this.draw();
  }

  add(point) {
    if (this.points.at(-1)?.at === point.at) return;
    this.points = [...this.points, point].slice(-this.most);
    this.draw();
  }

  draw() {
    for (const plot of this.plots) plot.draw(this.points, this.step);
    const groups = Map.groupBy(this.points, point => Math.floor(point.at / 300) * 300);
    const rows = [...groups].reverse().map(([at, points]) => {
      const sum = name => points.reduce((all, point) => all + point[name], 0);
      const some = name => points.map(point => point[name]).filter(value => value !== null).sort((a, b) => a - b);
      const medians = some("p50_ms");
      return el("tr", {},
        el("th", { scope: "row" }, clock(at)), el("td", { class: "number" }, number(sum("requests"))),
        el("td", { class: "number" }, number(sum("errors"))),
        el("td", { class: "number" }, millis(medians[Math.floor(medians.length / 2)])),
        el("td", { class: "number" }, millis(some("p99_ms").at(-1))),
        el("td", { class: "number" }, bytes(sum("bytes_in"))), el("td", { class: "number" }, bytes(sum("bytes_out"))));
    });
    byId("figures").replaceChildren(...rows);
  }
}
