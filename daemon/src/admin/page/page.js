// The admin page: it shows what the API says, live, and acts on it with the token of the operator.

import { Hour } from "./plots.js";
import { Tunnels } from "./tunnels.js";
import { bytes, byId, duration, el, facts, millis, moment, number, setText } from "./text.js";

const API = "/api/v1";
/** Where the token stays until the tab is closed. */
const TOKEN = "cok-admin-token";
/** How long a message stands, and how long to wait before a new attempt, in milliseconds. */
const NEWS = 8000;
const AGAIN = 2000;
/** The certificate changes seldom, and only by itself. */
const CERTIFICATE_EVERY = 60_000;

/** The components of health. */
const COMPONENTS = { certificate: "Certificate", acme: "ACME", dns: "DNS", store: "Store", disk: "Disk" };

/** What is refused, where the name in the metrics says too little. */
const REFUSED = {
  keys: "wrong keys", held: "visitors that wait for a tunnel", names: "names in memory", buffered: "bytes of bodies in memory",
  visitor_share: "one visitor's share of a tunnel",
};

let token = sessionStorage.getItem(TOKEN) ?? "";
let status = null;
let newsTimer;

// ---- asking ----

class Failed extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const ask = async (method, path) => {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(API + path, { method, headers });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  const body = isJson ? JSON.parse(text) : text;
  if (!response.ok) throw new Failed(response.status, isJson ? body.message : text.trim());
  return body;
};

const tell = text => {
  byId("news").textContent = text;
  clearTimeout(newsTimer);
  newsTimer = setTimeout(() => setText(byId("news"), ""), NEWS);
};

// ---- the daemon as a whole ----

const badge = (element, kind, text) => {
  element.className = `badge ${kind}`;
  setText(element, text);
};

let before = null;
const perSecond = (now, name) => {
  const seconds = before ? (now.when - before.when) / 1000 : 0;
  return seconds > 0 ? Math.max(0, now[name] - before[name]) / seconds : 0;
};

const showStatus = now => {
  now.when = Date.now();
  status = now;
  setText(byId("domain"), now.domain);
  document.title = `${now.tunnels.online} tunnels · ${now.domain}`;
  const { ready, why, components } = now.health;
  const failing = components.filter(component => component.state !== "ok");
  badge(byId("ready"), !ready ? "bad" : failing.length ? "warn" : "good", !ready ? "not ready" : failing.length ? "degraded" : "ready");
  const troubles = [...(ready ? [] : [why]), ...failing.map(({ name, why }) => `${name}: ${why}`)];
  byId("trouble").hidden = troubles.length === 0;
  setText(byId("trouble"), troubles.join(" · "));
  setText(byId("now-tunnels"), number(now.tunnels.online));
  setText(byId("now-others"), `${now.tunnels.silent} silent, ${now.tunnels.away} away`);
  setText(byId("now-sessions"), number(now.sessions));
  setText(byId("now-visitors"), `${number(now.visitors)} visitors' connections`);
  setText(byId("now-rate"), number(tunnels.rate()));
  setText(byId("now-open"), `${number(now.open_exchanges)} open`);
  setText(byId("now-out"), `${bytes(perSecond(now, "bytes_out"))}/s`);
  setText(byId("now-in"), `from them ${bytes(perSecond(now, "bytes_in"))}/s`);
  const expires = now.certificate_expires && new Date(now.certificate_expires);
  setText(byId("now-certificate"), expires ? duration((expires - Date.now()) / 1000) : "none yet");
  setText(byId("now-uptime"), expires ? "until it expires" : "a stand-in is served");
  facts(byId("health"), [
    ["State", ready ? "ready" : `not ready: ${why}`, ready ? null : "bad"],
    ...components.map(({ name, state, why }) => [COMPONENTS[name] ?? name, why ? `${state}: ${why}` : state, state === "ok" ? null : "bad"]),
    ["Phase", now.phase.replace("_", " ")], ["Version", now.version], ["Up for", duration(now.uptime_seconds)],
  ]);
  const named = (counts, kind) => Object.entries(counts).filter(([, count]) => count > 0).map(
    ([name, count]) => [REFUSED[name] ?? `${name.replaceAll("_", " ")}, by ${kind}`, number(count)]);
  const refused = [...named(now.refused.by_limit, "limit"), ...named(now.refused.by_rate, "rate")];
  facts(byId("refused"), refused);
  byId("refused-none").hidden = refused.length > 0;
  before = now;
};

const showCertificate = async () => {
  const shown = await ask("GET", "/certificate");
  const at = seconds => (seconds ? moment(new Date(seconds * 1000)) : null);
  facts(byId("certificate"), [
    ["Source", shown.source], ["Names", shown.names.join(", ") || "no certificate yet"], ["Issuer", shown.issuer],
    ["Expires", at(shown.not_after)], ["Next renewal", at(shown.next_renewal)],
    ["Asked for", shown.requested ? "a new certificate" : null], ["Last error", shown.last_error, "bad"],
  ]);
  byId("renew").hidden = shown.source !== "acme";
};

// ---- tunnels ----

const tunnels = new Tunnels(name => showDetails(name));
const hour = new Hour();

const showDetails = name => {
  const tunnel = tunnels.tunnels.get(name);
  if (!tunnel) return;
  setText(byId("details-title"), name);
  facts(byId("details-facts"), [
    ["Address", tunnel.url], ["State", tunnel.state], ["Since", moment(new Date(tunnel.since))],
    ["Key", tunnel.key_name === null ? tunnel.key_id : `${tunnel.key_name} (${tunnel.key_id})`],
    ["Session", tunnel.session], ["Client", tunnel.client_version], ["From", tunnel.client_address],
    ["Transport", tunnel.transport], ["Round trip", tunnel.round_trip_ms === null ? null : millis(tunnel.round_trip_ms)],
    ["Requests", tunnel.requests.toLocaleString("en")], ["Open", number(tunnel.open_exchanges)],
    ["From visitors", bytes(tunnel.bytes_in)], ["To visitors", bytes(tunnel.bytes_out)],
  ]);
  byId("details-end").hidden = tunnel.session === null;
  byId("details-end").onclick = () => endSession(tunnel);
  byId("details").showModal();
};

/** What the API sends, by the event's name. */
const EVENTS = {
  tunnel: tunnel => {
    const known = tunnels.tunnels.get(tunnel.name);
    if (known?.state !== tunnel.state) tell(`${tunnel.name} is ${tunnel.state}`);
    tunnels.set(tunnel);
  },
  gone: ({ name }) => tunnels.remove(name),
  traffic: rows => tunnels.traffic(rows),
  status: showStatus,
  history: point => hour.add(point),
};

/** Events that come while the list is fetched. They may be newer than the list. */
let waiting = null;
/** Something was missed while the list was fetched, so that it is fetched again. */
let isMissed = false;

const fetchAll = async () => {
  isMissed = true;
  if (waiting) return;
  waiting = [];
  while (isMissed) {
    isMissed = false;
    try {
      const [list, history] = await Promise.all([ask("GET", "/tunnels"), ask("GET", "/history")]);
      tunnels.replace(list);
      hour.set(history);
    } catch (error) {
      tell(`The list of tunnels could not be fetched: ${error.message}`);
      setTimeout(fetchAll, AGAIN);
    }
  }
  const events = waiting;
  waiting = null;
  for (const [name, data] of events) EVENTS[name](data);
};

const listen = () => {
  const source = new EventSource(`${API}/events`);
  source.onopen = () => badge(byId("link"), "good", "live");
  source.onerror = () => {
    badge(byId("link"), "warn", "reconnecting");
    // The browser tries again by itself, except after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN);
  };
  source.addEventListener("resync", fetchAll);
  for (const name of Object.keys(EVENTS)) {
    source.addEventListener(name, ({ data }) => {
      const value = JSON.parse(data);
      if (waiting) waiting.push([name, value]);
      else EVENTS[name](value);
    });
  }
};

// ---- actions ----

/** Asks whether to do something. */
const confirmed = (title, text, yes) => new Promise(resolve => {
  const dialog = byId("confirm");
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-yes"), yes);
  let answer = false;
  byId("confirm-yes").onclick = () => {
    answer = true;
    dialog.close();
  };
  byId("confirm-no").onclick = () => dialog.close();
  dialog.onclose = () => resolve(answer);
  dialog.showModal();
  byId("confirm-no").focus();
});

/** Does something that needs the token, and says what came of it. */
const act = async (method, path, done) => {
  if (!token) {
    sayToken("Actions need the admin token.", true);
    byId("details").close();
    byId("token").focus();
    return;
  }
  try {
    const answer = await ask(method, path);
    tell(done ?? answer.message);
  } catch (error) {
    if (error.code === 401) lock("The token was refused. Enter it again.");
    else tell(error.message);
  }
};

const endSession = async ({ session, name }) => {
  const others = [...tunnels.tunnels.values()].filter(tunnel => tunnel.session === session && tunnel.name !== name);
  const text = `Its requests break off. Its client may connect again at once; revoke its key to keep it out.${
    others.length ? ` The session also carries ${others.map(tunnel => tunnel.name).join(", ")}.` : ""}`;
  if (!await confirmed(`End the session of ${name}?`, text, "End session")) return;
  await act("DELETE", `/sessions/${encodeURIComponent(session)}`, `The session of ${name} was ended.`);
  byId("details").close();
};

const revoke = async key => {
  const text = "All its sessions end at once, and no client can use it again. This is final.";
  if (!await confirmed(`Revoke the key ${key.name}?`, text, "Revoke key")) return;
  await act("DELETE", `/keys/${encodeURIComponent(key.id)}`, `The key ${key.name} was revoked.`);
  await showKeys();
};

byId("details-close").addEventListener("click", () => byId("details").close());
byId("renew").addEventListener("click", async () => {
  const text = "Certificate authorities allow only a few certificates a week.";
  if (!await confirmed("Ask for a new certificate now?", text, "Renew")) return;
  await act("POST", "/certificate/renew");
  await showCertificate();
});
byId("drain").addEventListener("click", async () => {
  const text = "What runs may finish within drain_timeout. systemd starts cokd again; without a service manager it stays stopped.";
  if (await confirmed("Stop cokd?", text, "Stop cokd")) await act("POST", "/drain");
});

// ---- keys and the token ----

const sayToken = (text, isBad = false) => {
  byId("token-says").className = isBad ? "says bad" : "says";
  setText(byId("token-says"), text);
};

const lock = (why = "", isBad = true) => {
  token = "";
  sessionStorage.removeItem(TOKEN);
  byId("token").value = "";
  for (const id of ["token", "token-label"]) byId(id).hidden = false;
  setText(byId("token-button"), "Unlock");
  byId("keys-scroll").hidden = true;
  byId("keys-say").hidden = false;
  sayToken(why, isBad);
};

const showKeys = async () => {
  if (!token) return;
  let keys;
  try {
    keys = await ask("GET", "/keys");
  } catch (error) {
    lock(error.code === 401 ? "That is not the token." : error.message);
    return;
  }
  sessionStorage.setItem(TOKEN, token);
  byId("token").value = "";
  for (const id of ["token", "token-label"]) byId(id).hidden = true;
  setText(byId("token-button"), "Lock");
  sayToken("Actions are unlocked.");
  byId("keys").replaceChildren(...keys.map(key => {
    const button = el("button", { type: "button", class: "small danger", "aria-label": `Revoke ${key.name}` }, "Revoke…");
    button.addEventListener("click", () => revoke(key));
    const kind = { valid: "good", expired: "warn" }[key.state] ?? "";
    return el("tr", {},
      el("th", { scope: "row", class: "text", title: key.name }, el("bdi", {}, key.name)),
      el("td", {}, el("span", { class: `badge ${kind}` }, key.state)),
      el("td", { class: "text" }, el("bdi", {}, key.subdomains.join(", "))),
      el("td", { class: "number" }, `${tunnels.ofKey(key.id)} of ${key.max_tunnels}`),
      el("td", {}, key.expires ? moment(new Date(key.expires)) : "never"),
      el("td", {}, el("code", {}, key.id)),
      el("td", {}, key.state !== "revoked" && key.source === "store" ? button : ""));
  }));
  byId("keys-scroll").hidden = keys.length === 0;
  byId("keys-say").hidden = keys.length > 0;
  if (!keys.length) setText(byId("keys-say"), "There are no keys.");
};

byId("unlock").addEventListener("submit", event => {
  event.preventDefault();
  if (token) {
    lock("", false);
    byId("token").focus();
    return;
  }
  token = byId("token").value.trim();
  if (token) showKeys();
  else sayToken("Enter the token of token_file in [admin].", true);
});

// ---- begin ----

showKeys();
listen();
showCertificate().catch(error => tell(error.message));
setInterval(() => showCertificate().catch(() => {}), CERTIFICATE_EVERY);
