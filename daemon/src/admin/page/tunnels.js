// The table of tunnels: sorted, filtered, and drawn again only where something changed.

import { bytes, byId, duration, el, millis, number, setText } from "./text.js";

/** The most rows in the document. A browser gets slow with more; the filter finds the rest. */
const MOST_ROWS = 500;
/** The least time between two drawings, in milliseconds. */
const PACE = 250;

const age = tunnel => (Date.now() - Date.parse(tunnel.since)) / 1000;
const client = tunnel => [tunnel.client_address, tunnel.client_version].filter(part => part).join(" · ");
const KINDS = { online: "good", silent: "warn", away: "", closed: "" };
const ORDER = { online: 0, silent: 1, away: 2, closed: 3 };

/** Columns: title, class, what is shown, and what it is sorted by. */
const COLUMNS = [
  { title: "Name", text: tunnel => tunnel.name, by: tunnel => tunnel.name },
  { title: "State", text: tunnel => tunnel.state, by: tunnel => ORDER[tunnel.state] },
  { title: "Key", kind: "text wide", text: tunnel => tunnel.key_name ?? tunnel.key_id, by: tunnel => tunnel.key_name ?? tunnel.key_id },
  { title: "Client", kind: "text wide", text: client, by: client },
  { title: "Via", kind: "wide", text: tunnel => tunnel.transport ?? "–", by: tunnel => tunnel.transport ?? "" },
  { title: "Round trip", kind: "number wide", text: tunnel => millis(tunnel.round_trip_ms), by: tunnel => tunnel.round_trip_ms ?? Infinity },
  { title: "Req/s", kind: "number", text: tunnel => number(tunnel.requests_per_second), by: tunnel => tunnel.requests_per_second, falls: true },
  { title: "Requests", kind: "number wide", text: tunnel => tunnel.requests.toLocaleString("en"), by: tunnel => tunnel.requests, falls: true },
  { title: "Open", kind: "number wide", text: tunnel => number(tunnel.open_exchanges), by: tunnel => tunnel.open_exchanges, falls: true },
  { title: "In", kind: "number wide", text: tunnel => bytes(tunnel.bytes_in), by: tunnel => tunnel.bytes_in, falls: true },
  { title: "Out", kind: "number wide", text: tunnel => bytes(tunnel.bytes_out), by: tunnel => tunnel.bytes_out, falls: true },
  { title: "For", kind: "number wide", text: tunnel => duration(age(tunnel)), by: age },
];

export class Tunnels {
  /** `show` opens the details of a tunnel. */
  constructor(show) {
    this.show = show;
    this.tunnels = new Map();
    this.rows = new Map();
    this.sorted = { column: COLUMNS[0], falls: false };
    this.heads = COLUMNS.map(column => this.head(column));
    byId("columns").replaceChildren(...this.heads, el("th", { scope: "col" }, el("span", { class: "hidden" }, "Details")));
    byId("filter").addEventListener("input", () => this.draw());
    this.mark();
    this.draw();
    setInterval(() => this.drawSoon(), 10_000);
  }

  head(column) {
    const button = el("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      const falls = this.sorted.column === column ? !this.sorted.falls : column.falls ?? false;
      this.sorted = { column, falls };
      this.mark();
      this.draw();
    });
    return el("th", { scope: "col", class: column.kind?.replace("text", "") }, button);
  }

  /** Says on the heads how the table is sorted. */
  mark() {
    COLUMNS.forEach((column, index) => {
      if (column === this.sorted.column) {
        this.heads[index].setAttribute("aria-sort", this.sorted.falls ? "descending" : "ascending");
      } else {
        this.heads[index].removeAttribute("aria-sort");
      }
    });
  }

  replace(list) {
    this.tunnels = new Map(list.map(tunnel => [tunnel.name, tunnel]));
    this.drawSoon();
  }

  set(tunnel) {
    this.tunnels.set(tunnel.name, tunnel);
    this.drawSoon();
  }

  remove(name) {
    this.tunnels.delete(name);
    this.drawSoon();
  }

  traffic(rows) {
    for (const row of rows) {
      const tunnel = this.tunnels.get(row.name);
      if (tunnel) this.tunnels.set(row.name, { ...tunnel, ...row });
    }
    this.drawSoon();
  }

  /** Requests per second of all tunnels. */
  rate() {
    let all = 0;
    for (const tunnel of this.tunnels.values()) all += tunnel.requests_per_second;
    return all;
  }

  /** How many tunnels a key has online. */
  ofKey(id) {
    return [...this.tunnels.values()].filter(tunnel => tunnel.key_id === id && tunnel.session !== null).length;
  }

  drawSoon() {
    this.timer ??= setTimeout(() => this.draw(), PACE);
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = undefined;
    const wanted = byId("filter").value.trim().toLowerCase();
    const texts = tunnel => [tunnel.name, tunnel.state, tunnel.key_name ?? "", tunnel.key_id, client(tunnel)];
    const found = [...this.tunnels.values()].filter(
      tunnel => !wanted || texts(tunnel).some(text => text.toLowerCase().includes(wanted)));
    const { column, falls } = this.sorted;
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    found.sort((one, other) =>
      (falls ? -1 : 1) * compare(column.by(one), column.by(other)) || compare(one.name, other.name));
    const shown = found.slice(0, MOST_ROWS);
    const body = byId("rows");
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    const names = new Set(shown.map(tunnel => tunnel.name));
    for (const [name, row] of this.rows) {
      if (!names.has(name)) {
        row.element.remove();
        this.rows.delete(name);
      }
    }
    body.querySelector(".empty")?.parentElement.remove();
    let next = body.firstElementChild;
    for (const tunnel of shown) {
      const { element } = this.row(tunnel);
      if (element === next) {
        next = next.nextElementSibling;
      } else {
        body.insertBefore(element, next);
      }
    }
    if (!shown.length) {
      const why = this.tunnels.size ? "No tunnel matches the filter." : "No tunnels yet. A client opens one: cok-client http 3000";
      body.append(el("tr", {}, el("td", { class: "empty", colspan: COLUMNS.length + 1 }, why)));
    }
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    const all = this.tunnels.size;
    const those = found.length === all ? `${all}` : `${found.length} of ${all}`;
    setText(byId("shown"), shown.length < found.length ? `${those}, the first ${MOST_ROWS} are shown` : those);
  }

  /** The row of a tunnel, with its present figures. */
  row(tunnel) {
    let row = this.rows.get(tunnel.name);
    if (!row) {
      const link = el("a", { rel: "noreferrer", target: "_blank" });
      const badge = el("span", { class: "badge" });
      const cells = COLUMNS.map((column, index) => {
        const cell = el(index ? "td" : "th", index ? { class: column.kind } : { scope: "row" });
        const holder = index === 0 ? link : index === 1 ? badge : el("bdi");
        cell.append(holder);
        return holder;
      });
      const button = el("button", { type: "button", class: "small", "aria-label": `Details of ${tunnel.name}` }, "Details");
      button.addEventListener("click", () => this.show(tunnel.name));
      const element = el("tr", {}, ...cells.map(cell => cell.parentElement), el("td", {}, button));
      row = { element, cells, link, badge };
      this.rows.set(tunnel.name, row);
    }
    COLUMNS.forEach((column, index) => {
      const text = column.text(tunnel);
      setText(row.cells[index], text);
      if (column.kind?.startsWith("text")) row.cells[index].parentElement.title = text;
    });
    if (tunnel.url.startsWith("https://")) row.link.href = tunnel.url;
    row.badge.className = `badge ${KINDS[tunnel.state] ?? ""}`;
    row.element.className = tunnel.session === null ? "away" : "";
    return row;
  }
}
