'use strict';
// Everything that visitors and services have sent is shown by textContent alone, so none of it becomes markup or script.

const API = '/api/v1/';
// Rows and messages beyond these make a page slow; the server keeps more.
const MOST_ROWS = 300, MOST_MESSAGES = 500;
const $ = id => document.getElementById(id);

/// An element with attributes, properties and children. Strings become text.
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === 'class') element.className = value;
    else if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

// The token stands in the address once and stays in this tab.
if (location.hash.length > 1) {
  sessionStorage.setItem('token', location.hash.slice(1));
  history.replaceState(null, '', location.pathname);
}

async function ask(path, options = {}) {
  const headers = { Authorization: 'Bearer ' + (sessionStorage.getItem('token') || '') };
  const response = await fetch(API + path, { ...options, headers, cache: 'no-store' });
  if (response.status === 401) lock();
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new Error(answer.error || 'The inspector answered ' + response.status + '.');
  }
  return response;
}

const askJson = async (path, options) => (await ask(path, options)).json();

function lock() {
  if (!$('locked').open) $('locked').showModal();
}

$('unlock').addEventListener('submit', () => {
  const token = $('unlock').elements.token.value.trim();
  sessionStorage.setItem('token', token.slice(token.indexOf('#') + 1));
  restart();
});

function alertText(text) {
  $('alert').textContent = text;
}

// Figures

function duration(ms) {
  if (ms === null) return '';
  if (ms < 10) return ms.toFixed(1) + ' ms';
  if (ms < 1000) return Math.round(ms) + ' ms';
  if (ms < 120000) return (ms / 1000).toFixed(ms < 10000 ? 1 : 0) + ' s';
  return Math.floor(ms / 60000) + ' min ' + Math.round(ms % 60000 / 1000) + ' s';
}

function size(bytes) {
  if (bytes < 1000) return bytes + ' B';
  let value = bytes, unit = 'B';
  for (const next of ['kB', 'MB', 'GB', 'TB']) {
    if (value < 999.5) break;
    value /= 1000;
    unit = next;
  }
  return (value < 9.95 ? value.toFixed(1) : Math.round(value)) + ' ' + unit;
}

function statusClass(line) {
  if (line.state === 'failed' || line.status >= 500) return 'bad';
  if (line.status >= 400) return 'notice';
  return line.state === 'open' ? 'dim' : 'good';
}

// The list

const lines = new Map();
let chosen = null, stream = null, frame = 0, changed = new Set();

function query(more = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of new FormData($('filter'))) if (value.trim()) parameters.set(name, value.trim());
  if ($('reveal').checked) parameters.set('reveal', 'true');
  for (const [name, value] of Object.entries(more)) parameters.set(name, value);
  return parameters.toString();
}

function note(line) {
  lines.set(line.id, line);
  changed.add(line.id);
  if (!frame) frame = requestAnimationFrame(draw);
}

/// Draws the rows that have changed. The newest is the first.
function draw() {
  frame = 0;
  const rows = $('rows');
  for (const id of [...changed].sort((a, b) => a - b)) {
    const line = lines.get(id);
    if (!line) continue;
    const old = $('row-' + id), row = makeRow(line);
    if (old) {
      // The button stays, so that no click on it is lost.
      [...row.children].forEach((cell, at) => {
        const shown = old.children[at];
        if (shown.textContent === cell.textContent) return;
        if (shown.className !== cell.className) shown.className = cell.className;
        const kept = shown.querySelector('button');
        if (!kept) { shown.replaceChildren(...cell.childNodes); return; }
        const [fresh, ...tags] = cell.childNodes;
        kept.textContent = fresh.textContent;
        while (kept.nextSibling) kept.nextSibling.remove();
        shown.append(...tags);
      });
      continue;
    }
    let before = rows.firstElementChild;
    while (before && Number(before.dataset.id) > id) before = before.nextElementSibling;
    rows.insertBefore(row, before);
  }
  if (changed.has(chosen)) loadSoon();
  changed = new Set();
  while (rows.children.length > MOST_ROWS && rows.lastElementChild.dataset.id !== String(chosen)) {
    lines.delete(Number(rows.lastElementChild.dataset.id));
    rows.lastElementChild.remove();
    $('more').hidden = false;
  }
  $('empty').hidden = rows.children.length > 0;
}

function makeRow(line) {
  const status = line.status === null ? line.state : String(line.status);
  const what = make('td', { class: 'what' },
    make('button', { type: 'button', 'aria-current': String(line.id === chosen) }, line.method + ' ' + line.target));
  const tag = (text, kind) => what.append(make('span', { class: 'tag ' + kind }, text));
  if (line.kind !== 'request') tag(line.kind.replace('_', ' ') + (line.state === 'open' ? ', open' : ''), 'dim');
  if (line.replay_of !== null) tag('replay of ' + line.replay_of, 'dim');
  if (line.state === 'failed' && line.status !== null) tag('broke off', 'bad');
  if (line.incomplete) tag('not captured whole', 'notice');
  const row = make('tr', { id: 'row-' + line.id, class: line.id === chosen ? 'chosen' : '', onclick: () => choose(line.id) },
    make('td', {}, String(line.id)),
    make('td', {}, new Date(line.began).toLocaleTimeString()),
    what,
    make('td', { class: statusClass(line) }, status),
    make('td', { class: 'number' }, line.state === 'open' ? 'open' : duration(line.duration_ms)),
    make('td', { class: 'number' }, size(line.response_bytes)));
  row.dataset.id = line.id;
  return row;
}

function showState(state) {
  const parts = [state.requests === 1 ? '1 request kept' : state.requests + ' requests kept'];
  if (state.evicted) parts.push(state.evicted + ' earlier ones made room');
  if (state.lost) parts.push(state.lost + ' parts were not captured, since traffic comes first');
  if (state.skipped) parts.push(state.skipped + ' requests were not captured, since there were too many at once');
  if (state.disk_failure) parts.push('long bodies are not captured: the disk says ' + state.disk_failure);
  $('state').textContent = parts.join('; ') + '.';
}

async function loadList(more = {}) {
  const answer = await askJson('requests?' + query({ limit: 100, ...more }));
  answer.requests.forEach(note);
  $('more').hidden = !answer.more;
  showState(answer.state);
  return answer.state.revision;
}

/// Begins again with the present filters.
async function restart() {
  if (stream) stream.abort();
  const mine = stream = new AbortController();
  alertText('');
  try {
    lines.clear();
    changed.clear();
    $('rows').replaceChildren();
    let after = await loadList();
    draw();
    while (!mine.signal.aborted) {
      after = await follow(after, mine.signal);
      if (mine.signal.aborted) return;
      alertText('The inspector does not answer. Trying again.');
      await new Promise(done => setTimeout(done, 1000));
      try {
        after = await loadList();
        alertText('');
      } catch { /* It is tried again. */ }
    }
  } catch (error) {
    if (!mine.signal.aborted) alertText(error.message);
  }
}

/// Takes in what changes until the connection ends. Returns the latest revision.
async function follow(after, signal) {
  try {
    const response = await ask('events?' + query({ after }), { signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return after;
      buffer += value;
      const events = buffer.split('\n\n');
      buffer = events.pop();
      for (const event of events) {
        const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(event) || [];
        if (name === 'request') note(JSON.parse(data));
        else if (name === 'state') { const state = JSON.parse(data); after = state.revision; showState(state); }
        else if (name === 'cleared') restart();
      }
    }
  } catch {
    return after;
  }
}

// One request

let loading = 0, detail = null, messages = null, version = 0;

function loadSoon() {
  if (!loading) loading = setTimeout(() => { loading = 0; load(); }, 150);
}

function choose(id) {
  const before = chosen;
  chosen = id;
  messages = null;
  for (const one of [before, id]) {
    const row = one === null ? null : $('row-' + one);
    if (!row) continue;
    row.classList.toggle('chosen', one === chosen);
    row.querySelector('button').setAttribute('aria-current', String(one === chosen));
  }
  load();
}

async function load() {
  const id = chosen, mine = ++version;
  if (id === null) return;
  try {
    const loaded = await askJson('requests/' + id + '?' + reveal());
    // A stream shows its messages. Its body would be fetched again with each of them.
    const answer = loaded.kind === 'request' ? loaded.response : null;
    const [request, response] = await Promise.all([shown(id, 'request', loaded.request), shown(id, 'response', answer)]);
    if (mine !== version || id !== chosen) return;
    detail = loaded;
    showDetail(loaded, request, response);
    await loadMessages(id);
  } catch (error) {
    if (mine !== version) return;
    detail = null;
    $('title').textContent = 'Request ' + id;
    $('hint').hidden = false;
    $('hint').textContent = error.message;
    $('chosen').hidden = true;
  }
}

const reveal = () => $('reveal').checked ? 'reveal=true' : '';

async function shown(id, side, part) {
  if (!part || part.captured === 0) return null;
  const body = await askJson('requests/' + id + '/' + side + '/shown?' + reveal());
  if (body.kind === 'image') {
    const bytes = await (await ask('requests/' + id + '/' + side + '/body?decoded')).arrayBuffer();
    body.url = URL.createObjectURL(new Blob([bytes], { type: body.image_type }));
  }
  return body;
}

function fields(title, list) {
  if (!list.length) return null;
  const body = make('tbody', {});
  for (const field of list) {
    body.append(make('tr', {}, make('th', { scope: 'row' }, field.name),
      make('td', { class: field.masked ? 'dim' : '' }, field.value + (field.masked ? ' (hidden)' : ''))));
  }
  return make('table', { class: 'fields', 'aria-label': title }, body);
}

function bodyOf(title, part, body) {
  const box = make('div', {});
  const cut = { limit: 'The rest is longer than what is captured of a body.', disk: 'The rest is missing: the disk took no more.',
    behind: 'The rest is missing: the inspector fell behind.' }[part.cut];
  if (part.size === 0) return box;
  box.append(make('h4', {}, title + ' body, ' + size(part.size)));
  if (cut) box.append(make('p', { class: 'notice' }, cut + ' Captured: ' + size(part.captured) + '.'));
  if (!body) return box;
  if (body.trouble) box.append(make('p', { class: 'notice' }, body.trouble));
  if (body.truncated) box.append(make('p', { class: 'dim' }, 'Only its beginning is shown.'));
  box.append(content(title, body));
  return box;
}

/// What there is to see of a body.
function content(title, body) {
  switch (body.kind) {
    case 'text': return make('pre', { tabindex: '0', 'aria-label': title + ' body' }, body.text);
    case 'form': return fields(title + ' form', body.fields.map(([name, value]) => ({ name, value })));
    case 'multipart': {
      const list = make('ol', {});
      for (const part of body.parts) {
        const name = [part.name, part.file_name, part.body.media_type].filter(Boolean).join(' · ');
        list.append(make('li', {}, name + ', ' + size(part.body.size), content(title + ' part', part.body)));
      }
      return list;
    }
    case 'image': return body.url
      ? make('img', { src: body.url, alt: title + ' body, an image of the type ' + body.image_type })
      : make('p', { class: 'dim' }, 'An image of the type ' + body.image_type);
    case 'binary': return make('pre', { tabindex: '0', 'aria-label': title + ' body in hexadecimal' }, body.dump);
    default: return make('p', { class: 'dim' }, 'Empty');
  }
}

function timings(one) {
  const { request_ms, service_ms, response_ms } = one.timings;
  const parts = [['request', 'request', request_ms], ['service', 'service', service_ms], ['response', 'response', response_ms]];
  const total = parts.reduce((sum, [, , ms]) => sum + (ms || 0), 0);
  if (!total) return null;
  const bar = make('div', { class: 'bar', 'aria-hidden': 'true' }), legend = make('p', { class: 'dim' });
  for (const [name, text, ms] of parts) {
    if (ms === null) continue;
    const part = make('span', { class: name });
    part.style.width = 100 * ms / total + '%';
    bar.append(part);
    legend.append(make('span', { class: 'key ' + name }, text + ' ' + duration(ms)), ' ');
  }
  return make('div', {}, bar, legend);
}

function showDetail(one, requestBody, responseBody) {
  $('title').textContent = one.method + ' ' + one.target;
  $('hint').hidden = true;
  for (const image of $('chosen').querySelectorAll('img')) URL.revokeObjectURL(image.src);
  const facts = make('dl', {});
  const fact = (name, value) => value !== null && value !== '' && facts.append(make('dt', {}, name), make('dd', {}, value));
  fact('Status', one.response ? (one.response.status + ' ' + one.response.reason).trim() : one.state);
  if (one.state === 'failed') fact('Ended', one.failure || 'broken off');
  if (one.reset) fact('Reset by', 'the ' + one.reset.by + (one.reset.code === null ? '' : ', code ' + one.reset.code));
  fact('Public address', one.authority + (one.tunnel ? ' (tunnel ' + one.tunnel + ')' : ''));
  fact('Began', new Date(one.began).toLocaleString());
  fact('Duration', one.state === 'open' ? 'open' : duration(one.duration_ms));
  fact('Sizes', size(one.request_bytes) + ' received, ' + size(one.response_bytes) + ' sent');
  fact('Service speaks', one.protocol);
  fact('Trace', one.trace_id);
  if (one.replay_of !== null) fact('Replay of', String(one.replay_of));
  const button = (text, action) => make('button', { type: 'button', onclick: action }, text);
  const isUpgrade = ['websocket', 'upgrade'].includes(one.kind);
  const parts = [
    make('div', { class: 'actions' }, isUpgrade ? null : button('Repeat', repeat), isUpgrade ? null : button('Edit and repeat', edit),
      button('Copy as curl', copyCurl)),
    facts, timings(one),
    make('h3', {}, 'Request'), fields('Fields of the request', one.request.fields), bodyOf('Request', one.request, requestBody),
    one.request.trailers.length ? make('h4', {}, 'Trailers of the request') : null, fields('Trailers of the request', one.request.trailers),
  ];
  for (const head of one.interim) {
    parts.push(make('h3', {}, 'Interim response ' + head.status), fields('Fields of the interim response', head.fields));
  }
  if (one.response) {
    parts.push(make('h3', {}, 'Response'), fields('Fields of the response', one.response.fields),
      isUpgrade ? null : bodyOf('Response', one.response, one.kind === 'request' ? responseBody : null),
      one.response.trailers.length ? make('h4', {}, 'Trailers of the response') : null,
      fields('Trailers of the response', one.response.trailers));
  }
  const scroll = $('detail').scrollTop, isSame = $('chosen').dataset.id === String(one.id);
  const focused = isSame && $('chosen').contains(document.activeElement) ? document.activeElement.textContent : null;
  const list = isSame ? $('chosen').querySelector('.stream') : null;
  // A button that is pressed while the details change stays the same button.
  const actions = isSame ? $('chosen').querySelector('.actions') : null;
  if (actions && actions.textContent === parts[0].textContent) parts[0] = actions;
  $('chosen').replaceChildren(...parts.filter(Boolean));
  if (list) $('chosen').append(list);
  $('chosen').dataset.id = one.id;
  $('chosen').hidden = false;
  if (isSame) $('detail').scrollTop = scroll;
  else $('detail').scrollTop = 0;
  for (const one of focused ? $('chosen').querySelectorAll('button') : []) if (one.textContent === focused) one.focus();
}

// Messages

async function loadMessages(id) {
  if (detail.kind === 'request' || detail.kind === 'upgrade') return;
  const after = messages && messages.id === id ? messages.last : null;
  const page = await askJson('requests/' + id + '/messages?limit=' + MOST_MESSAGES + (after === null ? '' : '&after=' + after));
  if (id !== chosen) return;
  if (after === null) {
    const list = make('ol', { class: 'messages', tabindex: '0', 'aria-label': 'Messages' });
    const note = make('p', { class: 'dim' });
    $('chosen').querySelector('.stream')?.remove();
    $('chosen').append(make('div', { class: 'stream' }, make('h3', {}, 'Messages'), note, list));
    messages = { id, last: 0, list, note };
  }
  const { list, note } = messages;
  const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 20;
  for (const message of page.messages) {
    list.append(makeMessage(message));
    messages.last = message.number;
  }
  while (list.children.length > MOST_MESSAGES) list.firstElementChild.remove();
  if (isAtEnd) list.scrollTop = list.scrollHeight;
  const parts = [page.total + (page.total === 1 ? ' message has passed' : ' messages have passed')];
  if (page.total > list.children.length) parts.push('the latest ' + list.children.length + ' are here');
  if (page.trouble) parts.push('later ones are not found: ' + page.trouble);
  note.textContent = parts.join('; ') + '.';
}

function makeMessage(message) {
  const arrow = message.from === 'visitor' ? '→ from the visitor' : '← from the service';
  const head = [arrow, duration(message.after_ms), message.kind, size(message.size)];
  if (message.event && message.event.name) head.push('event ' + message.event.name);
  if (message.event && message.event.id) head.push('id ' + message.event.id);
  if (message.code !== undefined) head.push('code ' + message.code);
  if (message.truncated) head.push('only its beginning is kept');
  if (message.trouble) head.push(message.trouble);
  const text = message.text === null ? message.base64 : message.text;
  return make('li', {}, make('span', { class: 'dim' }, head.join(' · ')), text ? make('pre', {}, text) : null);
}

// Actions

async function repeat() {
  try {
    const { id } = await askJson('requests/' + chosen + '/replay', { method: 'POST' });
    choose(id);
    $('detail').focus();
  } catch (error) {
    alertText(error.message);
  }
}

let original = null;

async function edit() {
  const form = $('edit').elements;
  try {
    // The body may have come since the detail was shown.
    const bytes = await (await ask('requests/' + detail.id + '/request/body')).arrayBuffer();
    let body = '';
    try {
      body = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      body = null;
    }
    original = { id: detail.id, fields: detail.request.fields, body };
    form.method.value = detail.method;
    form.target.value = detail.target;
    form.fields.value = original.fields.map(field => field.name + ': ' + field.value).join('\n');
    form.body.value = body === null ? '' : body;
    // A text area changes the ends of lines, so only a change of its own value counts.
    original.shownBody = form.body.value;
    $('body-label').hidden = body === null;
    $('edit-alert').textContent = '';
    $('editor').showModal();
  } catch (error) {
    alertText(error.message);
  }
}

/// The fields for the inspector. One that was hidden and has not changed keeps its value.
function editedFields(text) {
  const taken = new Set();
  return text.split('\n').filter(line => line.trim()).map(line => {
    const colon = line.indexOf(':');
    if (colon < 1) throw new Error('This line is no field: ' + line);
    const name = line.slice(0, colon).trim(), value = line.slice(colon + 1).trim();
    const place = original.fields.findIndex((field, at) => !taken.has(at) && field.name === name && field.value.trim() === value);
    if (place < 0) return { name, value };
    taken.add(place);
    return { name, original: place };
  });
}

$('edit').addEventListener('submit', async event => {
  event.preventDefault();
  const form = $('edit').elements;
  try {
    const change = { method: form.method.value.trim(), target: form.target.value.trim(), fields: editedFields(form.fields.value) };
    if (original.body !== null && form.body.value !== original.shownBody) change.body = form.body.value;
    const { id } = await askJson('requests/' + original.id + '/replay', { method: 'POST', body: JSON.stringify(change) });
    $('editor').close();
    choose(id);
  } catch (error) {
    $('edit-alert').textContent = error.message;
  }
});
$('cancel').addEventListener('click', () => $('editor').close());

async function copyCurl() {
  try {
    const text = await (await ask('requests/' + chosen + '/curl?' + reveal())).text();
    await navigator.clipboard.writeText(text);
    $('state').textContent = 'The curl line is copied.';
  } catch (error) {
    alertText(error.message);
  }
}

$('har').addEventListener('click', async () => {
  try {
    const url = URL.createObjectURL(await (await ask('har?' + query({ limit: 1000 }))).blob());
    make('a', { href: url, download: 'requests.har' }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) {
    alertText(error.message);
  }
});

$('clear').addEventListener('click', () => ask('requests', { method: 'DELETE' }).catch(error => alertText(error.message)));
$('reveal').addEventListener('change', () => { restart(); messages = null; load(); });
$('more').addEventListener('click', () => {
  const oldest = $('rows').lastElementChild;
  loadList(oldest ? { before: oldest.dataset.id } : {}).catch(error => alertText(error.message));
});

let typing = 0;
$('filter').addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(restart, 250); });
$('filter').addEventListener('submit', event => { event.preventDefault(); restart(); });

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector('dialog[open]')) return;
  if (/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  if (event.key === '/') {
    event.preventDefault();
    $('filter').elements.path.focus();
  } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    if ($('detail').contains(event.target) && event.target !== $('detail')) return;
    const row = $('row-' + chosen);
    const next = row ? (event.key === 'ArrowDown' ? row.nextElementSibling : row.previousElementSibling) : $('rows').firstElementChild;
    if (!next) return;
    event.preventDefault();
    choose(Number(next.dataset.id));
    next.querySelector('button').focus();
    next.scrollIntoView({ block: 'nearest' });
  } else if (detail && chosen !== null) {
    if (event.key === 'r') repeat();
    else if (event.key === 'e') { event.preventDefault(); edit(); }
    else if (event.key === 'c') copyCurl();
  }
});

restart();
