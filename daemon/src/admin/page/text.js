// Figures as people read them, and elements that hold text. Nothing here makes markup of a text.

export const el = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
};

export const byId = id => document.getElementById(id);

/** Sets a text only if it differs, so that a screen reader says nothing twice. */
export const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

export const number = value => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });

/** A value with so many digits at most, without zeros at its end. */
const digits = (value, most) => String(Number(value.toPrecision(most)));

export const bytes = value => {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : digits(value, 3)} ${units[unit]}`;
};

export const millis = value => {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${digits(value / 1000, 3)} s`;
  return `${value >= 100 ? Math.round(value) : digits(value, 2)} ms`;
};

export const duration = seconds => {
  const s = Math.max(0, Math.round(seconds));
  if (s >= 172800) return `${Math.floor(s / 86400)} d`;
  if (s >= 7200) return `${Math.floor(s / 3600)} h`;
  if (s >= 120) return `${Math.floor(s / 60)} min`;
  return `${s} s`;
};

export const clock = seconds =>
  new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const moment = date => {
  if (date === null || Number.isNaN(date.getTime())) return "–";
  const away = (date - Date.now()) / 1000;
  const text = date.toISOString().slice(0, 16).replace("T", " ");
  return `${text} UTC (${away >= 0 ? `in ${duration(away)}` : `${duration(-away)} ago`})`;
};

/** A list of names and values. Values are texts, or a text and a class. */
export const facts = (list, rows) => {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  list.replaceChildren(...shown.flatMap(([name, value, kind]) => [
    el("dt", {}, name), el("dd", { class: kind }, el("bdi", {}, String(value))),
  ]));
};
